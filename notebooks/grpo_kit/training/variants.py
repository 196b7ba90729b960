"""Variants of GRPO as settings of one trainer (chapter 12): what each changes, and everything that all share."""

# What each method sets in TRL's GRPOConfig; the bounds of the clips are those of the papers. `leaves_out` is no setting of
# TRL's: see `leave_out_agreeing`.
METHODS = {
    "GRPO": {"loss_type": "grpo", "scale_rewards": "group"},
    "GSPO": {"loss_type": "grpo", "scale_rewards": "group", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "TRL's default": {"loss_type": "dapo", "scale_rewards": "group"},
    "CISPO": {"loss_type": "cispo", "scale_rewards": "group", "epsilon_high": 5.0},
    "DAPO": {"loss_type": "dapo", "scale_rewards": "group", "epsilon_high": 0.28, "mask_truncated_completions": True, "leaves_out": True},
    "no deviation": {"loss_type": "dapo", "scale_rewards": "none"},
    "Dr. GRPO": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "batch deviation": {"loss_type": "dapo", "scale_rewards": "batch"},
    "each reward alone": {"loss_type": "dapo", "multi_objective_aggregation": "normalize_then_sum"},
}
# TRL's default with half of GRPO's divisor: a completion is divided by its own tokens where its advantage has that sign.
HALVES = {
    "own tokens if A > 0": {"loss_type": "dapo", "scale_rewards": "group", "own_tokens": 1},
    "own tokens if A < 0": {"loss_type": "dapo", "scale_rewards": "group", "own_tokens": -1},
}
# TRL's default without a clip: bounds that no ratio meets. Its gradient is CISPO's wherever that one's bound does not act.
UNCLIPPED = {"no clip": {"loss_type": "dapo", "scale_rewards": "group", "epsilon": 1e6, "epsilon_high": 1e6}}
KNOWN = METHODS | HALVES | UNCLIPPED
OURS = ("leaves_out", "own_tokens")  # options that are none of TRL's: `change_batches` reads them
GENERATIONS, PER_GENERATION, GROUP = 30, 32, 8  # of a training; a generation; a question
TRIES = 8  # completions to a question whose difficulty is measured


def variant_settings(method, updates, rate, seed, generations=GENERATIONS):
    """The keywords for GRPOConfig of a training with `updates` updates on each generation; ValueError for an unknown method.

    A generation is PER_GENERATION completions, a group of GROUP to each question. `rate` is the learning rate at its highest.
    """
    if method not in KNOWN:
        raise ValueError(f"There is no method {method!r}: choose among {', '.join(KNOWN)}.")
    chosen = {name: value for name, value in KNOWN[method].items() if name not in OURS}
    return {
        "num_iterations": updates, "max_steps": generations * updates, "learning_rate": rate, "seed": seed, "beta": 0.0,
        "per_device_train_batch_size": PER_GENERATION, "gradient_accumulation_steps": 1, "num_generations": GROUP, "use_vllm": True,
        "temperature": 1.0, "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "optim": "adamw_torch_fused", "max_grad_norm": 0.5,
        "logging_steps": 1, "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
        # Said for all, because on a GPU Unsloth would choose others for some of the losses.
        "epsilon": 0.2, "epsilon_high": 0.2, "mask_truncated_completions": False, "scale_rewards": "group", **chosen}


def reset_adapter(model, seed):
    """Gives the LoRA adapter of `model` first weights drawn from `seed`, as a new one has: A random, B zero."""
    import torch  # here, so that a list of methods stays light
    from peft.tuners.lora import LoraLayer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters("default", init_lora_weights=True)


def leave_out_agreeing(trainer):
    """Lets a GRPOTrainer leave out of each batch the groups that earned the same throughout: of the loss and of its tokens.

    Their advantages are zero, so that they push nowhere; left in, their tokens make what the loss is divided by larger. Of
    DAPO's dynamic sampling this is half: nothing is sampled in their place. On a GPU Unsloth does the same by
    UNSLOTH_GRPO_ZERO_VARIANCE_EXCLUDE=1.
    """
    score = trainer._generate_and_score_completions

    def score_and_leave_out(inputs):
        batch = score(inputs)
        disagree = (batch["advantages"].view(-1, trainer.num_generations).abs() > 1e-3).any(dim=1)
        kept = disagree.repeat_interleave(trainer.num_generations)
        batch["completion_mask"] = batch["completion_mask"] * kept[:, None]
        batch["num_items_in_batch"] = trainer.accelerator.gather(batch["completion_mask"].sum()).sum()
        return batch

    trainer._generate_and_score_completions = score_and_leave_out


def divide_by_own_tokens(trainer, sign):
    """Lets a GRPOTrainer with loss_type="dapo" divide the completions whose advantage has this `sign` by their own tokens.

    Their advantages are multiplied by the batch's mean length and divided by their own. Done for both signs it is GRPO's loss.
    """
    score = trainer._generate_and_score_completions

    def score_and_divide(inputs):
        batch = score(inputs)
        lengths = batch["completion_mask"].sum(dim=1)
        chosen = batch["advantages"] * sign > 0
        batch["advantages"] = batch["advantages"] * (lengths.float().mean() / lengths).where(chosen, 1.0)
        return batch

    trainer._generate_and_score_completions = score_and_divide


def change_batches(trainer, method):
    """Gives a GRPOTrainer what `method` wants beyond TRL's options, if anything."""
    options = KNOWN[method]
    if options.get("leaves_out"):
        leave_out_agreeing(trainer)
    if "own_tokens" in options:
        divide_by_own_tokens(trainer, options["own_tokens"])


def ordered(dataset, right, data, seed, count):
    """`count` questions of `dataset` in the order of training; `right`: of TRIES completions to each, how many were right.

    "neither all nor none" takes those in between; "easy first" and "hard first" sort any. None comes twice while there are enough.
    """
    dataset = dataset.select(range(len(right))).add_column("right", right)
    if data == "neither all nor none":
        dataset = dataset.filter(lambda row: 0 < row["right"] < TRIES)
    dataset = dataset.shuffle(seed=seed)
    dataset = dataset.select([place % len(dataset) for place in range(count)])
    if data in ("easy first", "hard first"):
        dataset = dataset.sort("right", reverse=data == "easy first")
    return dataset.remove_columns("right")


def curve_of(log_history):
    """What each generation of a training logged, in order: {"strict": shares right and paid, "lenient": right anywhere}.

    With more than one update on a generation, the log has its rewards once.
    """
    logs = [log for log in log_history if "rewards/correctness_reward/mean" in log]
    return {"strict": [round(log["rewards/correctness_reward/mean"] / 2, 4) for log in logs],
            "lenient": [round(log["rewards/lenient_accuracy/mean"], 4) for log in logs]}


def clipped_share(log_history):
    """The mean share of tokens (or of completions, where a completion has one ratio) whose clip was in force, over the updates."""
    shares = [log[name] for log in log_history for name in ("clip_ratio/region_mean", "cispo_clip_ratio") if name in log]
    return sum(shares) / max(len(shares), 1)
