"""A process that has imported JAX and all, and forks itself for each program.

`python nursery.py SOCKET`: requests come over the socket, with two files each: for what
the program says, and for its number and exit code. See `forked.py`.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

IMPORTED = ("experiments.prover", "experiments.quickstart", "fdjax.feedback", "openai")
"""What most of the programs import, and takes long."""
LARGEST = 1 << 20
"""Bytes of a request: command line and environment."""


def serve(requests):
    """Forks for each request; returns in each fork, with what it asks for.

    Ends with the process that asks, and ends everything that it has asked for.
    """
    running = {}
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is requests:
                    message, files, _, _ = socket.recv_fds(requests, LARGEST, 2)
                    if not message:
                        for pid, _ in running.values():
                            os.kill(pid, signal.SIGKILL)
                        sys.exit()
                    said, facts = files
                    pid = os.fork()
                    if not pid:
                        requests.close()
                        others = [one for _, one in running.values()]
                        for number in (facts, *others, *running):
                            os.close(number)
                        return json.loads(message), said
                    os.close(said)
                    watch = os.pidfd_open(pid)
                    running[watch] = pid, facts
                    ready.register(watch, selectors.EVENT_READ)
                    tell(facts, pid)
                else:
                    pid, facts = running.pop(key.fd)
                    ready.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(pid, 0)
                    tell(facts, os.waitstatus_to_exitcode(status))
                    os.close(facts)


def tell(facts, number):
    with suppress(BrokenPipeError):  # whoever asked has gone
        os.write(facts, b"%d\n" % number)


def become(request, said):
    """Turns this process into one that Python has started with a command."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(ours, standard)
    os.close(nothing)
    os.close(said)
    os.environ.clear()
    os.environ.update(request["environment"])
    configure()
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    first, *rest = request["command"]
    if first == "-m":
        module, *rest = rest
        sys.path[:0] = [os.getcwd(), *filter(None, added)]
        sys.argv = [module, *rest]
        # It is this process's program now, not what another imports.
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path[:0] = [str(Path(first).parent), *filter(None, added)]
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def configure():
    """JAX read the environment when it was imported."""
    import jax

    for name, text in os.environ.items():
        option = name.lower()
        if name.startswith("JAX_") and hasattr(jax.config, option):
            match getattr(jax.config, option):
                case bool():
                    value = text.lower() in ("true", "1")
                case int() | float() as present:
                    value = type(present)(text)
                case _:
                    value = text
            jax.config.update(option, value)


if __name__ == "__main__":
    asked = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    become(*serve(asked))
