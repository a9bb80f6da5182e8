#!/usr/bin/env bash
# A study on a Cloud TPU VM, from nothing to results at home, by gcloud (installed, logged in, a project set).
#   launch/tpu_vm.sh all --name=regions --zone=us-west4-a --spot task_clusters --preset=paper --shelf=gs://BUCKET/shelf
#   launch/tpu_vm.sh create|install|run|fetch|delete --name=... --zone=... [EXPERIMENT --flags]     one step alone
# Options come before EXPERIMENT, the experiment's flags after it:
#   --accelerator=v5litepod-8 --runtime=v2-alpha-tpuv5-lite   what machine, with what on it
#   --spot               a third of the price or so, and may be taken away: `all` then makes another and goes on
#   --queued             wait in Google's queue until there is a machine (queued resources)
#   --restarts=5         how many lost machines `all` replaces
#   --keep               do not delete at the end      --delete_on_failure   delete also after a failure
#   --dry_run            print the commands, call nothing
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() { echo "launch: $1" >&2; exit 2; }

step=${1:-}
case $step in all | create | install | run | fetch | delete) shift ;; *)
  refuse "usage: launch/tpu_vm.sh all|create|install|run|fetch|delete --name=NAME --zone=ZONE [--options] [EXPERIMENT --flags]" ;;
esac
name='' zone='' accelerator=v5litepod-8 runtime=v2-alpha-tpuv5-lite spot='' queued='' restarts=5 keep='' on_failure='' dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --name=* | --zone=* | --accelerator=* | --runtime=* | --restarts=*) option=${1%%=*} && printf -v "${option#--}" %s "${1#*=}" ;;
    --spot) spot=--spot ;;
    --queued) queued=yes ;;
    --keep) keep=yes ;;
    --delete_on_failure) on_failure=yes ;;
    --dry_run) dry=yes ;;
    -*) refuse "unknown option $1; options of this script come before EXPERIMENT, flags of the experiment after it" ;;
    *) break ;;
  esac
  shift
done
[[ $name =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] || refuse "--name=$name: expected small letters, digits and -, beginning with a letter"
for option in zone accelerator runtime; do
  [[ ${!option} =~ ^[a-z0-9][a-z0-9.-]*$ ]] || refuse "--$option=${!option}: expected small letters, digits, - and ."
done
[[ $restarts =~ ^[0-9]{1,3}$ ]] || refuse "--restarts=$restarts: expected a number"
experiment=${1:-}
if [ "$step" = all ] || [ "$step" = run ]; then
  [ -n "$experiment" ] || refuse "which EXPERIMENT? a file of experiments/, after the options"
  [[ $experiment =~ ^[a-z0-9_]+$ && -f experiments/$experiment.py ]] || refuse "no experiments/$experiment.py"
  shift
elif [ -n "$experiment" ]; then
  refuse "$step takes no EXPERIMENT, found $experiment"
fi
[ -n "$dry" ] || command -v gcloud >/dev/null || refuse "gcloud was not found: install the Google Cloud CLI and log in"

call() { if [ -n "$dry" ]; then printf '%q ' "$@" && echo; else "$@"; fi; }
tpus() { call gcloud compute tpus "$@" "--zone=$zone" --quiet; }
ssh_to() { tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2"; }

create() {
  if [ -z "$queued" ]; then
    tpus tpu-vm create "$name" "--accelerator-type=$accelerator" "--version=$runtime" ${spot:+"$spot"}
    return
  fi
  tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$accelerator" "--runtime-version=$runtime" ${spot:+"$spot"}
  local state=''
  while [ "$state" != ACTIVE ]; do
    state=$(tpus queued-resources describe "$name" '--format=value(state.state)')
    if [ -n "$dry" ]; then echo "$state" && return; fi
    case $state in
      ACTIVE) ;;
      FAILED | SUSPENDED | SUSPENDING | DELETING) echo "launch: the queue says $state of $name" >&2 && return 1 ;;
      *) echo "launch: $name waits in the queue: $state" && sleep "${WSR_POLL_SECONDS:-30}" ;;
    esac
  done
}

# Here and below && and not lines of their own: set -e sleeps in what `until` asks. Python 3.11 comes by uv: the machines'
# own is 3.10.
install() {
  # shellcheck disable=SC2016  # it is for the other machine's shell
  call mkdir -p runs &&
    call git archive --format=tar.gz --output=runs/wsr.tar.gz HEAD &&
    tpus tpu-vm scp runs/wsr.tar.gz "$name:" --worker=all &&
    ssh_to all 'set -e; mkdir -p wsr; tar -xzf wsr.tar.gz -C wsr; python3 -m pip install --quiet --user uv; export PATH=$HOME/.local/bin:$PATH; uv python install 3.11; make -C wsr -s .venv/.installed PYTHON=$(uv python find 3.11) EXTRAS=tpu,gcs'
}

# Every worker its share, then the first finishes. A worker asks the machine which it is, as JAX does.
run() {
  local study alone asked
  study=$(printf '%q ' .venv/bin/python -m "experiments.$experiment" "$@")
  # shellcheck disable=SC2016
  asked='ask() { curl -sf -H Metadata-Flavor:Google http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1; }; n=$(ask worker-network-endpoints | awk -F, "{print NF}")'
  # In a slice of several machines each uses its own chips only, and waits for nobody.
  # shellcheck disable=SC2016
  alone='if [ "$n" -gt 1 ]; then export TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 CLOUD_TPU_TASK_ID=0; fi'
  ssh_to all "set -e; cd wsr; $asked; $alone; $study--run=share --share=\$(ask agent-worker-number)/\$n" &&
    ssh_to 0 "set -e; cd wsr; $asked; $alone; $study"
}

fetch() {
  call mkdir -p "runs/$name"
  tpus tpu-vm scp --recurse "$name:wsr/runs" "runs/$name" --worker=0
}

delete() {
  if [ -n "$queued" ]; then tpus queued-resources delete "$name" --force; else tpus tpu-vm delete "$name"; fi
}

lost() {
  case $(tpus tpu-vm describe "$name" '--format=value(state)' 2>/dev/null || echo GONE) in
    PREEMPTED | TERMINATED | STOPPED | GONE) ;;
    *) return 1 ;;
  esac
}

costs() {
  echo "launch: $name in $zone may exist, and then it costs money; to delete it: launch/tpu_vm.sh delete --name=$name --zone=$zone${queued:+ --queued}" >&2
}

at_exit() {
  local status=$?
  [ "$status" = 0 ] && return
  if [ -n "$on_failure" ] && delete; then
    echo "launch: failed; $name was deleted" >&2
  else
    costs
  fi
  exit "$status"
}

case $step in
  run) run "$@" ;;
  all)
    [[ -n $spot && "$*" != *gs://* ]] && echo "launch: --spot without --shelf=gs://BUCKET/...: what a lost machine had trained is lost" >&2
    trap at_exit EXIT
    create
    until install && run "$@"; do
      if [ -z "$spot" ] || [ "$restarts" = 0 ] || ! lost; then exit 1; fi
      restarts=$((restarts - 1))
      echo "launch: $name was taken away; another one goes on" >&2
      delete
      create
    done
    fetch
    if [ -n "$keep" ]; then costs; else delete; fi
    ;;
  create) trap 'status=$?; [ $status = 0 ] || costs' EXIT; create ;;
  *) "$step" ;;
esac
