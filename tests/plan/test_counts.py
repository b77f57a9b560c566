"""Work and floors against values by hand, and against the products that JAX traces."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from fdjax.model import LoRA, Model, ModelConfig
from fdjax.plan.chips import CHIPS, chip_of
from fdjax.plan.counts import (
    Work,
    attention_flops,
    block_weights,
    decode_work,
    forward_flops,
    head_flops,
    kept_bytes,
    prefill_work,
    recomputed,
    step_work,
)
from fdjax.plan.roofline import Floor, floor
from fdjax.plan.sizes import SIZES, policy_config

SMALL = ModelConfig(
    vocab_size=100,
    hidden_size=8,
    intermediate_size=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    dtype="bfloat16",
)
# Of a layer: queries and output 2 × 8 × 16, keys and values 2 × 8 × 8, MLP 3 × 8 × 16.
WEIGHTS = 3 * (256 + 128 + 384)
HEAD = 800


def test_weights_and_forward_by_hand():
    assert block_weights(SMALL) == WEIGHTS
    # Five tokens see 1 + 2 + 3 + 4 + 5 = 15; 4 × 3 layers × 4 heads × 4.
    assert attention_flops(SMALL, 5) == 192 * 15
    assert forward_flops(SMALL, 2, 5) == 2 * (2 * WEIGHTS * 5 + 192 * 15)
    assert head_flops(SMALL, 7) == 2 * HEAD * 7


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
        ("llama-3-8b", 8_030_261_248),
    ],
)
def test_published_sizes_have_the_published_parameters(name, parameters):
    """Counts as the hub says them, the head of tied embeddings once."""
    config = SIZES[name]
    shapes = jax.eval_shape(Model(config).init, jax.random.key(0))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count == parameters
    tables = 1 if config.tie_word_embeddings else 2
    counted = block_weights(config) + tables * config.vocab_size * config.hidden_size
    # Norms and their like are less than a thousandth.
    assert 0.999 * count < counted < count


def _products(jaxpr, times=1):
    """FLOPs of all products, those of loops as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total += 2 * times * inner * math.prod(equation.outvars[0].aval.shape)
        turns = equation.params.get("length", 1)
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: isinstance(leaf, Jaxpr | ClosedJaxpr)
        ):
            if isinstance(value, ClosedJaxpr):
                total += _products(value.jaxpr, times * turns)
            elif isinstance(value, Jaxpr):
                total += _products(value, times * turns)
    return total


def test_the_forward_pass_has_the_products_that_are_counted():
    """Attention as written out computes all pairs, of which half are masked."""
    config = replace(SMALL, attention="reference", remat="none")
    model, length = Model(config), 16
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((2, length), jnp.int32)
    traced = jax.make_jaxpr(
        lambda params, tokens: model.apply(
            params, tokens, valid=jnp.ones(tokens.shape, bool)
        )
    )(params, tokens)
    every = 2 * 192 * length**2
    expected = 2 * 2 * WEIGHTS * length + every + head_flops(config, 2 * length)
    assert _products(traced.jaxpr) == expected


def test_a_step_by_hand():
    common = {"devices": 4, "tensor": 2, "rows": 8, "length": 6, "scored": 4}
    blocks, head = forward_flops(SMALL, 8, 6), head_flops(SMALL, 32)
    grpo = step_work(SMALL, **common, microbatches=2, held=1e4)
    # Repeated of 48 tokens: queries, keys, values, output, gate and up, 16 + 16 + 16 +
    # 32 wide, and attention, which sees 1 + … + 6 = 21 tokens in each of 8 rows.
    again = 2 * 3 * 8 * (16 + 16 + 16 + 32) * 48 + 8 * 192 * 21
    assert recomputed(SMALL, 8, 6) == again
    # Forward, twice that backward; the head three times.
    assert grpo.flops == (3 * blocks + again + 3 * head) / 4
    fd = step_work(SMALL, **common, teachers=(9,), microbatches=2, held=1e4)
    assert fd.flops == grpo.flops + (forward_flops(SMALL, 8, 9) + head) / 4
    adapters = step_work(SMALL, **common, held=1e4, lora=LoRA())
    assert adapters.flops == (2 * blocks + again + 2 * head) / 4
    # 2 microbatches × (3 passes over half of the weights in 2 bytes, a fourth of the
    # gradient in 4 bytes in and out), the state in and out, the residual stream of
    # three layers in and out: 8 × 6 tokens over 2 parts, 8 wide, cut in 2.
    all_weights = WEIGHTS + HEAD
    weights = 2 * (3 * all_weights + 2 * all_weights)
    assert grpo.moved == weights + 2e4 + 2 * 3 * 24 * 8 * 2 / 2


def test_decoding_by_hand():
    token = decode_work(SMALL, rows=3, tensor=2, context=10)
    assert token.flops == 3 * (2 * (WEIGHTS + HEAD) + 192 * 10) / 2
    # A token's keys and values: 2 × 3 layers × 2 heads × 4 × 2 bytes.
    assert token.moved == (2 * (WEIGHTS + HEAD) + 3 * 10 * 96) / 2


def test_prompts_read_the_weights_once_a_program():
    work = prefill_work(SMALL, prompts=5, length=6, tensor=1, together=8)
    assert work.flops == 5 * forward_flops(SMALL, 1, 6)
    assert work.moved == 4 * 2 * WEIGHTS + 30 * 96


@pytest.mark.parametrize(
    ("settings", "width", "kernel"),
    [
        ({"remat": "none"}, 0, 0),
        ({"remat": "dots"}, 0, 1),
        ({"remat": "named"}, 80, 0),
        ({"remat": "named", "remat_names": ("inner", "query")}, 80 - 32 - 16, 1),
    ],
)
def test_what_is_repeated_by_hand(settings, width, kernel):
    config = replace(SMALL, **settings)
    expected = 2 * 3 * 8 * width * 5 + kernel * attention_flops(SMALL, 5)
    assert recomputed(config, 1, 5) == expected


def test_what_is_kept_grows_with_less_remat():
    sizes = [
        kept_bytes(replace(SMALL, remat=remat), 10)
        for remat in ("full", "named", "dots", "none")
    ]
    assert sizes == sorted(sizes)
    # The residual stream; and the 16 values of all heads.
    assert sizes[:2] == [3 * 10 * 2 * 8, 3 * 10 * 2 * (8 + 16)]


def test_the_longest_of_three_binds():
    chip = CHIPS["v5e"]
    work = Work(flops=197e12, moved=2 * 819e9)
    # 200 GB/s over four links.
    found = floor(chip, work, received=300e9)
    assert found == Floor(compute_s=1.0, memory_s=2.0, links_s=1.5)
    assert (found.seconds, found.binds) == (2.0, "memory")
    assert found.times(3).links_s == 4.5
    assert floor(chip, work).binds == "memory"
    assert floor(chip, Work(flops=1.0), received=1e12).binds == "links"


def test_chips_are_told_by_their_topology():
    assert chip_of("v5p:2x4x4").links == 6
    # Half a chip's 192 GiB, less what is the system's.
    assert chip_of("tpu7x:2x2x1").usable_gib < 96
    assert CHIPS["v5p"].clock == pytest.approx(1.75e9, rel=0.01)
    assert CHIPS["v5e"].ring == 100e9


@pytest.mark.parametrize("topology", ["v7x:2x2x1", "v5e-16", ""])
def test_unknown_chips_are_refused(topology):
    with pytest.raises(ValueError, match=r"tpu7x:2x2x1, got"):
        chip_of(topology)


def test_policies_by_name_and_by_folder(tmp_path):
    assert policy_config("Qwen/Qwen3-8B") is SIZES["qwen3-8b"]
    (tmp_path / "config.json").write_text(
        '{"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 5, '
        '"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, '
        '"intermediate_size": 96, "vocab_size": 128}'
    )
    assert policy_config(str(tmp_path)).num_layers == 5
    with pytest.raises(ValueError, match=r"qwen3-0.6b.*got 'qwen4'"):
        policy_config("qwen4")
