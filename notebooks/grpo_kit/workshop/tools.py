"""What do shown calls give, and what does GRPO? `make tools`, which chapter 13 reads.

SFT on shown rows and then GRPO with the calculator, as PLANS says, from several seeds: calls, the same problems worked out without a
call (the control), and ordinary problems beside the calls. A seed sets the adapter's first weights, the order of the rows and
the sampled tokens; the shown rows and the problems are the same for all.
Expected of the four plans added last, before they ran: (1) shown 200 solutions without a call, fewer than 5 of 100 large sums are
right; (2) from 50 calls, 32 steps of practice add 10 points from seed 3409 and not from the two others, whose groups mostly agree
(share above 0.6); (3) 50 calls seen 10 times come within 10 points of 50 seen 36 times, on average over the seeds; (4) with 200
ordinary problems beside the calls, over half of the ordinary ones are right and fewer than a tenth call, and large sums lose at
most 15 points. Expected of its practice, before that ran: (5) 32 steps gain at least 10 large sums from two seeds of three, and cost
at most 5 ordinary problems; (6) of the control's large sums, fewer than 20 replies hold all numbers of the question.

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
import re
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
SEEDS, QUESTIONS = 3, 100
STAGES = ("base", "SFT", "GRPO")
PARTS = ("calls", "solutions", "ordinary", "SFT", "GRPO")  # rows shown, of three kinds; steps, as multiples of the chapter's settings
PLANS = [(0, 0, 0, 0, 1), (200, 0, 0, 1, 1), (50, 0, 0, 1, 1), (0, 200, 0, 1, 0), (200, 0, 200, 2, 2), (50, 0, 0, 1, 2), (50, 0, 0, 0.28, 0)]
FIGURES = ["strict", "lenient", "layout", "truncated", "called", "refused", "copied"]  # in % of the questions; and "tokens", a mean
NUMBER = re.compile(r"\d[\d,]*\d|\d")


def fingerprint_of(settings):
    """The first digits of a hash of a dict."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def copies(question, text):
    """Whether all numbers of `question` stand in `text`."""
    return set(NUMBER.findall(question)) <= set(NUMBER.findall(text))


def figures(evaluation, questions):
    """What is kept of an `Evaluation` with calls: shares in % and mean tokens, rounded; and which were right, as a text of 0 and 1."""
    rows = evaluation.rows.assign(called=evaluation.rows["calls"] > 0, refused=evaluation.rows["failed"] > 0)
    rows["copied"] = list(map(copies, questions, rows["conversation"]))
    shares = (100 * rows[FIGURES].mean()).round(2).to_dict()
    right = "".join(str(int(one)) for one in rows["strict"])
    return {"questions": len(rows), **shares, "tokens": round(float(rows["length"].mean()), 2), "right": right,
            "ends": rows["end"].value_counts().to_dict()}


def jobs_of(settings, kind):
    """What identifies each training: PARTS (the two last as steps), "seed", and `kind`. `settings`: {"SFT": keywords, "GRPO": keywords}."""
    found = []
    for seed in range(SEED, SEED + SEEDS):
        for plan in PLANS:
            job = dict(zip(PARTS, plan))
            steps = {name: round(job[name] * settings[name]["max_steps"]) for name in ("SFT", "GRPO")}
            found.append(job | steps | {"seed": seed} | kind)
    return found


class Trainings:
    """Model and engine, loaded once, which train one adapter after another."""

    def __init__(self):
        from grpo_kit import FastLanguageModel  # before transformers
        from grpo_kit.data.large_sums import large_sums
        from grpo_kit.data.rows import make_dataset
        from grpo_kit.tools import shown_calls, shown_solutions, to_dataset, with_calls

        self.profile = profile = choose_profile()
        model, self.tokenizer = FastLanguageModel.from_pretrained(
            profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True,
            max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
        self.model = FastLanguageModel.get_peft_model(
            model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=SEED)
        with_calls(self.tokenizer)
        rows = large_sums(200, "shown")
        self.shown = {"calls": shown_calls(rows), "solutions": shown_solutions(to_dataset(rows)),
                      "ordinary": shown_solutions(make_dataset(profile, "train", self.tokenizer).select(range(200)))}
        self.dataset = to_dataset(large_sums(2000, "train"))
        self.tests = {"large sums": to_dataset(large_sums(QUESTIONS, "test")),
                      "ordinary": make_dataset(profile, "test", self.tokenizer).select(range(QUESTIONS))}

    def ask(self, folder):
        """{set: figures} of the adapter as it stands; `folder`: where to keep it meanwhile."""
        from grpo_kit.tools import ask_with_calls, calculate
        from vllm import SamplingParams

        self.model.save_lora(folder)
        lora_request = self.model.load_lora(folder)
        params = SamplingParams(temperature=1.0, max_tokens=self.profile.max_completion_length, seed=SEED)
        return {name: figures(ask_with_calls(self.model, rows, self.tokenizer, params, [calculate], lora_request), rows["question"])
                for name, rows in self.tests.items()}

    def train(self, job, changes=None):
        """The rest of the job's line: "curve" and "agree" (each step's reward, and share of groups that earned the same), "results"
        ({stage: {set: figures}}), "seconds", "cpu seconds", "date".

        `changes`: {"SFT": keywords, "GRPO": keywords} that differ from the chapter's settings, for a trial.
        """
        from grpo_kit.rewards.functions import correctness_reward
        from grpo_kit.tools import calculate
        from grpo_kit.tools.settings import grpo_settings, in_float32, sft_settings
        from grpo_kit.training.variants import reset_adapter
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

        logs, shown = [], [row for name, rows in self.shown.items() for row in rows.select(range(job[name]))]
        began, cpu, results = time.perf_counter(), time.process_time(), {}
        changes, seed, common = changes or {}, job["seed"], {"model": self.model, "processing_class": self.tokenizer}
        reset_adapter(self.model, seed)
        with tempfile.TemporaryDirectory() as folder:
            if not shown and seed == SEED:  # an adapter that is still zero answers as the base model, from every seed
                results["base"] = self.ask(f"{folder}/base")
            if shown:
                args = SFTConfig(**sft_settings(self.profile, folder, seed) | {"max_steps": job["SFT"]} | changes.get("SFT", {}))
                trainer = SFTTrainer(args=args, train_dataset=Dataset.from_list(shown), **common)
                trainer.remove_callback(PrinterCallback)
                in_float32(self.model)
                trainer.train()
                results["SFT"] = self.ask(f"{folder}/SFT")
            if job["GRPO"]:
                args = GRPOConfig(**grpo_settings(self.profile, folder, seed) | {"max_steps": job["GRPO"]} | changes.get("GRPO", {}))
                trainer = GRPOTrainer(reward_funcs=[correctness_reward], args=args, tools=[calculate], train_dataset=self.dataset, **common)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                results["GRPO"] = self.ask(f"{folder}/GRPO")
                logs = [log for log in trainer.state.log_history if "reward" in log]
        return {"curve": [round(log["reward"], 4) for log in logs], "agree": [round(log["frac_reward_zero_std"], 4) for log in logs],
                "results": results, "seconds": round(time.perf_counter() - began), "cpu seconds": round(time.process_time() - cpu),
                "date": datetime.date.today().isoformat()}


def name_of(job):
    """What a training shows and how long it practises, as text."""
    return ", ".join(f"{job[name]} {name}" for name in PARTS if job[name])


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
            print(f"{name_of(job)}, seed {job['seed']}: done", flush=True)
    return lines_of(jobs, done)


def table(runs):
    """The trainings side by side, as text: strict answers and calls in %, the mean over the seeds and half the width of its 95 % interval."""
    lines = []
    for name in ("large sums", "ordinary"):
        lines.append(f"{name + ', strict':56}" + "".join(f"{stage:>16}" for stage in STAGES))
        for plan in dict.fromkeys(map(name_of, runs)):
            found = [run["results"] for run in runs if name_of(run) == plan]
            cells = [[one[stage][name]["strict"] for one in found if stage in one] for stage in STAGES]
            texts = ["{:.1f} ± {:.1f}".format(*over_seeds(cell)) if len(cell) > 1 else "".join(f"{one:.1f}" for one in cell) for cell in cells]
            lines.append(f"  {plan}, {len(found)} seeds".ljust(56) + "".join(f"{text:>16}" for text in texts))
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
    jobs = jobs_of(settings, kind)

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
