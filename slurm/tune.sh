#!/usr/bin/env bash
# Search over settings: sbatch [--nodes=2 --gpus-per-node=4 ...] slurm/tune.sh eeg|meg|fusion RECIPE [--trials N] [--set A.B=VALUE ...]
# The job's nodes become a Ray cluster that ends with it. Without Slurm: ./slurm/tune.sh ... on this machine alone.
#SBATCH --job-name=tune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
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
[ -n "$job" ] || exec "$python" -m synapse_diffusion tune "$@"

"$python" -c 'import ray' 2>/dev/null || { echo "error: tune needs Ray: pip install 'synapse-diffusion[tune]'" >&2; exit 3; }
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(16))')
export RAY_AUTH_TOKEN
mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Fixed ports, so that a site can let them through: 400 of 20000 .. 31999, others for jobs that share a node
ports() { echo $((20000 + (SLURM_JOB_ID + 7 * $1) % 30 * 400)); }
cores=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
steps=() driver=''

# address NAME: where Slurm reaches a node, as a number
address() {
    getent ahostsv4 "$(scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')" | awk '{ print $1; exit }'
}

# node K ARGUMENTS: Ray on the job's K-th node, until the step is ended
node() {
    local low
    low=$(($(ports "$1") + 10))
    srun --nodes=1 --ntasks=1 --nodelist="${names[$1]}" --overlap --cpus-per-task="$cores" \
        "$python" -m ray.scripts.scripts start --block --disable-usage-stats "${@:2}" \
        --node-ip-address="$(address "${names[$1]}")" --num-cpus="$cores" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
        --object-store-memory=134217728 --min-worker-port=$low --max-worker-port=$((low + 389)) >"ray-$SLURM_JOB_ID-$1.out" 2>&1 &
    steps+=($!)
}

trap again USR1 # until there is a search that must be saved first
# Not `ray stop`, which would end the Ray of every other job of this user on the same node
trap '[ ${#steps[@]} = 0 ] || kill "${steps[@]}" 2>/dev/null || true; wait' EXIT
head=$(address "${names[0]}"):$(ports 0)
node 0 --head --port="$(ports 0)" --include-dashboard=false --temp-dir="${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID"
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
[ "$code" = 0 ] || [ -z "$warned" ] || again
exit "$code"
