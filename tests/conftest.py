"""Eight fake CPU devices, strict promotion: mistakes raise instead of rounding."""

import gc
import math
import os
import time
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

from fdjax.lean.sandbox.machine import fitting_workers

ROOT = Path(__file__).parent.parent
WORKER_MB = 5_000
"""Memory of a worker: JAX with what it compiled, and some Lean processes."""
LONGEST = (
    *("test_contract", "test_chaos", "test_mutations", "test_quickstart"),
    *("test_interruption", "test_cluster", "test_native", "test_loop", "test_kernels"),
    *("test_wasm", "test_processes", "test_from_hidden"),
    *("test_selftest", "test_kimina", "test_step", "test_repl", "test_benchmarks"),
    *("test_slots", "test_prover", "test_recipe", "test_lora", "test_sandbox"),
)
"""Files that workers begin with, the longest first, and none of them at the end."""
BEGUN = pytest.StashKey[float]()
"""When this worker began, in seconds of a clock that never goes back."""

# No test depends on the speed of the machine.
settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared")

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Half of what the tests cost is compiling. Without LLVM's passes, and without MLIR to
# emit fused loops, it takes less than half as long; `make jax` has both, so both kinds
# of programs are tested. JAX 0.11 and later know no other emitter, and not the flag.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
_PLAIN = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"].lower() in ("true", "1")
jax.config.update("jax_disable_most_optimizations", _PLAIN)
if _PLAIN and jax.__version_info__ < (0, 11):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
# Many processes compile the same programs: all of them, children too, share one cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs",
    float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A worker a core where memory allows; none beside pytest itself for only one."""
    workers = fitting_workers(WORKER_MB)
    return workers if workers > 1 else 0


def pytest_addoption(parser):
    parser.addoption(
        "--begin-within",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="skip, and name, tests that would begin later than this",
    )


def pytest_configure(config):
    config.stash[BEGUN] = time.monotonic()


def pytest_runtest_setup(item):
    limit = item.config.getoption("begin_within")
    if time.monotonic() - item.config.stash[BEGUN] > limit:
        pytest.skip(f"it would have begun later than --begin-within {limit:g}")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """What is collected stays; each look for garbage in it would take seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config, items):
    """Workers take whole files in this order, so that each is set up once."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
