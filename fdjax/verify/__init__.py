"""The command `fdjax verify`: a file of submissions to a file of verdicts, no JAX."""

from fdjax.verify.options import VerifyOptions
from fdjax.verify.run import verify_file

__all__ = ["VerifyOptions", "verify_file"]
