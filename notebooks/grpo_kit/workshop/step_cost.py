"""Training steps measured: the times of their parts, their memory, and the FLOPs below which no step can get.

`grpo_kit.workshop.bench` compares configurations with it, `grpo_kit.workshop.growth` sizes. Gradient checkpointing is off everywhere: on a
CPU it only costs time.
"""

import os
import resource
import statistics
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODEL = str(ROOT / "data/tiny-model")
STOCK = ("stock", "float32")  # the configurations without this project's engine
PROMPTS, GROUP, LENGTH = 16, 8, 64  # 128 completions of at most 64 tokens
RANK, SEED = 16, 3407
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(name, folder, tokens=384):
    """(model with a fresh adapter, tokenizer) for the configuration `name`; `tokens`: of prompt and completion, at most."""
    if name in STOCK:
        for variable in ("GOMP_SPINCOUNT", "MKL_CBWR"):  # set by grpo_kit's threads.prepare, of which stock knows nothing
            os.environ.pop(variable, None)
        if name == "float32":
            os.environ["UNSLOTH_CPU_BF16"] = "0"
        sys.modules["vllm._C"] = types.ModuleType("vllm._C")  # stock has no use for vLLM, and its import may crash
        from unsloth import FastLanguageModel
    else:
        from grpo_kit import FastLanguageModel
    import torch

    engine = {} if name in STOCK else {"fast_inference": True, "max_lora_rank": RANK}
    model, tokenizer = FastLanguageModel.from_pretrained(
        folder, max_seq_length=tokens, load_in_4bit=True, use_gradient_checkpointing=False, **engine
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=PROJECTIONS,
        use_gradient_checkpointing=False,
        random_state=SEED,
    )
    if name == "bf16":  # here, for Unsloth's import sets it to "high", which is float32 on a CPU
        torch.set_float32_matmul_precision("medium")
    return model, tokenizer


def dataset_for(folder, tokenizer):
    """The embedded default's training problems, as GRPOTrainer takes them."""
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.machine.profile import PROFILES

    return make_dataset(replace(PROFILES["embedded"], model=folder), "train", tokenizer)


def trainer_for(name, model, tokenizer, dataset, steps, prompts=PROMPTS, group=GROUP, length=LENGTH, whole=False):
    """A GRPOTrainer of `steps` steps of `prompts` x `group` completions of at most `length` tokens.

    `whole`: each completion has all `length` tokens, because the end-of-turn token does not end it.
    """
    from grpo_kit.rewards.functions import correctness_reward, format_reward
    from trl import GRPOConfig, GRPOTrainer

    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[correctness_reward, format_reward],
        args=GRPOConfig(
            output_dir=str(ROOT / "outputs/bench"),
            use_vllm=name not in STOCK,
            per_device_train_batch_size=prompts * group,
            num_generations=group,
            max_completion_length=length,
            generation_kwargs={"ignore_eos": True} if whole else None,
            learning_rate=1e-6,  # the completions stay as long as they are
            max_steps=steps,
            logging_steps=1,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=dataset,
    )
    if name == "float32":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer


def measure(trainer, steps):
    """Trains, and gives the figures of `steps` steps after a warm-up, {figure: [one a step, or one in all]}, in seconds.

    "batches" are what `step_flops` takes. Where the trainer has a step more, that one only compares the log-probs of what
    the engine sampled with the policy's own: the largest and the mean difference, over the step's tokens.
    """
    import torch
    from transformers import TrainerCallback

    parts, batches, seen = {"generate": [], "log-probs": [], "backward": []}, [], []

    def timed(owner, method, part):
        function = getattr(owner, method)

        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            parts[part].append(time.perf_counter() - start)
            return result

        setattr(owner, method, wrapper)

    timed(trainer, "_generate_single_turn", "generate")
    timed(trainer, "_get_per_token_logps_and_entropies", "log-probs")
    timed(trainer.accelerator, "backward", "backward")
    score = trainer._get_per_token_logps_and_entropies

    def count(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        groups = {}
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist()):
            prompt = tuple(i for i, m in zip(ids[:-logits_to_keep], mask) if m)
            groups.setdefault(prompt, []).append(sum(mask[-logits_to_keep:]))
        batches.append([(len(prompt), lengths) for prompt, lengths in groups.items()])
        return score(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)

    trainer._get_per_token_logps_and_entropies = count

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            trainer.vllm_importance_sampling_correction = trainer.use_vllm and state.global_step > steps

        def on_step_end(self, args, state, control, **kwargs):
            seen.append((torch.get_num_threads(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9))

    trainer.add_callback(Watch())
    trainer.train()

    logs = [log for log in trainer.state.log_history if "step_time" in log]
    timed_steps = slice(1, steps + 1)
    figures = {"step": [log["step_time"] for log in logs[timed_steps]], "batches": batches[timed_steps]}
    figures |= {part: times[timed_steps] for part, times in parts.items()}
    figures["tokens a completion"] = [n for batch in figures["batches"] for _, lengths in batch for n in lengths]
    figures["threads"] = [threads for threads, _ in seen[timed_steps]]
    figures["peak memory, GB"] = [seen[steps][1]]
    if trainer.use_vllm and len(logs) > steps + 1:
        for kind in ("mean", "max"):
            figures[f"log-probs off, {kind}"] = [logs[-1][f"sampling/sampling_logp_difference/{kind}"]]
    return figures


# --- the floor --------------------------------------------------------------------------------------------------------


def linear_layers(model):
    """(name, layer) of the frozen linear layers, the head among them, without LoRA's own matrices."""
    import torch

    layers = ((name.removesuffix(".base_layer"), m) for name, m in model.get_base_model().named_modules())
    return [(name, m) for name, m in layers if isinstance(m, torch.nn.Linear) and ".lora_" not in name]


def gemm_rate(model, rows=1024):
    """FLOPs a second of the float32 products (rows x in) @ (in x out) of the model's linear layers."""
    import torch

    seconds = flops = 0
    for out, inner in ((m.out_features, m.in_features) for _, m in linear_layers(model)):
        x, w = torch.randn(rows, inner), torch.randn(out, inner)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            torch.nn.functional.linear(x, w)
            times.append(time.perf_counter() - start)
        seconds += statistics.median(times)
        flops += 2 * rows * out * inner
    return flops / seconds


def step_flops(model, batch, share):
    """FLOPs of a step: generating, scoring and the gradient, each product once.

    `batch`: (prompt tokens, [completion tokens, …]) for each prompt. `share`: a group computes its prompt once.
    """
    sizes = {name: m.in_features * m.out_features for name, m in linear_layers(model)}
    head = sizes.pop("lm_head")
    linear, lora = sum(sizes.values()), sum(p.numel() for p in model.parameters() if p.requires_grad)
    fed = scored = seen = 0  # tokens through the layers, tokens through the head, (token, token it attends to) pairs
    for prompt, completions in batch:
        copies = 1 if share else len(completions)
        fed += copies * prompt + sum(completions)
        scored += sum(completions)
        seen += copies * prompt**2 / 2 + sum(prompt * n + n**2 / 2 for n in completions)
    attention = 4 * seen * model.config.num_hidden_layers * model.config.num_attention_heads * model.config.head_dim
    generate = 2 * (linear * fed + head * scored) + attention
    score = 2 * ((linear + lora) * fed + head * scored) + attention
    backward = 2 * ((linear + 2 * lora) * fed + head * scored) + 2 * attention
    return generate + score + backward


def floors(model, batches):
    """The figures of the floor, as `measure` gives the others: FLOPs of the batches' steps over the GEMM rate, in seconds."""
    rate = gemm_rate(model) / 1e9
    figures = {"GEMM rate, GFLOP/s": [rate]}
    for label, share in (("floor, prompts once", True), ("floor, prompts each", False)):
        figures[label] = [step_flops(model, batch, share) / 1e9 / rate for batch in batches]
    return figures
