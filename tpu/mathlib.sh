#!/usr/bin/env bash
# A native Lean with Mathlib as a Lake project, built from Mathlib's cache: mathlib.sh DIR.
# The versions come from tpu/versions.py. The files take about 8 GB.
set -euo pipefail
folder=$1
export ELAN_HOME="${ELAN_HOME:-$HOME/.elan}"
export PATH="$ELAN_HOME/bin:$PATH"

if ! command -v elan > /dev/null; then
  archive=$(mktemp -d)
  curl --fail --silent --show-error --location --output "$archive/elan.tar.gz" \
    "https://github.com/leanprover/elan/releases/download/v$ELAN/elan-x86_64-unknown-linux-gnu.tar.gz"
  tar --extract --gzip --file "$archive/elan.tar.gz" --directory "$archive"
  "$archive/elan-init" -y --no-modify-path --default-toolchain none
  rm -r "$archive"
fi
if [ ! -d "$folder" ]; then
  git clone --quiet --depth 1 --branch "v$LEAN" \
    https://github.com/leanprover-community/mathlib4 "$folder"
fi
cd "$folder"
lake exe cache get
lake build Mathlib
