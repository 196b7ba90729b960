#!/bin/bash
# Several hosts without a scheduler: the same line on each, by torchrun. bash launch/hosts.sh HOSTS THIS_HOST FIRST_HOSTS_ADDRESS
torchrun --nnodes "$1" --node-rank "$2" --master-addr "$3" --master-port 29500 --nproc-per-node "${GPUS:-8}" \
    launch/train.py --config "${CONFIG:-launch/lora.yaml}" "${@:4}"
