#!/usr/bin/env bash
# Search over settings: sbatch [--nodes=2 --gpus-per-node=4 ...] slurm/tune.sh eeg|meg|fusion RECIPE [--trials N] [--set A.B=VALUE ...]
# The job's nodes become a Ray cluster that ends with it. Without Slurm: ./slurm/tune.sh ... on this machine alone.
#
#   SYNAPSE_SETUP    a file that is sourced first, with the site's modules and virtual environment
#   SYNAPSE_PYTHON   the python that has SynapseDiffusion and Ray; else .venv/bin/python here, else python3 in PATH
#SBATCH --job-name=tune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --mem-per-cpu=2G
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --time=04:00:00
# shellcheck source=/dev/null
[ -z "${SYNAPSE_SETUP:-}" ] || source "$SYNAPSE_SETUP"
set -euo pipefail
python=${SYNAPSE_PYTHON:-.venv/bin/python}
[ -n "${SYNAPSE_PYTHON:-}" ] || [ -x "$python" ] || python=python3
[ -n "${SLURM_JOB_ID:-}" ] || exec "$python" -m synapse_diffusion tune "$@"

"$python" -c 'import ray' 2>/dev/null || { echo "error: tune needs Ray: pip install 'synapse-diffusion[tune]'" >&2; exit 3; }
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(16))')
export RAY_AUTH_TOKEN
mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Fixed ports, so that a site can let them through: 4000 of 20000 .. 31999 by the job's number, 400 of them a node's
base=$((20000 + SLURM_JOB_ID % 3 * 4000))
cores=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
steps=() driver='' warned=''

# address NAME: where Slurm reaches a node, as a number
address() {
    getent ahostsv4 "$(scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')" | awk '{ print $1; exit }'
}

# node K ARGUMENTS: Ray on the job's K-th node, until the step is ended
node() {
    local low=$((base + 10 + $1 % 10 * 399))
    srun --nodes=1 --ntasks=1 --nodelist="${names[$1]}" --overlap --cpus-per-task="$cores" \
        "$python" -m ray.scripts.scripts start --block --disable-usage-stats "${@:2}" \
        --node-ip-address="$(address "${names[$1]}")" --num-cpus="$cores" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
        --object-store-memory=134217728 --min-worker-port=$low --max-worker-port=$((low + 388)) >"ray-$SLURM_JOB_ID-$1.out" 2>&1 &
    steps+=($!)
}

# Not `ray stop`, which would end the Ray of every other job of this user on the same node
trap '[ ${#steps[@]} = 0 ] || kill "${steps[@]}" 2>/dev/null || true; wait' EXIT
head=$(address "${names[0]}"):$base
node 0 --head --port=$base --include-dashboard=false --temp-dir="${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID"
answers() { # answers N: do N nodes? within two minutes
    timeout 120 "$python" - "$head" "$1" <<'PYTHON' 2>/dev/null
import socket, sys, time
host, port = sys.argv[1].split(":")
while True:
    try:
        socket.create_connection((host, int(port)), 1).close()
        break
    except OSError:
        time.sleep(0.5)
import ray
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.5)
PYTHON
}
answers 1 || { echo "error: Ray did not start on ${names[0]} within two minutes: ray-$SLURM_JOB_ID-0.out says why" >&2; exit 3; }
for ((k = 1; k < ${#names[@]}; k++)); do node "$k" --address="$head"; done
answers "${#names[@]}" || {
    echo "error: not all of ${names[*]} joined Ray within two minutes: ray-$SLURM_JOB_ID-*.out says why" >&2
    exit 3
}

# Near its time limit the search is asked to end, which saves it, and the job goes back into the queue
trap 'warned=yes; kill -USR1 "$driver"' USR1
"$python" -m synapse_diffusion tune "$@" --address "$head" &
driver=$! code=0
wait "$driver" || code=$?
[ -z "$warned" ] || { code=0; wait "$driver" || code=$?; } # the signal had ended the first wait
if [ "$code" != 0 ] && [ -n "$warned" ]; then
    [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ] || { echo "error: put back 50 times; give it more --time" >&2; exit 1; }
    echo "time is up: job $SLURM_JOB_ID goes back into the queue, and goes on from what is finished"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
