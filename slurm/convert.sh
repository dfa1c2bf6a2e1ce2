#!/usr/bin/env bash
# Convert recordings as a job array: sbatch [--array=1-16 ...] slurm/convert.sh eeg|meg|comb RECIPE [--set A.B=VALUE ...]
# Each task takes its share; the same command again does only what is missing. Without Slurm: ./slurm/convert.sh ...
#SBATCH --job-name=convert
#SBATCH --array=1-8
#SBATCH --mem-per-cpu=2G
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --time=04:00:00
common=$(dirname "$0")/common.sh # which a job does not lie beside: Slurm runs a copy
[ -e "$common" ] || common=${SYNAPSE_SLURM:-$SLURM_SUBMIT_DIR/slurm}/common.sh
# shellcheck source=slurm/common.sh
source "$common" || { echo "error: submit from the repository's folder, or set SYNAPSE_SLURM to its slurm/" >&2; exit 2; }
tasks=${SLURM_ARRAY_TASK_MAX:-1} task=${SLURM_ARRAY_TASK_ID:-1} share=()
if [ "${SLURM_ARRAY_TASK_MIN:-1}-${SLURM_ARRAY_TASK_COUNT:-1}" != "1-$tasks" ]; then
    echo "error: --array: give 1-N; a task's number is its share" >&2
    exit 2
fi
if [ "${1:-}" = comb ]; then # one short index of what is converted already
    [ "$task" = 1 ] || exit 0
elif [ -n "${SLURM_JOB_ID:-}" ]; then
    share=(--shard "$task/$tasks" --set "execution.workers=$cores")
fi
synapse convert "${1:?give eeg, meg or comb}" "${2:?give a recipe}" ${share[@]+"${share[@]}"} "${@:3}"
