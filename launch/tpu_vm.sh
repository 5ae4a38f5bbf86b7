#!/usr/bin/env bash
# Starts a run on every host of a TPU VM slice.
#
#   launch/tpu_vm.sh [--dry_run] NAME ZONE [command] --config=FILE --workdir=gs://... ...
#
# Install the package on the hosts first (launch/README.md). There is one process per
# host, and the processes find each other. The same command continues a stopped run.
set -euo pipefail

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi
if (($# < 3)); then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2

remote="cd mllm_selector_jax && exec .venv/bin/mllm-selector"
for argument in "$@" --coordinator=auto; do
  remote+=" $(printf %q "$argument")"
done
command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all
  "--command=$remote")
if $dry_run; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
exec "${command[@]}"
