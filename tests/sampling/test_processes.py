"""Processes that make the same calls sample as one process does, and stop together.

Two processes start JAX, and compile; twice.
"""

from pathlib import Path

from distributed.launch import launch
from fdjax.sharding import make_mesh
from sampling.one_process import work

HERE = Path(__file__).parent


def test_two_processes_draw_the_same_tokens(tmp_path):
    want = work(make_mesh(data=2, fsdp=2, tensor=2))
    for found in launch(HERE / "one_process.py", tmp_path, 2):
        assert found == want


def test_a_process_that_is_done_stops_those_that_still_wait(tmp_path):
    """It is told two seconds after it began to wait for a judge who takes a minute."""
    for found in launch(HERE / "waiting.py", tmp_path, 2):
        assert found["ended"] == "SIGTERM"
        assert found["seconds"] < 20
