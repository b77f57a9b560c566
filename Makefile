# Two commands for users: `make quickstart` and `make test`. `make parity` holds models and
# conversion against transformers and needs PyTorch, whichever build pip is set up to
# find (a CPU build is enough). `make tpu` compiles for TPUs and needs their compiler, no
# TPU; `make pod-rehearsal` runs on four processes and loses one.
# `make jax` runs the tests of what JAX computes, alone: 3.11 has the oldest JAX that we
# support, later Pythons the newest (`make jax PYTHON=python3.12 VENV=.venv-3.12`).
# PYTHON chooses the interpreter (3.11 to 3.13), ARGS is passed on to the command.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# A test worker a core where memory allows; each takes whole files, in the order of
# tests/conftest.py.
WORKERS := -n auto --dist loadfile --no-loadscope-reorder

# Dozens of processes import JAX in the tests. Without bytecode on the disk each of them
# compiles two thousand files first; pip leaves that to the first one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test jax parity tpu pod-rehearsal check lock clean

# On a CPU, XLA maps and unmaps its buffers in each step unless glibc keeps the memory.
quickstart: export MALLOC_MMAP_MAX_ = 0
quickstart: export MALLOC_ARENA_MAX = 1
quickstart: export MALLOC_TRIM_THRESHOLD_ = 17179869184
quickstart: export MALLOC_TOP_PAD_ = 268435456

quickstart: $(READY)
	$(BIN)/fdjax lean install
	$(BIN)/python -m experiments.quickstart $(ARGS)

test: $(READY)
	$(BIN)/fdjax lean install
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

# Compiled as users have it; `make test` leaves out most of LLVM's passes.
jax: export JAX_DISABLE_MOST_OPTIMIZATIONS = false
jax: $(READY)
	$(BIN)/python -c 'import jax, sys; print("JAX", jax.__version__, "on", sys.version)'
	$(BIN)/python -m pytest $(WORKERS) tests/ops tests/losses tests/advantages tests/model \
	  tests/sampling tests/train/test_step.py $(ARGS)

parity: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile \
	  --no-build-isolation -e '.[parity]'
	$(BIN)/python -m pytest $(WORKERS) tests/parity $(ARGS)

# What is compiled for absent devices is not for the tests' cache.
tpu: export JAX_ENABLE_COMPILATION_CACHE = false
tpu: export JAX_DISABLE_MOST_OPTIMIZATIONS = false
tpu: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile \
	  --no-build-isolation -e '.[tpu]'
	$(BIN)/python -m pytest $(WORKERS) tests/tpu $(ARGS)

# Four processes as the hosts of a pod, one of them lost in the middle.
pod-rehearsal: $(READY)
	$(BIN)/fdjax lean install
	$(BIN)/python -m tpu.rehearsal $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHONPATH=. $(BIN)/lint-imports

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(not ok)' || \
	  { echo "error: expected Python 3.11, 3.12 or 3.13, got $$($(PYTHON) --version 2>&1);" \
	    "choose one with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on \
	  --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	  --no-build-isolation --no-deps -e .
	@touch $@

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --quiet --extra lean --extra serve \
	  --extra kimina --extra ray --extra feedback --extra french --extra mcp \
	  --extra gcs --extra tensorboard --extra dev \
	  pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV)
