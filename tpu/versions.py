"""What is installed on every host: one set of versions, for images and machines alike.

The constraints of `requirements.lock` pin all other packages.
"""

from dataclasses import dataclass

__all__ = ["ELAN", "JOBSET", "LEAN", "OLDEST", "PINNED", "UV", "Versions", "variables"]


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Versions that belong together."""

    python: str
    jax: str
    libtpu: str
    """The TPU's compiler and runtime, which this JAX asks for."""


PINNED = Versions(python="3.12", jax="0.12.0.1", libtpu="0.0.50")
"""What every way of launching installs."""
OLDEST = Versions(python="3.11", jax="0.10.2", libtpu="0.0.42.1")
"""The oldest that the project supports."""

UV = "0.13.8"
"""The installer, which brings Python to machines that have another."""
JOBSET = "0.12.0"
"""The controller of JobSets on GKE."""
LEAN = "4.28.0"
"""Tag of Mathlib, and with it the version of the native Lean."""
ELAN = "4.1.2"
"""The installer of native Leans."""


def variables(*, mathlib: bool) -> dict[str, str]:
    """What `tpu/setup.sh` reads from its environment.

    Args:
      mathlib: whether a native Lean with Mathlib is set up, too.
    """
    versions = {
        "UV": UV,
        "PYTHON": PINNED.python,
        "JAX": PINNED.jax,
        "LIBTPU": PINNED.libtpu,
    }
    return versions | ({"MATHLIB": "1", "LEAN": LEAN, "ELAN": ELAN} if mathlib else {})
