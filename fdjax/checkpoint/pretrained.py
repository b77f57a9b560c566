"""A model from disk or hub onto a mesh, and from the mesh to Hugging Face."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from transformers import PreTrainedTokenizerBase

from fdjax.checkpoint.conversion import SHARD_BYTES, write_model
from fdjax.checkpoint.description import check_description, read_config, stop_tokens
from fdjax.checkpoint.names import Weight, weights
from fdjax.checkpoint.paths import find, nested
from fdjax.checkpoint.run_reader import Which
from fdjax.checkpoint.source import Source, open_source
from fdjax.errors import CheckpointError
from fdjax.model import Model, ModelConfig, WeightsDType
from fdjax.model.lora import Adapted, merged
from fdjax.sharding import shardings

__all__ = ["Pretrained", "load_params", "load_pretrained", "save_pretrained"]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model with its weights."""

    model: Model
    """The decoder."""
    params: Any
    """Its parameters, laid out on the mesh."""
    folder: Path
    """Folder of config.json and tokenizer, for `AutoTokenizer.from_pretrained`."""
    stop_tokens: tuple[int, ...]
    """Ids that end an answer, as transformers' `generate` has them: `eos_token_id` of
    generation_config.json if there is one, else of config.json."""


def load_pretrained(
    source: str | Path,
    mesh: Mesh,
    *,
    param_dtype: Literal["float32", "bfloat16"] = "float32",
    which: Which = "student",
    step: int | None = None,
    revision: str | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    **settings: Any,
) -> Pretrained:
    """Loads a folder of Hugging Face, a converted one, a run's, or a hub id.

    Args:
      source: folder or hub id; see `open_source`.
      mesh: the device mesh; no host holds more than a layer's weight beyond its part.
      param_dtype: type of the parameters; training wants float32.
      which: policy or EMA teacher of a training checkpoint.
      step: of a folder of training checkpoints; the newest by default.
      revision: of a hub id.
      progress: called with weights done, weights in all and the tensor's name.
      **settings: fields of `ModelConfig` that say how it is computed: dtype,
        attention, remat, remat_names, unroll.

    Raises:
      CheckpointError: there is no such model, it is damaged, or transformers reads
        its tokenizer otherwise than it is written.
      ConfigError: the decoder is not of this family, lacks a row of embeddings for
        one of the tokenizer's tokens, or does not fit the mesh.
    """
    found = open_source(source, step=step, revision=revision)
    check_description(found.description, found.config)
    config = replace(found.config, **settings)
    model = Model(config, mesh)
    params = load_params(
        found,
        model,
        mesh,
        param_dtype=param_dtype,
        which=which,
        progress=progress,
    )
    return Pretrained(
        model=model,
        params=params,
        folder=found.description,
        stop_tokens=stop_tokens(found.description),
    )


def load_params(
    source: Source,
    model: Model,
    mesh: Mesh,
    *,
    param_dtype: Literal["float32", "bfloat16"] = "float32",
    which: Which = "student",
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Any:
    """The parameters of a source, laid out on a mesh, read layer by layer.

    Arguments and errors are those of `load_pretrained`.
    """
    reader = source.reader(which)
    dtype = jnp.dtype(param_dtype)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    layouts = shardings(mesh, model.logical_axes(), abstract)
    params: dict[str, Any] = {}
    for done, weight in enumerate(reader.weights):
        progress(done, len(reader.weights), weight.tensor)
        layout = find(layouts, weight.path)
        if weight.layer is None:
            nested(weight.path, reader.load(weight, layout, dtype), params)
            continue
        if weight.layer == 0:
            shape = find(abstract, weight.path).shape
            nested(weight.path, jnp.zeros(shape, dtype, device=layout), params)
        own = NamedSharding(mesh, PartitionSpec(*layout.spec[1:]))
        layer = reader.load(weight, own, dtype)
        stack = find(params, weight.path)
        nested(weight.path, _put(stack, layer, np.int32(weight.layer)), params)
    progress(len(reader.weights), len(reader.weights), "")
    return params


def save_pretrained(
    params: Any,
    config: ModelConfig,
    target: Path,
    *,
    description: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: WeightsDType | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> None:
    """Writes parameters as a Hugging Face folder, from any mesh, weight by weight.

    On several processes all call it, and process 0 writes.

    Args:
      params: of the model, or of its teacher; adapters are added to their weights
        (`fdjax.model.merge`), one weight of a layer at a time.
      config: the model.
      target: a folder that does not exist yet, or an empty one.
      description: folder of config.json, tokenizer and the rest, which are copied.
      tokenizer: the one that the model was trained with, to make sure that it is the
        description's; not needed where it was read there.
      dtype: type of the weights; by default that of config.json.
      max_shard_bytes: size of a safetensors file at most.
      progress: called with bytes done, bytes in all and the tensor's name.

    Raises:
      CheckpointError: config.json is of another model, transformers reads another
        tokenizer in the description, the target is in use, or the disk is full.
      ConfigError: the embedding table lacks a row for one of the tokenizer's tokens.
    """
    _, described = read_config(description)
    same = replace(
        described,
        dtype=config.dtype,
        attention=config.attention,
        remat=config.remat,
        remat_names=config.remat_names,
        unroll=config.unroll,
    )
    if same != config:
        raise CheckpointError(
            f"Expected the model of {description / 'config.json'}, {same}, got {config}"
            "; give the folder that the model was loaded from."
        )
    check_description(description, config, tokenizer)
    reader = _ParamsReader(params, config)
    if jax.process_index() == 0:
        write_model(
            reader,
            target,
            to="hf",
            description=description,
            dtype=dtype,
            stored=False,
            max_shard_bytes=max_shard_bytes,
            progress=progress,
        )
        return
    for weight in reader.weights:
        reader.read(weight)


class _ParamsReader:
    """Weights out of parameters on a mesh; all processes read together."""

    def __init__(self, params: Any, config: ModelConfig):
        self.weights = weights(config)
        self._params = params
        self._held: tuple[Weight, np.ndarray] | None = None

    def dtype(self, weight: Weight) -> str:
        leaf = find(self._params, weight.path)
        return "float32" if isinstance(leaf, Adapted) else str(leaf.dtype)

    def read(self, weight: Weight, index: tuple[slice, ...] = ()) -> np.ndarray:
        if self._held is None or self._held[0] != weight:
            self._held = None
            self._held = (weight, self._whole(weight))
        return self._held[1][index]

    def _whole(self, weight: Weight) -> np.ndarray:
        leaf = find(self._params, weight.path)
        if weight.layer is not None:
            leaf = _layer_of(leaf, np.int32(weight.layer))
        if not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)


@jax.jit
def _layer_of(stack: Any, index: jax.Array) -> jax.Array:
    """An entry of a stacked parameter, adapters added to it."""
    layer = jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stack
    )
    return merged(layer) if isinstance(layer, Adapted) else layer


def _put_layer(stack: jax.Array, layer: jax.Array, index: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(stack, layer, index, axis=0)


_put = jax.jit(_put_layer, donate_argnums=0)
