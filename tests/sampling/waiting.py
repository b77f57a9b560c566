"""One of two processes with nothing to sample: the first is done, and told to stop."""

import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from fdjax.sampling import SamplingConfig, SharedSampler, SlotSampler, SlotsConfig
from fdjax.sharding import initialize_distributed, make_mesh
from fdjax.train import StoppedError, stop_on_signal
from tiny import MODEL

JUDGE_S = 60.0
"""Seconds that the judge of the second takes."""


def work(index):
    """How the wait ended, and after how many seconds."""
    judged = Future()
    if index == 0:
        judged.set_result(None)
    with stop_on_signal() as stop:
        sampler = SharedSampler(
            SlotSampler(
                MODEL,
                SamplingConfig(max_new_tokens=4),
                SlotsConfig(longest=16, slots=8, page=4),
                make_mesh(data=2, fsdp=4),
            ),
            stopping=lambda: stop.requested,
        )
        # The first collective compiles.
        sampler.serve(_done())
        begin = time.monotonic()
        if index == 0:
            tell = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
        else:
            tell = threading.Timer(JUDGE_S, judged.set_result, (None,))
        tell.daemon = True
        tell.start()
        try:
            with stop.watch(judged):
                sampler.serve(judged)
                judged.result()
            ended = "waited"
        except StoppedError as stopped:
            ended = signal.Signals(stopped.signal).name
    return {"ended": ended, "seconds": time.monotonic() - begin}


def _done():
    future = Future()
    future.set_result(None)
    return future


if __name__ == "__main__":
    port, count, number, folder = sys.argv[1:]
    initialize_distributed(
        coordinator_address=f"127.0.0.1:{port}",
        num_processes=int(count),
        process_id=int(number),
    )
    result = work(int(number))
    (Path(folder) / f"{number}.json").write_text(json.dumps(result))
