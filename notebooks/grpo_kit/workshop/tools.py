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
Expected of the chapter's own practice with the busy calculator, before it ran: at least 20 of 100 answered and 15 right.
Expected of FURTHER, before it ran: (7) 400 more SFT steps, about the time of 32 steps of practice, gain fewer large sums than practice's
mean of 11.3, on average over the seeds, and at most 5 ordinary problems are gained or lost from each; (8) after 24 steps with the busy
calculator at least 80 of 100 conversations call twice, at least 15 more are answered and at least 10 more right, from both seeds, and
the second call is a larger share of the time the first one again. Expected of the control last of FURTHER, before it ran: (9) shown 200
ordinary problems alone, for as many steps, the mean of right ordinary ones comes within 5 points of calls and ordinary ones together,
fewer than 5 of 100 large sums are right, and no reply calls.

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

from grpo_kit.machine.profile import choose_profile
from grpo_kit.measure.statistics import over_seeds
from . import bench
from .controls import fingerprint
from .gpu_check import write
from .step_cost import ROOT, SEED
from .tool_trainings import Trainings

NOTEBOOKS = ROOT / "notebooks"
FOLDER, RESULTS = NOTEBOOKS / "outputs/tools", NOTEBOOKS / "results/tools.json"
SEEDS = 3
STAGES = ("base", "SFT", "GRPO", "more SFT", "Busy")
PARTS = ("calls", "solutions", "ordinary", "SFT", "GRPO", "more SFT", "Busy")  # rows shown, of three kinds; steps, as multiples of the chapter's settings
PLANS = [(0, 0, 0, 0, 1), (200, 0, 0, 1, 1), (50, 0, 0, 1, 1), (0, 200, 0, 1, 0), (200, 0, 200, 2, 2), (50, 0, 0, 1, 2), (50, 0, 0, 0.28, 0)]
MORE, BUSY = 400, 24  # steps: SFT on the same rows once more, and practice with the busy calculator; each from the adapter after SFT
FURTHER = [((200, 0, 200, 2, 0, MORE, BUSY), SEED + 1), ((200, 0, 200, 2, 0, MORE, BUSY), SEED + 2),  # (plan, seed)
           ((200, 0, 200, 2, 0, MORE, 0), SEED),  # the chapter itself practises with Busy from the first seed
           *[((0, 0, 200, 2, 0, 0, 0), seed) for seed in range(SEED, SEED + SEEDS)]]


def fingerprint_of(settings):
    """The first digits of a hash of a dict."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def jobs_of(settings, kind):
    """What identifies each training: PARTS (the two last as steps), "seed", and `kind`. `settings`: {"SFT": keywords, "GRPO": keywords}."""
    found = []
    for plan, seed in [(plan, seed) for seed in range(SEED, SEED + SEEDS) for plan in PLANS] + FURTHER:
        job = dict(zip(PARTS, plan))
        steps = {name: round(job[name] * settings[name]["max_steps"]) for name in ("SFT", "GRPO")}
        found.append(job | steps | {"seed": seed} | kind)
    return found


def name_of(job):
    """What a training shows and how long it practises, as text."""
    return ", ".join(f"{job[name]} {name}" for name in PARTS if job.get(name))


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
