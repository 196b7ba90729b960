"""The result file of a sweep (chapter 12) as a table with a row for each training, and the choice of rows from it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

LINE_BEGINS = ["stage", "method", "updates", "rate", "seed", "reward", "data"]  # that a line begins with
SAMPLED = ["strict", "lenient", "layout", "writes steps", "tokens"]  # of the sampled answers; tokens is a mean length, the rest are in %


def read_sweep(path):
    """The trainings in a file of `make variants`: a DataFrame, a row each, with the columns LINE_BEGINS and then

    - SAMPLED, and "greedy strict" and "greedy lenient": means over the test sets; missing where none was asked;
    - "curve": an array, the right and paid completions of each generation in %; "end": its mean over the last quarter;
    - "clipped": in % of the tokens; "cpu seconds", "machine", "date".

    The line with the difficulty of the questions is no training, and is left out. Raises OSError or ValueError for a file that is none.
    """
    rows = []
    for text in Path(path).read_text("utf-8").splitlines():
        line = json.loads(text)
        if line["stage"] == "difficulty":
            continue
        row = {name: line.get(name) for name in [*LINE_BEGINS, "cpu seconds", "machine", "date"]}
        if asked := line.get("results"):
            row |= {name: np.mean([found["sampled"][name] for found in asked.values()]) for name in SAMPLED}
            row |= {f"greedy {name}": np.mean([found["greedy"][name] for found in asked.values()]) for name in ("strict", "lenient")}
        if "curve" in line:
            row["curve"] = 100 * np.array(line["curve"]["strict"])
            row["end"] = row["curve"][-max(1, len(row["curve"]) // 4) :].mean()
            row["clipped"] = 100 * line["clipped"]
        rows.append(row)
    return pd.DataFrame(rows)


def choose(runs, **wanted):
    """The rows of `read_sweep` whose settings are those `wanted`, by seed; LookupError where there is none.

    >>> choose(runs, stage="main", method="GRPO", updates=1)["strict"]
    """
    found = runs[(runs[list(wanted)] == pd.Series(wanted)).all(axis=1)].set_index("seed").sort_index()
    if found.empty:
        raise LookupError(f"The file holds no training with {wanted}: `make variants` goes on with those that are missing.")
    return found
