"""What do the prices of rewards teach? Chapter 10's training from eight seeds for each of its price lists. `make prices`

Expected of *even*, the list added last, when one of its eight seeds (3407) had been seen: (1) greedily its mean share of right last
numbers comes within 5 points of right-first's; (2) it is above layout-first's from at least seven seeds; (3) at most one of its
trainings doubles a tag in more than half of its replies.

Expected of *mended*, which pays all 7 points for being right in the exact layout and nothing for less, when none of its trainings
had been seen: (1) no training loses the opening tag: from every seed at most a tenth of the greedy replies lack it; (2) from at least
seven of eight seeds at least four fifths of the greedy replies keep the layout; (3) greedily its mean share of right last numbers
comes within 5 points of even's; (4) no training doubles a tag in more than two of 200 sampled replies; (5) asked greedily with its
reply begun by `<reasoning>`, the untrained model comes within 5 points of mended's mean share of right last numbers.

Settled before: *stairs* (1 point for the opening tag, 1 for the exact layout, 5 for being right in it) was expected to keep the layout
from seven of eight seeds, and was given up after four: 3408 to 3410 kept it, 3407 learned to write the opening tag and no more. And
3.5 points for the number, 3.5 for the layout and none for the tag kept the layout from 3407 and 3408 and lost the tag from 3409.

Nothing is written twice: the notebook's cells tagged "prices" are run here as they stand, up to `train` and `measure`, and for
the mended recipe those tagged "mended". A finished training is a file of notebooks/outputs/prices/, written whole, and not run
again while those cells and the model stay the same. Killed, it goes on when it is called again; called twice at once, each takes
what the other has not begun. When the last training is there, notebooks/results/prices.json is written whole; with fewer seeds
outputs/prices/prices.json.
"""

import argparse
import ast
import datetime
import hashlib
import importlib.metadata as metadata
import json
import os
import time

import numpy as np

from . import bench, cells
from .controls import NOTEBOOKS, fingerprint
from .gpu_check import write
from .step_cost import ROOT, SEED

CHAPTER, TAG, MENDED = NOTEBOOKS / "10_grpo_without_vllm.ipynb", "prices", "mended"
FOLDER, RESULTS = NOTEBOOKS / "outputs/prices", NOTEBOOKS / "results/prices.json"
LISTS, SEEDS = ["layout-first", "even", "right-first"], 8
MENDED_SEEDS = [3407, 3408, 3409, 3410, 3411, 3412, 3413, 3414]
CURVES = {name: f"rewards/{name}/mean" for name in ("full_pattern", "exact_layout", "right_in_layout", "lenient_accuracy", "apart")} | {"one_kind": "frac_reward_zero_std"}
KEPT = 4  # replies of each way of asking
PACKAGES = ["torch", "transformers", "peft", "trl"]


def code_hash(sources):
    """The first digits of a hash of what the cells compute: comments, docstrings and the way they are set do not change it."""
    dumps = []
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
                del node.body[0]
        dumps.append(ast.dump(tree))
    return hashlib.sha256("\n".join(dumps).encode()).hexdigest()[:12]


def record(names, price, seed, **changes):
    """One training as a dict: its curves in % (`reward` as it is paid), a number a step, what its adapter does with the test set, some replies."""
    trainer = names["train"](price, seed, callbacks=[], report_to="none", **changes)
    steps = [step for step in trainer.state.log_history if "reward" in step]
    curves = {name: [round(100 * float(step[key]), 2) for step in steps] for name, key in CURVES.items() if key in steps[0]}
    curves["reward"] = [round(float(step["reward"]), 3) for step in steps]
    evaluations, paid, twice, unopened = names["measure"](), {}, {}, {}
    for way, evaluation in evaluations.items():
        texts = evaluation.rows["text"]
        paid[way] = round(100 * float(np.mean(names["full_pattern"](texts))), 2)
        twice[way] = round(100 * float((texts.str.count("<reasoning>") > 1).mean()), 2)
        unopened[way] = round(100 * float((~texts.str.contains("<reasoning>")).mean()), 2)
    return {"price": price, "seed": seed, "after": names["shares"](evaluations), "paid": paid, "second reasoning": twice,
            "no opening tag": unopened, "curves": curves,
            "replies": {way: evaluation.rows["text"].head(KEPT).tolist() for way, evaluation in evaluations.items()}}


def finished(file, kind):
    """The training in `file` as a dict, or None where it is not there or of another kind: other cells, another model."""
    run = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return run if run and kind.items() <= run.items() else None


def train_left(jobs, folder, kind, one):
    """Trains each (price, seed) of `jobs` that is neither finished in `folder` nor in training elsewhere; `one(price, seed)` gives its dict."""
    from grpo_kit.training.resume import free_lock, take_lock

    for price, seed in jobs:
        file = folder / f"{price}_{seed}.json"
        if finished(file, kind):
            continue
        try:
            take_lock(folder / file.stem)
        except RuntimeError:
            print(f"{price} {seed} is in training elsewhere", flush=True)
            continue
        try:
            if not finished(file, kind):  # another process may have finished it meanwhile
                began = time.perf_counter()
                run = one(price, seed)
                write(file, kind | run | {"seconds": round(time.perf_counter() - began)})
                print(f"{price} {seed}: {run['after']}", flush=True)
        finally:
            free_lock(folder / file.stem)


def table(runs):
    """Each figure's mean over the seeds for each price list, and its differences from the first list, seed by seed, as text.

    A figure that some training lacks, because it was counted only later, is left out.
    """
    lines = []
    for figure in [name for name in runs[0]["after"] if all(name in run["after"] for run in runs)]:
        values = {price: np.array([run["after"][figure] for run in runs if run["price"] == price]) for price in LISTS}
        lines.append(f"{figure:18} " + "   ".join(f"{price} {each.mean():5.1f} %" for price, each in values.items()))
        for price in LISTS[1:]:
            each = " ".join(f"{difference:+6.1f}" for difference in values[price] - values[LISTS[0]])
            lines.append(f"{'':18} {price} minus {LISTS[0]}: {each}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.prices", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many for each price list, from {SEED} upwards (default {SEEDS}); "
                        "with fewer the result is outputs/prices/prices.json")
    options = parser.parse_args()
    os.chdir(NOTEBOOKS)  # the profile names its folders from there
    names = cells.run(CHAPTER, TAG, MENDED)
    model = fingerprint(names["profile"].model)
    kind, mended_kind = ({"code": code_hash(source for _, source in cells.tagged(CHAPTER, *tags)), "model": model} for tags in ([TAG], [TAG, MENDED]))
    seeds = [SEED + number for number in range(options.seeds)]
    mended_seeds = [seed for seed in MENDED_SEEDS if seed in seeds]
    jobs = [(price, seed) for seed in seeds for price in LISTS]
    train_left(jobs, FOLDER, kind, lambda price, seed: record(names, price, seed))
    train_left([(MENDED, seed) for seed in mended_seeds], FOLDER, mended_kind, lambda price, seed: record(names, price, seed, rewards=names["mended_funcs"]))
    runs = [finished(FOLDER / f"{price}_{seed}.json", kind) for price in LISTS for seed in seeds]
    mended = [finished(FOLDER / f"{MENDED}_{seed}.json", mended_kind) for seed in mended_seeds]
    if left := [*runs, *mended].count(None):
        return print(f"{left} trainings are left, in other processes or none: the same command goes on.")
    print(f"\n{table(runs)}")
    results = RESULTS if options.seeds == SEEDS else FOLDER / RESULTS.name
    names["put_back"](names["model"], names["untrained"])
    machine = names["torch"].cuda.get_device_name() if names["torch"].cuda.is_available() else bench.machine()
    write(results, {"machine": machine, "threads": names["torch"].get_num_threads(), "date": datetime.date.today().isoformat(),
                    "command": "python -m grpo_kit.workshop.prices", "versions": {name: metadata.version(name) for name in PACKAGES},
                    "profile": names["profile"].name, "seeds": seeds, **kind, "prices": names["PRICES"],
                    "questions": len(names["test"]), "untrained": names["shares"](names["measure"]()),
                    "runs": [{name: run[name] for name in run if name not in kind} for run in runs],
                    "mended code": mended_kind["code"], "mended": [{name: run[name] for name in run if name not in kind} for run in mended],
                    "stairs": json.loads(RESULTS.read_text("utf-8"))["stairs"]})  # as it was: the chapter holds its recipe no more
    print(f"\nsaved as {results.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
