"""Hosts of a pod as processes of this machine, each with its keeper."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Host", "start_hosts"]

_STARTED = re.compile(r"keep: started as process (\d+)")


class Host:
    """A keeper with the process that it keeps, and the lines that both write."""

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: dict[str, str],
        hear: Callable[[int, str], object],
    ) -> None:
        """Starts it.

        Args:
          index: of the host, from 0.
          command: the keeper's, with its own.
          environment: variables beside this process's own.
          hear: called with the index and each line, in a thread.
        """
        self.index = index
        self.starts: list[int] = []
        """Ids of the processes that were kept, the present one last."""
        self._keeper = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(hear,), daemon=True)
        self._reader.start()

    def _read(self, hear: Callable[[int, str], object]) -> None:
        assert self._keeper.stdout is not None
        for line in self._keeper.stdout:
            if found := _STARTED.search(line):
                self.starts.append(int(found[1]))
            hear(self.index, line.rstrip("\n"))

    @property
    def running(self) -> bool:
        """Whether the keeper runs."""
        return self._keeper.poll() is None

    def lose(self) -> None:
        """Kills the process that is kept, without a word."""
        os.kill(self.starts[-1], signal.SIGKILL)

    def wait(self) -> int:
        """The keeper's exit code, once all that it wrote is heard."""
        code = self._keeper.wait()
        self._reader.join()
        return code

    def stop(self) -> None:
        """Has the keeper end its process, and itself."""
        if self.running:
            self._keeper.terminate()


def start_hosts(
    command: Sequence[str],
    *,
    progress: Path,
    hosts: int,
    devices: int,
    cache: Path,
    hear: Callable[[int, str], object],
) -> list[Host]:
    """Starts the same command on every host.

    Args:
      command: the run's, without the flags that say how processes meet; these follow
        its third word.
      progress: the run's folder.
      hosts: how many.
      devices: of each host.
      cache: folder of compiled programs.
      hear: called with a host's index and each of its lines.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        # XLA's warnings are about programs of toy size.
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    keeper = (sys.executable, "-m", "tpu.keep", "--progress", str(progress), "--")
    started = []
    for index in range(hosts):
        meeting = (
            *("--processes.coordinator", address),
            *("--processes.count", str(hosts), "--processes.index", str(index)),
        )
        whole = (*keeper, *command[:3], *meeting, *command[3:])
        started.append(Host(index, whole, environment, hear))
    return started
