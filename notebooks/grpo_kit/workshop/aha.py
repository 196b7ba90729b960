"""When does a model begin to think first, and when is it right? The trainings that chapter 11 compares: `python -m grpo_kit.workshop.aha`.

Trainings of all parameters, some at a lower rate, over more steps or with a KL term, and of an adapter, as many of each as SEEDS
says. What is trained, asked and measured is written once, in the chapter: the cells of the notebook with the tag "training" are
run here, in their order, and then its `train` and `measured`. On the way each training asks its policy the same questions every
few steps; at the end every question of the test set.

Expected of six more (long and slow to four seeds, and one kl), written before they run: (1) in each pair of one seed slow is
right more often than long with the reply begun, sampled, by 4 points or more, and over the four seeds by 8 on average; (2) begun,
long falls 10 points or more below the base while working rises, and half of that comes back by the last step; (3) kl loses less
than the 17.0 points of full 3407 and more than the 4.0 of slow 3407; (4) each flips greedily where the mean probabilities of the
two likeliest first tokens cross, both between 0.35 and 0.55.

It may be killed at any moment: a training goes on from its checkpoint, a finished one is a line of
notebooks/outputs/11_aha_full_finetune/trainings.jsonl. At the end notebooks/results/aha.json is written whole.
"""

import argparse
import datetime
import importlib.metadata as metadata
import json
import os

from . import bench, cells
from .controls import NOTEBOOKS, fingerprint
from .gpu_check import write
from .step_cost import ROOT, SEED

NOTEBOOK, TAG = NOTEBOOKS / "11_aha_full_finetune.ipynb", "training"
LINES, RESULTS = NOTEBOOKS / "outputs/11_aha_full_finetune/trainings.jsonl", NOTEBOOKS / "results/aha.json"
SEEDS = {"none": 1, "full": 5, "slow": 4, "long": 4, "kl": 1, "lora": 2}  # trainings, from SEED upwards; "none" is the untrained model
VARIED = {"slow": {"rate": 1e-4, "steps": 96},  # "full" with a third of the rate and three times the steps
          "long": {"steps": 96},  # and with three times the steps alone
          "kl": {"beta": 0.04}}  # with the weight of the KL term that the first paper on GRPO gives it
FIRST, BEGINNINGS = ["The", "<reasoning>", "other"], ["The", "<reasoning>"]  # of a reply: its first token's probabilities, its first word
KEPT_REPLIES = 3  # of a trained model, to the first of the watched questions


def digits(bools):
    """Bools as a str, a digit each."""
    return "".join("01"[bool(value)] for value in bools)


def openings(moments):
    """How the replies to the watched questions begin, at each moment: counts {way: {word: a list}}, and mean probabilities where they were logged."""
    counts = {way: {word: [sum(answer["text"].startswith(word) for answer in line["answers"][way]) for line in moments] for word in BEGINNINGS}
              for way in ("sampled", "greedy")}
    told = [line["answers"]["greedy"] for line in moments]
    first = {word: [round(sum(answer[word] for answer in answers) / len(answers), 4) for answers in told] for word in FIRST if word in told[0][0]}
    return {"begins": counts} | ({"first": first} if first else {})


def asked(names, runs):
    """What is kept of a model's answers, {way: Evaluation}: shares in %, the mean length in tokens, and who was right, a digit a question."""
    kept = {}
    for way, run in runs.items():
        shares = {measure: round(100 * float(run.rows[measure].mean()), 2) for measure in ("layout", "strict", "lenient")}
        shares["working"] = round(100 * sum(names["works_first"](list(run.rows["text"]))) / len(run.rows), 2)
        kept[way] = shares | {"tokens": round(float(run.rows["length"].mean()), 2), "right": digits(run.rows["lenient"])}
    return kept


def record(names, method, seed):
    """Trains and asks, where that was not done: what is kept of one training, a dict for JSON; of the base ("none") its answers and losses."""
    from grpo_kit.training.resume import read_log

    if method == "none":  # the cells have loaded it
        model, tokenizer = names["model"].eval(), names["tokenizer"]
        losses = {name: round(names["nats"](model, tokenizer, pairs), 4) for name, pairs in names["KEPT"].items()}
        return {"after": asked(names, names["ask_all"](model)), "losses": losses}
    folder = names["train"]("full" if method in VARIED else method, seed, **VARIED.get(method, {}))
    (runs, losses), curves = names["measured"](folder), names["curves"](folder)
    lines = read_log(folder / "log.jsonl")
    logs, answers = ([line for line in lines if key in line] for key in ("reward", "answers"))
    measures, ways = names["MEASURES_SEEN"], list(answers[0]["answers"])
    return {"cost": json.loads((folder / "model/cost.json").read_text()), "learning_rate": logs[-1]["learning_rate"],
            "reward": [round(line["reward"], 4) for line in logs], "seconds": [round(line["step_time"], 2) for line in logs],
            "moments": [int(step) for step in curves.index],
            "curves": {way: {measure: curves[way, measure].round(4).tolist() for measure in measures} for way in ways},
            # a digit a watched question, a string a moment; and what it wrote at the last one
            "seen": {way: {measure: [digits(answer[measures[measure]] for answer in line["answers"][way]) for line in answers]
                           for measure in ("working", "right")} for way in ways},
            "replies": {way: [answer["text"] for answer in answers[-1]["answers"][way][:KEPT_REPLIES]] for way in ways},
            **openings(answers), "after": asked(names, runs), "losses": {name: round(loss, 4) for name, loss in losses.items()}}


def table(trainings):
    """What the trained models answer to the test set: a line for each training, in % of the questions."""
    lines = [f"{'':10}" + "".join(f"{way + ', ' + measure:>18}" for way in ("sampled", "greedy") for measure in ("working", "right"))]
    for one in trainings:
        cells = [one["after"][way][measure] for way in ("sampled", "greedy") for measure in ("working", "lenient")]
        lines.append(f"{one['method']} {one['seed']:5}" + "".join(f"{cell:18.1f}" for cell in cells))
    return "\n".join(lines)


def main():
    argparse.ArgumentParser(prog="python -m grpo_kit.workshop.aha", description=__doc__.splitlines()[0]).parse_args()
    from grpo_kit import FastLanguageModel  # noqa: F401  before trl and transformers

    from grpo_kit.training.resume import only_one, read_log
    from .laptop import ask_left

    os.chdir(NOTEBOOKS)  # the profile names its folders from there
    with only_one(LINES.parent):
        names = cells.run(NOTEBOOK, TAG)
        profile = names["profile"]
        kind = {"model": fingerprint(profile.model), "steps": profile.max_steps, "rate": profile.learning_rate}
        jobs = []
        for method, count in SEEDS.items():
            jobs += [{"method": method, "seed": SEED + number} | kind | VARIED.get(method, {}) for number in range(count)]
        ask_left(LINES, sorted(jobs, key=lambda job: (job["method"] == "kl", job["seed"])), lambda job: record(names, job["method"], job["seed"]))
    trainings = [next(line for line in read_log(LINES) if job.items() <= line.items()) for job in jobs]
    write(RESULTS, {"machine": bench.machine(), "date": datetime.date.today().isoformat(), "command": "python -m grpo_kit.workshop.aha",
                    "versions": {name: metadata.version(name) for name in bench.PACKAGES}, **kind,
                    "watched": [int(number) for number in names["drawn"]], "trainings": trainings})
    print(f"\n{table(trainings)}\n\nsaved as {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
