#!/bin/bash
# All of luigi.cfg in one job for SLURM: the data, then training and evaluation. Change what your cluster needs, then
# `sbatch job.sh`. Five minutes before its time limit what runs is ended, keeps what is finished, and the job is queued
# again; the next one goes on from there.
#SBATCH --job-name=vibe
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=vibe-%j.log
# Further lines as your cluster asks for them: --partition, --account, --mem.

model=vibe   # of `python -m tasks train --help`
restarts=20  # how often it is queued again at most
# In place of settings of luigi.cfg, a line each. Of four GPUs on this node, extraction and training take all with:
# export PIPELINE_SET=$'features.devices=0,1,2,3\nvibe.processes=4'

cd @folder@ || exit 2
export LUIGI_CONFIG_PATH=$PWD/luigi.cfg
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not take it from the job by itself
luigi=@luigi@
python=@python@

# Every line of the log has its time. The job ends when its last one is written, 10 s later at the most.
exec > >(trap '' TERM; while IFS= read -r line || [ -n "$line" ]; do printf '%(%F %T)T %s\n' -1 "$line"; done) 2>&1
log=$!
trap 'exec >&- 2>&-; timeout 10 tail --pid="$log" -f /dev/null' EXIT

requeue() {  # at USR1, before the time limit
    trap '' USR1
    [ -n "$child" ] && kill -TERM "$child" && wait "$child"
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$restarts" ]; then
        echo "time limit, after $restarts restarts: sbatch this script once more, it continues"
        exit 1
    fi
    scontrol requeue "$SLURM_JOB_ID" && echo "time limit: queued again" && exit 0
    echo "time limit, and SLURM refuses to queue it again: sbatch this script once more, it continues"
    exit 1
}
trap requeue USR1
trap '[ -n "$child" ] && kill -TERM "$child" && wait "$child"; exit 143' TERM  # scancel, preemption

step() {  # waits such that a signal is served at once; a failure ends the job with its exit code
    "$@" & child=$!
    wait "$child"
    code=$?
    child=
    [ "$code" = 0 ] || { echo "exit code $code: $*"; exit "$code"; }
}

# A job without GPUs can convert first: Convert --dataset NAME --split NAME. Leave out what other jobs do.
step "$luigi" --module tasks Data
if [ "${SLURM_NNODES:-1}" -gt 1 ]; then  # the launcher of each node joins the others at the first node's port
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    step srun "$python" -m torch.distributed.run --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
        --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:$((20000 + SLURM_JOB_ID % 10000))" \
        -m tasks train --model "$model"
fi
step "$luigi" --module tasks Evaluate --model "$model"
