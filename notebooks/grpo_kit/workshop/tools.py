"""What do shown calls give, and what does GRPO? `make tools`, which chapter 13 reads.

The chapter's two trainings, SFT on shown calls and then GRPO with the calculator, from 0, 50 and 200 shown rows and several
seeds, each in a process of its own; with 0 rows there is no SFT. A seed sets the adapter's first weights, the order of the rows
and the sampled tokens; the shown rows and the problems are the same for all.
Before, between and after, each model is asked the large sums and the ordinary test problems, sampled at temperature 1, the
calculator at hand.

A finished training is a line of notebooks/outputs/tools/runs.jsonl, and not run again while model and settings stay the same. At
the end notebooks/results/tools.json is written whole.
"""

import argparse
import datetime
import hashlib
import importlib.metadata as metadata
import json
import os
import subprocess
import sys
import tempfile
import time

from grpo_kit.machine.profile import choose_profile
from grpo_kit.measure.statistics import over_seeds
from . import bench
from .controls import fingerprint
from .gpu_check import write
from .step_cost import PROJECTIONS, ROOT, SEED

NOTEBOOKS = ROOT / "notebooks"
FOLDER, RESULTS = NOTEBOOKS / "outputs/tools", NOTEBOOKS / "results/tools.json"
SHOWN, SEEDS, QUESTIONS = (200, 50, 0), 3, 100
STAGES = ("base", "SFT", "GRPO")
FIGURES = ["strict", "lenient", "layout", "truncated", "called", "refused"]  # in % of the questions; and "tokens", a mean
LIMIT = 3600  # seconds that a training and its questions may take


def fingerprint_of(settings):
    """The first digits of a hash of a dict."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def figures(evaluation):
    """What is kept of an `Evaluation` with calls: shares in % and mean tokens, rounded; and which were right, as a text of 0 and 1."""
    rows = evaluation.rows.assign(called=evaluation.rows["calls"] > 0, refused=evaluation.rows["failed"] > 0)
    shares = (100 * rows[FIGURES].mean()).round(2).to_dict()
    right = "".join(str(int(one)) for one in rows["strict"])
    return {"questions": len(rows), **shares, "tokens": round(float(rows["length"].mean()), 2), "right": right}


def train_and_ask(shown, seed, changes):
    """One training from `shown` rows: {"seconds": …, "curve": each step's reward, "results": {stage: {set: figures}}}.

    `changes`: {"SFT": keywords, "GRPO": keywords} that differ from the chapter's settings.
    """
    from grpo_kit import FastLanguageModel  # before trl
    from grpo_kit.data.large_sums import large_sums
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.rewards.functions import correctness_reward
    from grpo_kit.tools import ask_with_calls, calculate, shown_calls, to_dataset, with_calls
    from grpo_kit.tools.settings import grpo_settings, in_float32, sft_settings
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
    from vllm import SamplingParams

    profile, began, results = choose_profile(), time.perf_counter(), {}
    model, tokenizer = FastLanguageModel.from_pretrained(
        profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True, random_state=seed,
        max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
    model = FastLanguageModel.get_peft_model(
        model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=seed)
    with_calls(tokenizer)
    sets = {"large sums": to_dataset(large_sums(QUESTIONS, "test")), "ordinary": make_dataset(profile, "test", tokenizer).select(range(QUESTIONS))}
    with tempfile.TemporaryDirectory() as folder:
        def ask(stage):
            """Asks the model as it stands, both sets; the base model's answers do not depend on the seed."""
            model.save_lora(f"{folder}/{stage}")
            lora_request, limit = model.load_lora(f"{folder}/{stage}"), profile.max_completion_length
            params = SamplingParams(temperature=1.0, max_tokens=limit, seed=SEED)
            results[stage] = {name: figures(ask_with_calls(model, rows, tokenizer, params, [calculate], lora_request)) for name, rows in sets.items()}

        if shown == 0 and seed == SEED:  # an adapter that is still zero answers as the base model, from every seed
            ask("base")
        if shown:
            args = SFTConfig(**sft_settings(profile, folder, seed) | changes.get("SFT", {}))
            rows = shown_calls(large_sums(200, "shown")[:shown])
            trainer = SFTTrainer(model=model, processing_class=tokenizer, args=args, train_dataset=rows)
            in_float32(model)
            trainer.train()
            ask("SFT")
        args = GRPOConfig(**grpo_settings(profile, folder, seed) | changes.get("GRPO", {}))
        trainer = GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=[correctness_reward], args=args, tools=[calculate],
                              train_dataset=to_dataset(large_sums(2000, "train")))
        trainer.train()
        ask("GRPO")
    curve = [round(log["reward"], 4) for log in trainer.state.log_history if "reward" in log]
    return {"seconds": round(time.perf_counter() - began), "curve": curve, "results": results}


def in_a_process(job):
    """`train_and_ask` in a process of its own. RuntimeError, with the end of what it said, where it fails."""
    command = [sys.executable, "-m", "grpo_kit.workshop.tools", f"--shown={job['shown']}", f"--seed={job['seed']}"]
    process = bench.start(command, LIMIT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    printed, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{errors[-3000:]}\n{job} ended with {process.returncode}. The same command goes on from what is finished.")
    return json.loads(printed.splitlines()[-1])  # the libraries print before it


def collect(file, jobs, run):
    """Runs each of `jobs` that has no line in `file` yet, one after another, and adds its line: the jobs' lines, in order.

    A job is a dict that its line begins with; `run(job)` gives the rest.
    """
    from grpo_kit.data.instructions import write_jsonl
    from grpo_kit.training.resume import read_log

    done = read_log(file)  # without the half of a line that a killed command may have left
    write_jsonl(done, file)
    for job in jobs:
        if not any(job.items() <= line.items() for line in done):
            done.append(job | run(job))
            write_jsonl(done, file)
            print(f"{job['shown']} shown rows, seed {job['seed']}: done", flush=True)
    return [next(line for line in done if job.items() <= line.items()) for job in jobs]


def table(runs):
    """The trainings side by side, as text: strict answers and calls in %, the mean over the seeds and half the width of its 95 % interval."""
    lines = []
    for name in ("large sums", "ordinary"):
        lines.append(f"{name + ', strict':24}" + "".join(f"{stage:>16}" for stage in STAGES))
        for shown in dict.fromkeys(run["shown"] for run in runs):
            found = [run["results"] for run in runs if run["shown"] == shown]
            cells = [[one[stage][name]["strict"] for one in found if stage in one] for stage in STAGES]
            texts = ["{:.1f} ± {:.1f}".format(*over_seeds(cell)) if len(cell) > 1 else "".join(f"{one:.1f}" for one in cell) for cell in cells]
            lines.append(f"  {shown} shown, {len(found)} seeds".ljust(24) + "".join(f"{text:>16}" for text in texts))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.tools", description=__doc__.splitlines()[0])
    parser.add_argument("--shown", type=int, help="run only this training, and print its line")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of that training (default {SEED})")
    parser.add_argument("--changes", type=json.loads, default={}, help='for a trial: \'{"GRPO": {"max_steps": 5}}\'')
    options, profile = parser.parse_args(), choose_profile()
    os.chdir(NOTEBOOKS)  # the profile names its folders from there
    if options.shown is not None:
        return print("\n" + json.dumps(train_and_ask(options.shown, options.seed, options.changes)))
    from grpo_kit.tools.settings import grpo_settings, sft_settings
    from grpo_kit.training.resume import only_one

    settings = {"SFT": sft_settings(profile, "", SEED), "GRPO": grpo_settings(profile, "", SEED)}
    kind = {"model": fingerprint(profile.model), "settings": fingerprint_of(settings)}
    jobs = [{"shown": shown, "seed": SEED + number} | kind for number in range(SEEDS) for shown in SHOWN]
    with only_one(FOLDER):
        runs = collect(FOLDER / "runs.jsonl", jobs, in_a_process)
    versions = {name: metadata.version(name) for name in bench.PACKAGES}
    write(RESULTS, {"machine": bench.machine(), "date": datetime.date.today().isoformat(), "command": "make tools",
                    "versions": versions, "profile": profile.name, **kind, "runs": runs})
    print(f"\n{table(runs)}\n\nsaved as {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
