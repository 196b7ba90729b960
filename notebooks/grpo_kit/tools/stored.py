"""What `make tools` stored (chapter 13), as tables: a row for each training and stage at which it was asked."""

import json
import re
from pathlib import Path

import pandas as pd

from grpo_kit.measure.statistics import paired_test
from .calls import STOPS, asked_again

ROW_KINDS = {"calls": "calls", "solutions": "worked out", "ordinary": "ordinary"}  # of rows shown
STAGES = {"base": "SFT", "SFT": "SFT", "GRPO": "practice", "more SFT": "more SFT", "Busy": "busy practice"}


def stored(path="results/tools.json"):
    """The stored trainings as a DataFrame, a row for each training and stage; a line of text says where they come from.

    `shown`: the rows of its SFT, as text, "nothing" where there was none; `stage`: "SFT" (where nothing was shown: before any
    training), "practice", "more SFT" or "busy practice"; `steps`: of that stage; `seed`. Then counts in 100 questions (floats):
    `large` and `ordinary` right (strict), `ordinary last` by the last number, `large called`, `ordinary called`, `ordinary refused`
    (a call by the calculator), `copied` (large sums whose conversation holds all numbers of the question; NaN where not kept),
    `another sum`; `large right` and `ordinary digits`: texts, a digit a question, 1 where right; `agree`: the mean share of groups
    that earned the same. With the busy calculator, NaN where it was not asked: `twice`, `same`, `answered`, `busy right`,
    `in the layout`, `cut off`, and texts of digits, `busy digits` (1: right) and `layout digits` (1: in the layout).
    """
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    rows, base = [], next(run["results"]["base"] for run in report["runs"] if "base" in run["results"])
    for run in report["runs"]:
        shown = " + ".join(f"{run[name]} {kind}" for name, kind in ROW_KINDS.items() if run[name]) or "nothing"
        shown += ", few steps" if 0 < run["SFT"] < 250 else ""
        results = run["results"] if run["SFT"] else {"base": base} | run["results"]  # an untrained adapter is the same from every seed
        for stage, asked in results.items():
            practised = stage in ("GRPO", "Busy") and run.get("agree")
            rows.append({"shown": shown, "stage": STAGES[stage], "steps": run.get(stage, 0), "seed": run["seed"],
                         **_counts(asked), "agree": sum(run["agree"]) / len(run["agree"]) if practised else None})
    rows = pd.DataFrame(rows)
    same = ["shown", "stage", "steps", "seed"]  # one SFT may precede several practices: the row that knows most stays
    rows = rows.assign(known=rows.notna().sum(axis=1)).sort_values("known", ascending=False, kind="stable").drop_duplicates(same)
    dates = sorted({run["date"] for run in report["runs"]})
    minutes = sum(run["cpu seconds"] for run in report["runs"]) / 60
    print(f"{len(report['runs'])} trainings by `{report['command']}`, {minutes:.0f} minutes of processor time; {report['machine']}; {' and '.join(dates)}")
    return rows.drop(columns="known").sort_index().sort_values("seed", kind="stable", ignore_index=True)


def _counts(asked):
    """The counts of one stage, from {set: figures}."""
    large, ordinary, busy = asked["large sums"], asked["ordinary"], asked.get("busy")
    found = {"large": large["strict"], "ordinary": ordinary["strict"], "ordinary last": ordinary["lenient"],
             "large called": large["called"], "ordinary called": ordinary["called"],
             "ordinary refused": ordinary.get("refused"), "copied": large.get("copied"),
             "another sum": large.get("ends", {}).get("another sum", 0 if "ends" in large else None), "large right": large["right"],
             "ordinary digits": ordinary["right"]}
    if busy:
        found |= {name: float(busy[name].count("1")) for name in ("twice", "same", "answered")}
        found |= {name: float(busy["stop"].count(str(STOPS.index(name)))) for name in ("in the layout", "cut off")}
        found |= {"busy right": float(busy["right"].count("1")), "busy digits": busy["right"],
                  "layout digits": "".join(str(int(one == str(STOPS.index("in the layout")))) for one in busy["stop"])}
    return found


def asked_here(large, ordinary, busy):
    """Three `Evaluation`s of one adapter, large sums and ordinary problems with the plain calculator and large sums with a busy one,
    as a dict with `stored`'s counts."""
    again = asked_again(busy.rows)
    columns = {"large": large.rows["strict"], "ordinary": ordinary.rows["strict"], **{name: again[name] for name in ("twice", "same", "answered")},
               "busy right": busy.rows["strict"], **{name: busy.rows["stop"] == name for name in ("in the layout", "cut off")}}
    digits = {"large right": "large", "ordinary digits": "ordinary", "busy digits": "busy right", "layout digits": "in the layout"}
    return {name: 100 * float(column.mean()) for name, column in columns.items()} | {
        name: "".join(str(int(one)) for one in columns[column]) for name, column in digits.items()}


def chance(before, after):
    """p of the paired test (McNemar's) between two texts of digits, a digit a question, 1 where right: as text, "<0.001" or "0.035"."""
    p = paired_test(*([one == "1" for one in digits] for digits in (before, after)))[2]
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def each(values):
    """The numbers of several trainings as text, whole, in their order: "48, 53, 38"; - for one that was not kept."""
    return ", ".join("-" if pd.isna(value) else f"{value:.0f}" for value in values)


def told(evaluation, questions, number):
    """A conversation as text: the question, the right number, and each turn, behind a line that says whose it is: [assistant] or [tool]."""
    said = "<|im_start|>assistant\n" + evaluation.rows["conversation"][number]
    said = re.sub(r"<\|im_start\|>(\w+)", r"[\1]", said).replace("<|im_end|>", "")
    return f"{questions[number]['question']}   [{questions[number]['answer']}]\n   " + said.strip().replace("\n", "\n   ")
