#!/usr/bin/env bash
# Score a run: sbatch [options] slurm/evaluate.sh RUN, or slurm/evaluate.sh RECIPE [--set A.B=VALUE ...] for the run
# of a recipe. Without Slurm: ./slurm/evaluate.sh ...
#SBATCH --job-name=evaluate
#SBATCH --mem-per-cpu=2G
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --time=04:00:00
common=$(dirname "$0")/common.sh # which a job does not lie beside: Slurm runs a copy
[ -e "$common" ] || common=${SYNAPSE_SLURM:-$SLURM_SUBMIT_DIR/slurm}/common.sh
# shellcheck source=slurm/common.sh
source "$common" || { echo "error: submit from the repository's folder, or set SYNAPSE_SLURM to its slurm/" >&2; exit 2; }
stage evaluate "$@"
