"""What a real model of 135 million parameters learns without a GPU: first from shown solutions, then from its own. `make laptop`

SmolLM2-135M-Instruct and the repository's word problems. SFT on 100 solutions in the layout that the system prompt asks for
(the cold start: without it no completion is ever paid), then GRPO from there, the same adapter, with the quickstart's rewards.
GRPO learns from groups in which some are right: the model is, now and then, on problems of one step with small numbers, and
hardly ever on others, so those are what it trains on. Each stage gets every question of both test sets and 100 more of that
easy kind, which no training saw, sampled at temperature 1 and greedily; a seed sets the adapter's first weights, the order of
the rows and the sampled completions.

It may be killed at any moment: what was asked is a line of notebooks/outputs/laptop/SEED/asked.jsonl, the SFT's adapter is
kept, the GRPO has checkpoints. At the end notebooks/results/laptop.json is written whole.
"""

import argparse
import datetime
import importlib.metadata as metadata
import json
import os
import re
import sys
from pathlib import Path

from grpo_kit.machine.profile import PROFILES, choose_profile
from . import bench
from grpo_kit.rewards.ends import end_tokens
from .controls import LIMIT, NOTEBOOKS, figures, rewards_for
from .gpu_check import write
from .step_cost import PROJECTIONS, ROOT, SEED

FOLDER, RESULTS = NOTEBOOKS / "outputs/laptop", NOTEBOOKS / "results/laptop.json"
SEEDS, SHOWN, EPOCHS, STEPS = 3, 100, 3, 60  # trainings; rows of the SFT and passes over them; steps of the GRPO
STAGES = ["before", "SFT", "GRPO"]
EASY, LARGEST = "easy", 50  # the test set that is held back from the easy problems; the largest number in one
LOGGED = ["reward", "rewards/correctness_reward/mean", "rewards/format_reward/mean", "completions/mean_length", "frac_reward_zero_std"]


def is_easy(row):
    """Whether a problem takes one step and neither it nor its solution has a number above `LARGEST`."""
    numbers = re.findall(r"[0-9][0-9,]*", row["question"] + " " + row["solution"])
    return row["solution"].count("<<") == 1 and all(int(number.replace(",", "")) <= LARGEST for number in numbers)


def ask_left(file, jobs, ask):
    """Adds to `file` a line for each of the jobs, dicts, that has none: the job with what `ask(job)` gives."""
    from grpo_kit.data.instructions import write_jsonl
    from grpo_kit.training.resume import read_log

    done = read_log(file)
    write_jsonl(done, file)  # without the half of a line that a killed command may have left
    for job in jobs:
        if not any(job.items() <= line.items() for line in done):
            line = json.dumps(job | ask(job)) + "\n"
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(line)


def train(seed, steps, questions, folder):
    """One seed's SFT and GRPO in `folder`, each asked everything; what is finished is not done again."""
    from grpo_kit import FastLanguageModel  # before trl
    from datasets import Dataset, disable_progress_bars
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
    from vllm import SamplingParams

    from grpo_kit.data.instructions import shown_solution
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.measure.ask import evaluate
    from grpo_kit.model.identity import sign
    from grpo_kit.model.whole import save_whole
    from grpo_kit.training.progress import LiveTable
    from grpo_kit.training.resume import JsonLog, Resumable, whole_checkpoint

    disable_progress_bars()
    profile = choose_profile()
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = FastLanguageModel.from_pretrained(
        profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True, random_state=seed,
        max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
    model = FastLanguageModel.get_peft_model(
        model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=seed)
    sign(model, profile, seed)
    problems = make_dataset(profile, "train", tokenizer)
    easy = problems.select(range(SHOWN, len(problems))).filter(is_easy)
    tests = {split: make_dataset(profile, split, tokenizer) for split in profile.splits} | {EASY: easy.select(range(100))}
    tests = {split: test.select(range(min(questions or len(test), len(test)))) for split, test in tests.items()}

    def ask(stage, adapter):
        lora_request = model.load_lora(str(adapter)) if adapter else None

        def one(job):
            temperature = 0.0 if job["way"] == "greedy" else 1.0
            params = SamplingParams(temperature=temperature, max_tokens=profile.max_completion_length, seed=SEED)
            found = evaluate(model, tests[job["split"]], tokenizer, params, lora_request)
            print(f"{stage}, {job['split']}, {job['way']}: {found.rows['lenient'].mean():.1%} right", flush=True)
            return {**figures(found), "right": "".join("01"[right] for right in found.rows["lenient"]), "example": found.rows["text"].iloc[0]}

        ask_left(folder / "asked.jsonl", [{"stage": stage, "split": split, "way": way} for split in tests for way in ("sampled", "greedy")], one)

    def in_float32():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    common = dict(learning_rate=profile.learning_rate, optim="adamw_8bit", lr_scheduler_type="constant_with_warmup", warmup_steps=3,
                  logging_steps=1, report_to="none", disable_tqdm=True, seed=seed)
    if not (folder / "sft").is_dir():
        args = SFTConfig(output_dir=str(folder / "sft_run"), max_length=profile.max_seq_length, completion_only_loss=True, save_strategy="no",
                         per_device_train_batch_size=10, num_train_epochs=EPOCHS, train_sampling_strategy="group_by_length", **common)
        shown = Dataset.from_list([shown_solution(row) for row in problems.select(range(SHOWN))])
        trainer = SFTTrainer(model=model, processing_class=tokenizer, args=args, train_dataset=shown)
        trainer.remove_callback(PrinterCallback)
        in_float32()
        trainer.train()
        save_whole(model.save_lora, folder / "sft")
    ask("SFT", folder / "sft")
    if not (folder / "grpo").is_dir():
        set_peft_model_state_dict(model, load_file(folder / "sft/adapter_model.safetensors"))
        in_float32()
        reward_funcs, weights = rewards_for("full", seed, end_tokens(tokenizer, model.generation_config))
        args = GRPOConfig(
            output_dir=str(folder), use_vllm=True, max_steps=steps, max_completion_length=profile.max_completion_length,
            num_generations=profile.num_generations, per_device_train_batch_size=profile.per_device_train_batch_size,
            gradient_accumulation_steps=profile.gradient_accumulation_steps, reward_weights=weights,
            save_strategy="steps", save_steps=10, save_total_limit=1, **common)
        trainer = GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=reward_funcs, args=args,
                              train_dataset=easy.select(range(100, len(easy))),
                              callbacks=[JsonLog(folder / "log.jsonl", lambda: None, steps + 1), Resumable(args), LiveTable()])
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=whole_checkpoint(folder))
        save_whole(model.save_lora, folder / "grpo")
    ask("GRPO", folder / "grpo")
    if seed == SEED:
        ask("before", None)  # last: its answers are the longest, and no training waits for them


def in_a_process(seed, arguments):
    """`train` in a process of its own, whose output is shown. RuntimeError where it fails."""
    command = [sys.executable, "-m", "grpo_kit.workshop.laptop", f"--seed={seed}", *arguments]
    process = bench.start(command, LIMIT, env=os.environ | {"GRPO_PROFILE": "laptop"})
    if process.wait():
        raise RuntimeError(f"seed {seed} ended with {process.returncode}. The same command goes on from what is finished.")


def collected(folder, seeds):
    """(lines of what was asked, lines of the GRPOs' logs) of all the seeds, each with its seed."""
    from grpo_kit.training.resume import read_log

    asked = [{"seed": seed} | line for seed in seeds for line in read_log(folder / str(seed) / "asked.jsonl")]
    logs = [{"seed": seed, "step": line["step"]} | {name: round(line[name], 4) for name in LOGGED}
            for seed in seeds for line in read_log(folder / str(seed) / "log.jsonl") if "reward" in line]
    return asked, logs


def table(asked):
    """Right last numbers and kept layouts in %, a line for each stage: the mean over its seeds, and each of them."""
    lines = [f"{'':8}" + "".join(f"{split + ', ' + way:>30}" for split, way in dict.fromkeys((a["split"], a["way"]) for a in asked))]
    for stage in STAGES:
        cells = {}
        for line in asked:
            if line["stage"] == stage:
                cells.setdefault((line["split"], line["way"]), []).append(line["lenient"])
        texts = [f"{sum(found) / len(found):.1f} ({', '.join(f'{one:.1f}' for one in found)})" for found in cells.values()]
        lines += [f"{stage:8}" + "".join(f"{text:>30}" for text in texts)] if texts else []
    return "right, in %\n" + "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.laptop", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="run only this training")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many trainings, from {SEED} upwards (default {SEEDS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of the GRPO (default {STEPS}); others are a trial, saved in outputs/laptop")
    parser.add_argument("--questions", type=int, help="of each test set (default all); fewer are a trial too")
    options = parser.parse_args()
    os.chdir(NOTEBOOKS)
    whole = options.steps == STEPS and not options.questions
    folder = FOLDER if whole else FOLDER / f"trial_{options.steps}_{options.questions}"
    if options.seed:
        return train(options.seed, options.steps, options.questions, folder / str(options.seed))
    from grpo_kit.model.small_real_model import small_real_model
    from grpo_kit.training.resume import only_one

    small_real_model()
    seeds = [SEED + number for number in range(options.seeds)]
    with only_one(folder):
        for seed in seeds:
            in_a_process(seed, sys.argv[1:])
    asked, logs = collected(folder, seeds)
    file = RESULTS if whole and options.seeds == SEEDS else folder / "result.json"
    write(file, {"machine": bench.machine(), "date": datetime.date.today().isoformat(), "command": "python -m grpo_kit.workshop.laptop",
                 "versions": {name: metadata.version(name) for name in bench.PACKAGES}, "model": Path(PROFILES["laptop"].model).name,
                 "shown": SHOWN, "epochs": EPOCHS, "steps": options.steps, "asked": asked, "logs": logs})
    print(f"\n{table(asked)}\n\nsaved as {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
