#!/bin/bash
# verl: under Ray, the same GPUs turn from engine to training and back in every step. Where a Ray cluster is there already. bash launch/verl.sh
PYTHONPATH=. python -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo algorithm.norm_adv_by_std_in_grpo=False \
    data.train_files=outputs/14_scale_out/data/train.parquet data.val_files=outputs/14_scale_out/data/test.parquet \
    data.train_batch_size=64 data.max_prompt_length=256 data.max_response_length=1024 \
    reward.custom_reward_function.path=pkg://grpo_kit.rewards.verl reward.custom_reward_function.name=compute_score \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.5 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
    trainer.nnodes="${NODES:-1}" trainer.n_gpus_per_node="${GPUS:-8}" trainer.logger='["console"]' "$@"
