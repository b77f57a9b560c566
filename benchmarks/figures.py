"""What every benchmark leaves beside its tables: where it ran, and all figures."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fdjax.encoding import encode
from fdjax.files import write_whole

__all__ = ["machine", "print_facts", "write_figures"]


def machine() -> dict[str, str | int | float | None]:
    """What it was measured on."""
    names = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "machine": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values in one line."""
    print(", ".join(f"{name} {value}" for name, value in facts.items()))


def write_figures(figures: Mapping[str, Any], path: Path | None) -> None:
    """All figures as JSON, if somebody asked for them."""
    if path is not None:
        write_whole(path, encode(figures, indent=1))
