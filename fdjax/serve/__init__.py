"""The verifier behind HTTP: `fdjax serve`, without JAX.

`fdjax.serve.app.make_app` gives the ASGI application for a server of one's own; it
needs the packages of the `serve` extra.
"""

from fdjax.serve.command import serve
from fdjax.serve.config import ServeConfig

__all__ = ["ServeConfig", "serve"]
