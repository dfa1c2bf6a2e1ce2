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
warned=

# synapse COMMAND ...: one process of `synapse-diffusion`.
synapse() {
    [ -n "${SLURM_JOB_ID:-}" ] || exec "$python" -m synapse_diffusion "$@"
    step --nodes=1 --ntasks=1 "$python" -m synapse_diffusion "$@"
}

# together COMMAND ...: one process for each GPU of each node, or one a node where there are none. torchrun starts those
# of a node; they find each other at the first node, under the address by which Slurm reaches it.
together() {
    [ -n "${SLURM_JOB_ID:-}" ] || exec "$python" -m synapse_diffusion "$@"
    local first address
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
    step --ntasks-per-node=1 "$python" -m torch.distributed.run \
        --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --rdzv-backend=c10d \
        --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$address:$((20000 + SLURM_JOB_ID % 20000))" \
        -m synapse_diffusion "$@"
}

# step COMMAND ...: by srun, until it ends or time is up. Slurm then sends USR1 to this shell alone (#SBATCH --signal=B:).
# The step gets TERM: torchrun passes that on (USR1 would end it), trainers write a checkpoint and end. The job goes back
# into the queue under its number, so that what depends on it goes on waiting, and goes on from the checkpoint.
step() {
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cores}
    local code=0
    trap 'warned=yes; scancel --signal=TERM "$SLURM_JOB_ID" || true' USR1
    # srun takes --cpus-per-task from its own line only; --wait: one that fails does not keep the others for hours
    srun --cpus-per-task="$cores" --wait=60 "$@" &
    wait $! || code=$?
    [ -z "$warned" ] || { code=0; wait $! || code=$?; } # the signal had ended the first wait
    [ "$code" = 0 ] || [ -z "$warned" ] || again
    [ "$code" = 0 ] || { echo "error: job $SLURM_JOB_ID ended with code $code; what is finished is kept" >&2; exit "$code"; }
}

again() {
    [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ] || { echo "error: put back 50 times; give it more --time" >&2; exit 1; }
    echo "time is up: job $SLURM_JOB_ID goes back into the queue, and goes on from its checkpoint"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
