# shellcheck shell=bash
# What these scripts share; sourced, not run. The site comes from the environment and from sbatch's own options:
#
#   SYNAPSE_SETUP    a file that is sourced first, with the site's modules and virtual environment
#   SYNAPSE_PYTHON   the python that has SynapseDiffusion; else .venv/bin/python here, else python3 in PATH

# shellcheck source=/dev/null
[ -z "${SYNAPSE_SETUP:-}" ] || source "$SYNAPSE_SETUP"
set -euo pipefail
python=${SYNAPSE_PYTHON:-.venv/bin/python}
[ -n "${SYNAPSE_PYTHON:-}" ] || [ -x "$python" ] || python=python3
cores=${SLURM_CPUS_PER_TASK:-1}
job=${SLURM_JOB_ID:-}
# the number of an array's last task is the whole array's, too
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
warned=

# synapse COMMAND ...: one process of `synapse-diffusion`.
synapse() {
    [ -n "$job" ] || exec "$python" -m synapse_diffusion "$@"
    step --nodes=1 --ntasks=1 "$python" -m synapse_diffusion "$@"
}

# stage NAME RUN ..., or stage NAME RECIPE [--set A.B=VALUE ...]: one stage of a run, or of the run of a recipe.
stage() {
    if [ -e "${2:?give a RUN or a RECIPE}/recipe.toml" ]; then
        synapse "$@"
    else
        synapse run "${@:2}" --from "$1" --until "$1"
    fi
}

# together COMMAND ...: one process for each GPU of each node, or one a node where there are none. torchrun starts those
# of a node; they find each other at the first node, under the address by which Slurm reaches it.
together() {
    [ -n "$job" ] || exec "$python" -m synapse_diffusion "$@"
    local first address
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
    local processes=${SLURM_GPUS_ON_NODE:-1}
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}
    step --ntasks-per-node=1 "$python" -m torch.distributed.run \
        --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$processes" --rdzv-backend=c10d \
        --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$address:$((20000 + SLURM_JOB_ID % 20000))" \
        -m synapse_diffusion "$@"
}

# step COMMAND ...: by srun, until it ends or time is up. Slurm then sends USR1 to this shell alone (#SBATCH --signal=B:).
# The step gets TERM: torchrun passes that on (USR1 would end it), trainers write a checkpoint and end. The job goes back
# into the queue under its number, so that what depends on it goes on waiting, and goes on from the checkpoint.
step() {
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cores}
    local code=0
    trap 'warned=yes; scancel --signal=TERM "$job" || true' USR1
    # srun takes --cpus-per-task from its own line only; --wait: one that fails does not keep the others for hours
    srun --cpus-per-task="$cores" --wait=60 "$@" &
    wait $! || code=$?
    [ -z "$warned" ] || { code=0; wait $! || code=$?; } # the signal had ended the first wait
    [ "$code" = 0 ] || [ -z "$warned" ] || again
    if [ "$code" != 0 ]; then
        echo "error: job $job ended with code $code (why: above); the same command goes on from there" >&2
        exit "$code"
    fi
}

again() {
    [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ] || { echo "error: put back 50 times; give it more --time" >&2; exit 1; }
    echo "time is up: job $job goes back into the queue, and goes on from its checkpoint"
    scontrol requeue "$job"
    exit 0
}
