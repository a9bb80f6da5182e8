#!/usr/bin/env bash
# Runs an experiment on this machine, in the environment that `make` makes, and keeps its output beside its results.
#   launch/local.sh demo --preset=smoke --out=runs/smoke
# With --processes=N each of N processes trains a share of the members; then one more finishes the study.
#   launch/local.sh task_clusters --processes=4 --preset=packaged
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() { echo "launch: $1" >&2; exit 2; }

experiment=${1:-}
[ -n "$experiment" ] || refuse "usage: launch/local.sh EXPERIMENT [--processes=N] [--flags]; EXPERIMENT: a file of experiments/"
shift
[[ $experiment =~ ^[a-z0-9_]+$ && -f experiments/$experiment.py ]] || refuse "no experiments/$experiment.py"
processes=1
flags=()
for flag in "$@"; do
  case $flag in
    --processes=*) processes=${flag#*=} ;;
    *) flags+=("$flag") ;;
  esac
done
[[ $processes =~ ^[1-9][0-9]?$ ]] || refuse "--processes=$processes: expected a number from 1 to 99"

make -s .venv/.installed
mkdir -p runs
study=(.venv/bin/python -m "experiments.$experiment" ${flags[@]+"${flags[@]}"})

if [ "$processes" -gt 1 ]; then
  running=()
  # Background processes of a script do not hear Ctrl-C.
  trap 'kill -TERM "${running[@]}" 2>/dev/null || true; wait; exit 143' TERM INT
  log() { echo "runs/$experiment-share-$1-of-$processes.log"; }
  for ((share = 0; share < processes; share++)); do
    "${study[@]}" --run=share "--share=$share/$processes" >"$(log "$share")" 2>&1 &
    running+=($!)
    echo "launch: share $share/$processes is process $!, its output in $(log "$share")"
  done
  failed=0
  for ((share = 0; share < processes; share++)); do
    wait "${running[share]}" && continue || failed=$?
    echo "launch: share $share/$processes failed with status $failed, see $(log "$share"): $(tail -n 1 "$(log "$share")")" >&2
  done
  trap - TERM INT
  if [ "$failed" != 0 ]; then
    echo "launch: finished work is kept; rerun the same command to resume" >&2
    exit "$failed"
  fi
fi
"${study[@]}" 2>&1 | tee -a "runs/$experiment.log"
