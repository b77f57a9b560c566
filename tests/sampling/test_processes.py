"""Processes that make the same calls sample as one process does.

Two processes start JAX, and compile.
"""

from pathlib import Path

from distributed.launch import launch
from fdjax.sharding import make_mesh
from sampling.one_process import work

PROGRAM = Path(__file__).with_name("one_process.py")


def test_two_processes_draw_the_same_tokens(tmp_path):
    want = work(make_mesh(data=2, fsdp=2, tensor=2))
    for found in launch(PROGRAM, tmp_path, 2):
        assert found == want
