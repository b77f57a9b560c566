"""The whole quickstart at the smallest useful size, in a process of its own."""

import os

import forked

SMALL = """
    --data.problems 160 --data.pool 24 --data.validation 8 --data.test 8
    --data.mistakes 48 --warm-start.steps 12 --warm-start.batch-size 16
    --warm-start.optimizer.decay-steps 60 --model.num-layers 1
    --rollout.steps 6 --rollout.handover 3 --rollout.problems 8 --rollout.group-size 2
    --evaluation.samples 4 --evaluation.ks 1 4
""".split()


def arguments(folder):
    """Those of a run in this folder."""
    return ["--runs", str(folder.parent), "--name", folder.name, *SMALL]


def started(arguments):
    """The running process; its data is sharded over two devices."""
    command = ["-m", "experiments.quickstart", *arguments]
    return forked.start(command, environment=os.environ | {"JAX_NUM_CPU_DEVICES": "2"})


def finished(arguments):
    """Waits for a run that must succeed."""
    process = started(arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
