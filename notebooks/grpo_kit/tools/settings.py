"""The settings of chapter 13's two trainings, as keywords: SFT on shown calls, then GRPO with the tool in hand."""

OF_EMBEDDED = dict(sft_steps=250, sft_batch=8, sft_rate=1e-2, steps=16, batch=64, rate=1e-3, tokens=160)  # the embedded model
LARGE = dict(sft_steps=30, sft_batch=8, sft_rate=2e-4, steps=60, batch=16, rate=5e-6, tokens=512)  # a Qwen2.5, never run so


def sft_settings(profile, folder, seed):
    """Keywords for SFTConfig: the loss falls on what the assistant says, calls included, and on nothing else."""
    own = OF_EMBEDDED if profile.name == "embedded" else LARGE
    return dict(
        output_dir=str(folder),
        assistant_only_loss=True,  # not the question, not the tool's words
        max_length=profile.max_seq_length,
        max_steps=own["sft_steps"],
        per_device_train_batch_size=own["sft_batch"],
        learning_rate=own["sft_rate"], lr_scheduler_type="linear", warmup_steps=5,
        gradient_checkpointing=False, optim="adamw_8bit",
        logging_steps=5, save_strategy="no", report_to="none", disable_tqdm=True, seed=seed)


def grpo_settings(profile, folder, seed):
    """Keywords for GRPOConfig: as in the quickstart, and at most three calls in a completion."""
    own = OF_EMBEDDED if profile.name == "embedded" else LARGE
    return dict(
        output_dir=str(folder),
        use_vllm=True,
        max_tool_calling_iterations=3,
        max_completion_length=own["tokens"],  # of all turns together, the tool's words among them
        max_steps=own["steps"],
        per_device_train_batch_size=own["batch"], num_generations=8,
        learning_rate=own["rate"], lr_scheduler_type="linear", warmup_steps=2,
        optim="adamw_8bit", max_grad_norm=0.5,
        scale_rewards="none",
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, seed=seed)


def in_float32(model):
    """Makes what is trained float32 again: without a GPU TRL's SFTTrainer leaves the adapter of a 4-bit model in bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
