#!/usr/bin/env bash
# Runs an experiment on this machine, in the environment that `make` makes, and keeps its output beside its results.
#   launch/local.sh demo --preset=smoke --out=runs/smoke
set -euo pipefail
cd "$(dirname "$0")/.."
experiment=${1:?usage: launch/local.sh EXPERIMENT [--flags]; experiments are the files of experiments/}
shift
[ -f "experiments/$experiment.py" ] || { echo "launch: no experiments/$experiment.py" >&2; exit 2; }
make -s .venv/.installed
mkdir -p runs
.venv/bin/python -m "experiments.$experiment" "$@" 2>&1 | tee -a "runs/$experiment.log"
