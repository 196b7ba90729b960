#!/bin/bash
# Several hosts without a scheduler: the same line on each, THIS_HOST counted from 0. bash launch/hosts.sh HOSTS THIS_HOST FIRST_HOSTS_ADDRESS
accelerate launch --config_file "${MACHINES:-launch/accelerate/one_host.yaml}" \
    --num_machines "$1" --num_processes $((${GPUS:-8} * $1)) --machine_rank "$2" --main_process_ip "$3" --main_process_port 29500 \
    launch/train.py --config "${CONFIG:-launch/lora.yaml}" "${@:4}"
