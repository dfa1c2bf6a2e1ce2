#!/usr/bin/env bash
# Draw and score the test pictures of a run: sbatch [options] slurm/reconstruct.sh RUN [--set A.B=VALUE ...]
# or of the run of a recipe: slurm/reconstruct.sh RECIPE [--set ...]. Without Slurm: ./slurm/reconstruct.sh ...
#SBATCH --job-name=reconstruct
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
stage reconstruct "$@"
