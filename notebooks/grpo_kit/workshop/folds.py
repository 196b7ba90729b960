"""What does chapter 08's training teach? It trains on two thirds of its rows; here are the trainings of the other two folds.

    PYTHONPATH=notebooks .venv/bin/python -m grpo_kit.workshop.folds

Nothing is written twice: the notebook's cells tagged "folds" are run here as they stand, once for each FOLD that the chapter itself
does not run. Together the three test each of the 180 rows once. A finished fold is a file of notebooks/outputs/folds/, written
whole, and not run again while those cells and the model stay the same. Killed, it goes on when it is called again. At the end
notebooks/results/folds.json is written whole.

Expected, written down before the first run (2026-11-28), over all 180 rows:
1. the trained model opens as the row more often than with three shots, and more often than the table of first words;
2. it is right on more of the questions with one answer than the untouched model (each corrected p below 0.05);
3. it agrees with the rows' yes or no about as often as a reply that always says No;
4. in the chapter's own training the number of facts right changes by less than five of a hundred, while ten or more go each way;
5. the strength chosen is 0.5 in at least two folds, and loses at most five points of openings and of right answers;
6. the best step lies between 25 and 50 in every fold.
"""

import argparse
import datetime
import gc
import importlib.metadata as metadata
import os

from . import bench, cells
from .controls import NOTEBOOKS, fingerprint
from .gpu_check import write
from .prices import PACKAGES, code_hash, finished, train_left
from .step_cost import ROOT

CHAPTER, TAG = NOTEBOOKS / "08_sft_lora.ipynb", "folds"
FOLDER, RESULTS = NOTEBOOKS / "outputs/folds", NOTEBOOKS / "results/folds.json"
FOLDS = [1, 2]  # the chapter runs 0


def kind():
    """What a stored fold depends on: a hash of the cells that it ran, and the model's fingerprint."""
    from grpo_kit.machine.profile import PROFILES

    code = code_hash(source for _, source in cells.tagged(CHAPTER, TAG))
    return {"code": code, "model": fingerprint(PROFILES["laptop"].model)}


def record(names):
    """What is kept of one fold, from what the chapter's cells defined: losses, the chosen strength, every reply. A dict for JSON."""
    curves = {name: {int(step): round(float(loss), 4) for step, loss in names[name].items()} for name in ("training_loss", "validation_loss")}
    return {"fold": names["FOLD"], "best": names["best_step"], "steps": names["last_step"], **curves, "weaker": names["weaker"],
            "losses": {str(strength): round(loss, 4) for strength, loss in names["losses"].items()},
            "instructions": [row["instruction"] for row in names["test"]], "answers": names["answers"], "opened": names["opened"],
            "after": f"best at step {names['best_step']}, strength {names['weaker']}"}


def run(fold):
    """Trains and asks one fold: its `record`. The cells of the chapter print as they do there."""
    os.environ["FOLD"] = str(fold)
    names = cells.run(CHAPTER, TAG)
    kept = record(names)
    names.clear()
    gc.collect()  # the next fold loads the model anew
    return kept


def main():
    argparse.ArgumentParser(prog="python -m grpo_kit.workshop.folds", description=__doc__.splitlines()[0]).parse_args()
    os.environ |= {"GRPO_PROFILE": "laptop", "GRPO_DATA": "embedded"}
    os.chdir(NOTEBOOKS)  # the cells name their folders from there
    from grpo_kit.model.small_real_model import small_real_model

    small_real_model()
    this = kind()
    train_left([("fold", fold) for fold in FOLDS], FOLDER, this, lambda _, fold: run(fold))
    runs = [finished(FOLDER / f"fold_{fold}.json", this) for fold in FOLDS]
    if None in runs:
        return print(f"{runs.count(None)} folds are left, in other processes or none: the same command goes on.")
    write(RESULTS, {"machine": bench.machine(), "date": datetime.date.today().isoformat(), "command": "python -m grpo_kit.workshop.folds",
                    "versions": {name: metadata.version(name) for name in PACKAGES}, **this,
                    "folds": [{name: one[name] for name in one if name not in this and name != "after"} for one in runs]})
    print(f"\nsaved as {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
