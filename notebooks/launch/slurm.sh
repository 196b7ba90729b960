#!/bin/bash
# Several hosts under SLURM: one launcher a host, the first host's address for all. sbatch --nodes=2 launch/slurm.sh, in notebooks/.
#SBATCH --job-name=grpo
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --requeue  # starts the job again after a host has failed; where only a process has, submit it again yourself
export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export CONFIG=${CONFIG:-launch/lora.yaml} MACHINES=${MACHINES:-launch/accelerate/one_host.yaml}  # CONFIG=… MACHINES=… sbatch … takes others
srun --kill-on-bad-exit=1 bash -c 'accelerate launch --config_file $MACHINES \
    --num_machines $SLURM_NNODES --num_processes $((8 * SLURM_NNODES)) --machine_rank $SLURM_NODEID \
    --main_process_ip $HEAD --main_process_port 29500 launch/train.py --config $CONFIG "$@"' grpo "$@"
