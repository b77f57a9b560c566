"""The command `fdjax serve`."""

import ipaddress
import logging
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from fdjax.backend_flags import BackendName, backend_of_flags, limits_of_flags
from fdjax.errors import ConfigError
from fdjax.lean import BackendConfig, Embedded, Native, Repl, Verifier
from fdjax.lean.backends.config import environment_token
from fdjax.ranges import Whole, require
from fdjax.serve.config import ServeConfig
from fdjax.tools import LeanTools

if TYPE_CHECKING:
    from fdjax.serve.mcp_app import McpApp

__all__ = ["serve"]


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int | None = None,
    backend: BackendName = "wasm",
    project: Path | None = None,
    url: str = "",
    backend_token_env: str = "",
    token_file: Path | None = None,
    token_env: str | None = None,
    insecure: bool = False,
    trust_headers: bool = False,
    cache: Path | None = None,
    timeout: float = 60.0,
    memory_mb: int | None = None,
    max_items: int = 1024,
    max_pending: int = 4096,
    max_body_mb: int = 16,
    drain: int = 60,
    mcp: bool = False,
) -> int:
    """Verify proofs over HTTP: Kimina's interface, verdicts, metrics.

    Args:
      host: address to listen on.
      port: port to listen on; 0 takes a free one.
      workers: Lean processes, or requests under way at another server; one a core by
        default, fewer where memory is short.
      backend: which Lean: wasm is the embedded one, native that of a Lake project, repl
        the same through the community REPL; kimina and remote are other servers; fake
        is none and accepts what contains `trivial`, for trying out clients.
      project: folder of the Lake project to use, for native and repl.
      url: address of the server to use, for kimina and remote.
      backend_token_env: environment variable with the token that this server wants.
      token_file: file with the bearer token that clients must send.
      token_env: environment variable with that token.
      insecure: listen on other machines' side of the network without a token.
      trust_headers: run whatever headers and statements contain; for clients that may
        all be trusted alike.
      cache: file for verdicts, which servers on one machine may share.
      timeout: most seconds of Lean's time that one proof or snippet may take.
      memory_mb: memory of one worker, in MiB; what suits the backend by default.
      max_items: most proofs or snippets in one request.
      max_pending: most of them admitted and unfinished over all requests.
      max_body_mb: largest request, in MiB.
      drain: seconds that running requests may take to finish after SIGTERM.
      mcp: also serve the tools of an episode to agents, at /mcp, by the Model Context
        Protocol, each session with a workspace of its own.
    """
    # The packages of the extra are imported here: the command line lists this command
    # without them.
    from fdjax.serve.app import make_app
    from fdjax.serve.process import run

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    require("--drain", drain, Whole(0))
    require("--max-body-mb", max_body_mb, Whole(1))
    config = ServeConfig(
        token=_require_token(host, _token(token_file, token_env), insecure),
        max_body_bytes=max_body_mb << 20,
        max_items=max_items,
        max_pending=max_pending,
        trust_headers=trust_headers,
    )
    lean = backend_of_flags(
        backend,
        project=project,
        url=url,
        token_env=backend_token_env,
        token_flag="--backend-token-env",  # here, --token-env is the clients' token
    )
    limits = limits_of_flags(lean, timeout=timeout, memory_mb=memory_mb)
    if workers is None:
        workers = lean.default_workers(memory_mb)
    with (
        _bound(host, port) as listener,
        Verifier(
            lean.make, workers=workers, limits=limits, cache_path=cache
        ) as verifier,
    ):
        verifier.start()  # errors of an installation are better met here
        served = _mcp(_tools(lean, verifier), host, config) if mcp else None

        def announce() -> None:
            where = "http://{}:{}".format(*_address(listener))
            text = f"Listening on {where} with {verifier.identity}"
            Console().print(text, soft_wrap=True, highlight=False, markup=False)

        app = make_app(verifier, config, mcp=served)
        run(app, listener, drain, announce)
    return 0


def _mcp(tools: LeanTools, host: str, config: ServeConfig) -> "McpApp":
    # Its packages are those of another extra.
    from fdjax.serve.mcp_app import McpApp

    return McpApp(tools, is_local=config.token is None and _is_loopback(host))


def _tools(lean: BackendConfig, verifier: Verifier) -> LeanTools:
    """The tools over the library that the backend's Lean imports."""
    match lean:
        case Embedded():
            return LeanTools.embedded(verifier)
        case Native(project=project) | Repl(project=project):
            return LeanTools.of_project(verifier, project)
    raise ConfigError(
        "--mcp: expected a --backend whose library is on this machine, got another; "
        "take wasm, native or repl."
    )


def _bound(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: who connects too early is refused."""
    require("--port", port, Whole(0, 65535), remedy="0 takes a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"fdjax serve: expected to listen on {host}, port {port}, got: {error}; "
            "choose another --port (0 takes a free one), or a --host of this machine."
        ) from error
    return listener


def _address(listener: socket.socket) -> tuple[str, int]:
    host, port, *_ = listener.getsockname()
    return f"[{host}]" if ":" in host else host, port


def _token(file: Path | None, variable: str | None) -> str | None:
    if file is not None and variable is not None:
        raise ConfigError(
            "fdjax serve: expected --token-file or --token-env, got both; leave one "
            "out."
        )
    if variable is not None:
        return environment_token(variable, "--token-env")
    return None if file is None else _file_token(file)


def _file_token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--token-file: expected a token in {file}, got: {error}; write it there."
        ) from error
    if not token:
        raise ConfigError(
            f"--token-file: expected a token in {file}, got nothing; write it there."
        )
    return token


def _require_token(host: str, token: str | None, insecure: bool) -> str | None:
    if token is None and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"fdjax serve: expected a token for a host that others reach, got {host} "
            "without one; add --token-file or --token-env, or --insecure where the "
            "network itself keeps others out."
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _leave(number: int, frame: FrameType | None) -> None:
    """End by way of all `finally`, also before and after uvicorn's own care."""
    sys.exit(0)
