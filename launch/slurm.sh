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
#SBATCH --output=%x-%j.log
#
# One task per GPU; each task sees all GPUs of its node (no --gpus-per-task).
#
#   sbatch [--nodes=N ...] launch/slurm.sh [command] --config=FILE --workdir=DIR ...
#   bash launch/slurm.sh --dry_run --config=FILE --workdir=DIR ...
#
# Five minutes before the time limit, and when the job is preempted, the run saves and
# exits with status 143. The job is then queued again, and the run continues. So it is
# when a process was lost; not when the input is wrong (status 2).
#
# Four variables, which sbatch passes on:
#   VENV=DIR         a virtual environment that all nodes see; it is activated
#   CONTAINER=IMAGE  an image for Apptainer, with the package; each task runs in it
#   STAGE=FROM:TO    a folder that each node first copies to its own disk, once
#   RESTARTS=N       a failed job is not queued again for the N+1st time (default 10)
set -euo pipefail

dry_run=false
if [[ "${1:-}" == --dry_run ]]; then
  dry_run=true
  shift
fi
if (($# < 2)); then
  sed -n '14,18s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

export JAX_OPTIMIZATION_LEVEL="${JAX_OPTIMIZATION_LEVEL:-O1}"
export NCCL_NVLS_ENABLE="${NCCL_NVLS_ENABLE:-1}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
# --num_devices makes the run fail if there is not one task for each GPU.
program=(mllm-selector)
if [[ -n "${CONTAINER:-}" ]]; then
  program=(apptainer exec --nv "$CONTAINER" mllm-selector)
fi
# Tasks end by themselves when one has ended, and the first has to save what it does
# alone; srun ends those that hang.
command=(srun --kill-on-bad-exit=0 --wait=90 "${program[@]}" "$@" --coordinator=auto
  "--num_devices=${SLURM_NTASKS:-8}")
stage=()
if [[ -n "${STAGE:-}" ]]; then
  # A copy that was cut off has no other name than the part's.
  # shellcheck disable=SC2016
  stage=(srun --ntasks-per-node=1 "--ntasks=${SLURM_NNODES:-1}" bash -c
    '[[ -e "$2" ]] || { mkdir -p "$(dirname "$2")" && rm -rf "$2.part" &&
      cp -r "$1" "$2.part" && mv "$2.part" "$2"; }'
    stage "${STAGE%%:*}" "${STAGE#*:}")
fi

if $dry_run; then
  sed -n 's/^#SBATCH //p' "$0"
  if ((${#stage[@]})); then
    printf '%q ' "${stage[@]}"
    echo
  fi
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
if [[ -n "${VENV:-}" ]]; then
  # shellcheck disable=SC1091
  source "$VENV/bin/activate"
fi
if ((${#stage[@]})); then
  "${stage[@]}"
fi
status=0
"${command[@]}" || status=$?
restarts=${SLURM_RESTART_COUNT:-0}
if ((status == 143)) ||
  ((status != 0 && status != 2 && restarts < ${RESTARTS:-10})); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
