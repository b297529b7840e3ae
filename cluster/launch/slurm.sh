#!/bin/bash
# A run on the nodes of a Slurm job: sbatch cluster/launch/slurm.sh CONFIG [--set KEY=VALUE …]
# Every node needs the same installation (activate it before sbatch) and the folders that CONFIG names; give the
# workspace as file:///…, a folder that all nodes share. After a preemption Slurm starts the script again, and the run
# continues from what the workspace holds.
#SBATCH --job-name=alphafuse
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# For GPUs: sbatch --gpus-per-node=4 cluster/launch/slurm.sh …
set -euo pipefail

if [[ $# -lt 1 ]]; then
    echo "usage: sbatch cluster/launch/slurm.sh CONFIG [--set KEY=VALUE …]" >&2
    exit 2
fi

# The token is in a file that this user alone can read, in the home folder that the nodes share; only its path is passed.
folder=$(mktemp -d "${HOME}/.alphafuse-slurm-${SLURM_JOB_ID}-XXXXXX")
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="${folder}/token"
(
    umask 077
    python -c 'import secrets; print(secrets.token_hex(32), end="")' >"${RAY_AUTH_TOKEN_PATH}"
)

steps=()
finish() {
    trap - EXIT TERM
    if [[ ${#steps[@]} -gt 0 ]]; then
        kill -TERM "${steps[@]}" 2>/dev/null || true
        wait "${steps[@]}" 2>/dev/null || true
    fi
    rm -rf "${folder}"
}
trap finish EXIT
trap 'exit 143' TERM

# Since Slurm 22.05, srun reads the number of CPUs from this variable, and not from that of sbatch.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK}"

mapfile -t nodes < <(scontrol show hostnames "${SLURM_JOB_NODELIST}")
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))
gpus=${SLURM_GPUS_ON_NODE:-0}

# The node of the head runs tasks, too; its CPUs would be idle otherwise. The dashboard listens on the loopback address.
srun --nodes=1 --ntasks=1 --overlap --nodelist="${nodes[0]}" \
    ray start --block --head --node-ip-address="${head_ip}" --port="${port}" --dashboard-host=127.0.0.1 \
    --num-cpus="${SLURM_CPUS_PER_TASK}" --num-gpus="${gpus}" --disable-usage-stats &
steps+=("$!")

for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap --nodelist="${node}" \
        ray start --block --address="${head_ip}:${port}" \
        --num-cpus="${SLURM_CPUS_PER_TASK}" --num-gpus="${gpus}" --disable-usage-stats &
    steps+=("$!")
done

# Waits until every node has joined. If one does not join within ten minutes, the job ends.
python -m cluster.launch.await_nodes "${head_ip}:${port}" "${#nodes[@]}"

alphafuse run "$@" --set "ray.address=${head_ip}:${port}" &
run=$!
wait "${run}"
