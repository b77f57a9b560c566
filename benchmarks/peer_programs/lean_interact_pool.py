"""LeanInteract behind two pipes; runs in an environment that has it.

    python lean_interact_pool.py PROJECT PROCESSES

A line of the input is a JSON list of sources, the answer is the list of LeanInteract's
judgements. PROJECT holds `lean-toolchain` and a `lake` that starts a REPL.
"""

import json
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lean_interact import AutoLeanServer, Command, LeanREPLConfig
from lean_interact.interface import CommandResponse

TIMEOUT_S = 60.0


def main() -> None:
    """Answer until the input ends."""
    project, processes = Path(sys.argv[1]), int(sys.argv[2])
    config = LeanREPLConfig(
        local_repl_path=project, build_repl=False, lake_path=project / "lake"
    )
    free: queue.SimpleQueue[tuple[AutoLeanServer, int]] = queue.SimpleQueue()
    for _ in range(processes):
        server = AutoLeanServer(config)
        # As its documentation advises: the header once, all else on top of it.
        header = server.run(Command(cmd="import Init"), add_to_session_cache=True)
        free.put((server, header.env))

    def judge(source: str) -> bool:
        server, environment = free.get()
        try:
            command = Command(cmd=source, env=environment)
            answer = server.run(command, timeout=TIMEOUT_S)
        finally:
            free.put((server, environment))
        return isinstance(answer, CommandResponse) and answer.lean_code_is_valid(
            allow_sorry=False
        )

    with ThreadPoolExecutor(processes) as threads:
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            print(json.dumps(list(threads.map(judge, json.loads(line)))), flush=True)
    while not free.empty():
        free.get()[0].kill()


if __name__ == "__main__":
    main()
