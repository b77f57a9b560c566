#!/usr/bin/env bash
# Sets up this host: Python, the project with pinned packages, the embedded Lean; with
# MATHLIB=1 a native Lean with Mathlib in ~/mathlib, too. The launcher gives the versions
# (tpu/versions.py). Run it again after an error.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.local/bin:$PATH"

python3 -m pip install --user --quiet "uv==$UV"
uv venv --quiet --clear --python "$PYTHON" .venv
uv pip install --quiet --python .venv/bin/python --constraint requirements.lock \
  "jax[tpu]==$JAX" "libtpu==$LIBTPU" --editable '.[lean,feedback,gcs]'
.venv/bin/fdjax lean install
if [ "${MATHLIB:-}" = 1 ]; then
  bash tpu/mathlib.sh ~/mathlib
fi
.venv/bin/fdjax --version
