"""What do shown calls give, and what does GRPO? `make tools`, which chapter 13 reads.

The chapter's two trainings, SFT on shown calls and then GRPO with the calculator, from 0, 50 and 200 shown rows and several
seeds; with 0 rows there is no SFT. A seed sets the adapter's first weights, the order of the rows
and the sampled tokens; the shown rows and the problems are the same for all.
Before, between and after, each model is asked the large sums and the ordinary test problems, sampled at temperature 1, the
calculator at hand.

A finished training is a line of notebooks/outputs/tools/runs.jsonl, and not run again while model and settings stay the same. At
the end notebooks/results/tools.json is written whole; `make tools ARGS=--report` writes it from what is finished so far.
"""

import argparse
import datetime
import hashlib
import importlib.metadata as metadata
import json
import os
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
SHOWN, SEEDS, QUESTIONS = (0, 200, 50), 3, 100
STAGES = ("base", "SFT", "GRPO")
FIGURES = ["strict", "lenient", "layout", "truncated", "called", "refused"]  # in % of the questions; and "tokens", a mean


def fingerprint_of(settings):
    """The first digits of a hash of a dict."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def figures(evaluation):
    """What is kept of an `Evaluation` with calls: shares in % and mean tokens, rounded; and which were right, as a text of 0 and 1."""
    rows = evaluation.rows.assign(called=evaluation.rows["calls"] > 0, refused=evaluation.rows["failed"] > 0)
    shares = (100 * rows[FIGURES].mean()).round(2).to_dict()
    right = "".join(str(int(one)) for one in rows["strict"])
    return {"questions": len(rows), **shares, "tokens": round(float(rows["length"].mean()), 2), "right": right}


class Trainings:
    """Model and engine, loaded once, which train one adapter after another."""

    def __init__(self):
        from grpo_kit import FastLanguageModel  # before transformers
        from grpo_kit.data.large_sums import large_sums
        from grpo_kit.data.rows import make_dataset
        from grpo_kit.tools import shown_calls, to_dataset, with_calls

        self.profile = profile = choose_profile()
        model, self.tokenizer = FastLanguageModel.from_pretrained(
            profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True,
            max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
        self.model = FastLanguageModel.get_peft_model(
            model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=SEED)
        with_calls(self.tokenizer)
        self.shown, self.dataset = shown_calls(large_sums(max(SHOWN), "shown")), to_dataset(large_sums(2000, "train"))
        self.tests = {"large sums": to_dataset(large_sums(QUESTIONS, "test")),
                      "ordinary": make_dataset(profile, "test", self.tokenizer).select(range(QUESTIONS))}

    def ask(self, folder):
        """{set: figures} of the adapter as it stands; `folder`: where to keep it meanwhile."""
        from grpo_kit.tools import ask_with_calls, calculate
        from vllm import SamplingParams

        self.model.save_lora(folder)
        lora_request = self.model.load_lora(folder)
        params = SamplingParams(temperature=1.0, max_tokens=self.profile.max_completion_length, seed=SEED)
        return {name: figures(ask_with_calls(self.model, rows, self.tokenizer, params, [calculate], lora_request)) for name, rows in self.tests.items()}

    def train(self, job, changes=None):
        """The rest of the job's line: "curve" (each step's reward), "results" ({stage: {set: figures}}), "seconds", "cpu seconds".

        `changes`: {"SFT": keywords, "GRPO": keywords} that differ from the chapter's settings, for a trial.
        """
        from grpo_kit.rewards.functions import correctness_reward
        from grpo_kit.tools import calculate
        from grpo_kit.tools.settings import grpo_settings, in_float32, sft_settings
        from grpo_kit.training.variants import reset_adapter
        from transformers import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

        began, cpu, results = time.perf_counter(), time.process_time(), {}
        changes, seed, common = changes or {}, job["seed"], {"model": self.model, "processing_class": self.tokenizer}
        reset_adapter(self.model, seed)
        with tempfile.TemporaryDirectory() as folder:
            if job["shown"] == 0 and seed == SEED:  # an adapter that is still zero answers as the base model, from every seed
                results["base"] = self.ask(f"{folder}/base")
            if job["shown"]:
                args = SFTConfig(**sft_settings(self.profile, folder, seed) | changes.get("SFT", {}))
                trainer = SFTTrainer(args=args, train_dataset=self.shown.select(range(job["shown"])), **common)
                trainer.remove_callback(PrinterCallback)
                in_float32(self.model)
                trainer.train()
                results["SFT"] = self.ask(f"{folder}/SFT")
            args = GRPOConfig(**grpo_settings(self.profile, folder, seed) | changes.get("GRPO", {}))
            trainer = GRPOTrainer(reward_funcs=[correctness_reward], args=args, tools=[calculate], train_dataset=self.dataset, **common)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            results["GRPO"] = self.ask(f"{folder}/GRPO")
        curve = [round(log["reward"], 4) for log in trainer.state.log_history if "reward" in log]
        return {"curve": curve, "results": results, "seconds": round(time.perf_counter() - began), "cpu seconds": round(time.process_time() - cpu)}


def lines_of(jobs, done):
    """The lines of `jobs`, in their order, as far as they stand in `done`."""
    return [line for job in jobs for line in done if job.items() <= line.items()]


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
    return lines_of(jobs, done)


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
    parser.add_argument("--changes", type=json.loads, help='for a trial, whose lines are kept apart: \'{"GRPO": {"max_steps": 5}}\'')
    parser.add_argument("--report", action="store_true", help="train nothing: write the results of what is finished so far")
    options, profile = parser.parse_args(), choose_profile()
    from grpo_kit.tools.settings import grpo_settings, sft_settings
    from grpo_kit.training.resume import only_one, read_log

    os.chdir(NOTEBOOKS)  # the profile names its folders from there
    changes, loaded = options.changes or {}, []
    settings = {"SFT": sft_settings(profile, "", SEED) | changes.get("SFT", {}), "GRPO": grpo_settings(profile, "", SEED) | changes.get("GRPO", {})}
    kind = {"model": fingerprint(profile.model), "settings": fingerprint_of(settings)}
    jobs = [{"shown": shown, "seed": SEED + number} | kind for number in range(SEEDS) for shown in SHOWN]

    def run(job):
        """Loads model and engine at the first job that has no line yet."""
        if not loaded:
            loaded.append(Trainings())
        return loaded[0].train(job, changes)

    if options.report:
        runs = lines_of(jobs, read_log(FOLDER / "runs.jsonl"))
    else:
        with only_one(FOLDER):
            runs = collect(FOLDER / "runs.jsonl", jobs, run)
    if changes:
        return print(f"\n{table(runs)}")
    versions = {name: metadata.version(name) for name in bench.PACKAGES}
    write(RESULTS, {"machine": bench.machine(), "date": datetime.date.today().isoformat(), "command": "make tools",
                    "versions": versions, "profile": profile.name, **kind, "runs": runs})
    print(f"\n{table(runs)}\n\nsaved as {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
