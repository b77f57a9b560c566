"""The command `fdjax convert`: checkpoints in and out of Hugging Face."""

import time
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from fdjax.checkpoint import convert, open_source
from fdjax.checkpoint.conversion import Target
from fdjax.checkpoint.run_reader import Which
from fdjax.model import WeightsDType
from fdjax.ranges import Number, Whole, require

__all__ = ["convert_model"]


def convert_model(
    source: str,
    target: Path,
    *,
    to: Target,
    dtype: WeightsDType | None,
    which: Which,
    step: int | None,
    model: Path | None,
    revision: str | None,
    max_shard_gb: float,
) -> int:
    """Converts with a progress bar and says what was written; returns 0.

    Arguments are those of `fdjax.checkpoint.open_source` and `convert`.

    Raises:
      CheckpointError: the source is damaged, the target is in use, or the disk is full.
      ConfigError: the model is none that the decoder is, or a setting out of range.
    """
    require("--max-shard-gb", max_shard_gb, Number(above=0))
    if step is not None:
        require("--step", step, Whole(0))
    # Weights pass through host memory; an accelerator, if any, is left to others.
    jax.config.update("jax_platforms", "cpu")
    console, start = Console(), time.monotonic()
    found = open_source(source, model=model, step=step, revision=revision)
    columns = (
        TextColumn("{task.description:<40}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("", visible=False)

        def show(done: int, total: int, name: str) -> None:
            bars.update(
                bar, completed=done, total=total, description=name[-40:], visible=True
            )

        size = convert(
            found,
            target,
            to=to,
            dtype=dtype,
            which=which,
            max_shard_bytes=int(max_shard_gb * 1e9),
            progress=show,
        )
    kind = found.hf_config["model_type"]
    console.print(
        f"{kind}, {size / 1e9:.3g} GB of weights, written to {target} in "
        f"{time.monotonic() - start:.1f} s",
        soft_wrap=True,
        highlight=False,
    )
    return 0
