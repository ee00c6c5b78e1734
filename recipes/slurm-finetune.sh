#!/usr/bin/env bash
# Finetune a student on several machines under SLURM; the workspace must be on a disk that all of them see.
#   sbatch recipes/slurm-finetune.sh /shared/workspace /shared/workspace/students/ID
# One task a machine starts `accelerate launch`, which starts one process a GPU.
#SBATCH --job-name=workbench-finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
set -euo pipefail
workspace=${1:?"usage: sbatch recipes/slurm-finetune.sh WORKSPACE STUDENT"}
student=${2:?"usage: sbatch recipes/slurm-finetune.sh WORKSPACE STUDENT"}
processes=$((SLURM_JOB_NUM_NODES * ${SLURM_GPUS_ON_NODE:-8}))
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts%%$'\n'*}
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# SLURM_NODEID is known inside each task only, hence the single quotes.
srun --kill-on-bad-exit=1 bash -c '
  exec .venv/bin/accelerate launch \
    --multi_gpu --num_machines "$SLURM_JOB_NUM_NODES" --num_processes '"$processes"' \
    --machine_rank "$SLURM_NODEID" --main_process_ip '"$head"' --main_process_port "$MASTER_PORT" \
    --rdzv_backend static --mixed_precision no --dynamo_backend no \
    -m workbench.cli finetune --student '"$(printf %q "$student")"' --preset 24gb --accumulate '"$processes"' \
    --workspace '"$(printf %q "$workspace")"' --here --json'
