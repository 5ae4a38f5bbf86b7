#!/usr/bin/env bash
#SBATCH --job-name=mllm-selector
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#
# One task per GPU; each task sees all GPUs of its node (no --gpus-per-task).
#
#   sbatch [--nodes=N ...] launch/slurm.sh [command] --config=FILE --workdir=DIR ...
#   bash launch/slurm.sh --dry_run --config=FILE --workdir=DIR ...
#
# Five minutes before the time limit, and when the job is preempted, the run saves and
# exits with status 143. The job is then queued again, and the run continues.
set -euo pipefail

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi
if (($# < 2)); then
  sed -n '13,17s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

export JAX_OPTIMIZATION_LEVEL="${JAX_OPTIMIZATION_LEVEL:-O1}"
export NCCL_NVLS_ENABLE="${NCCL_NVLS_ENABLE:-1}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
# --num_devices makes the run fail if there is not one task for each GPU.
command=(srun --kill-on-bad-exit=1 mllm-selector "$@" --coordinator=auto
  "--num_devices=${SLURM_NTASKS:-8}")

if $dry_run; then
  sed -n 's/^#SBATCH //p' "$0"
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
status=0
"${command[@]}" || status=$?
if ((status == 143)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
