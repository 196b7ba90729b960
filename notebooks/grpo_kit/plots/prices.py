"""Chapter 10's stored trainings: a row for each price list and seed, and the picture of them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .style import GREY, STYLE, readable

LAST = 5  # steps whose mean reward stands for the end of a training
LOW = 50  # %: a dot below it is named by its seed
LOST = 20  # %: below it the layout counts as lost
APART = 6  # %: between two names


def price_runs(runs):
    """A DataFrame with a row for each stored training, by (price, seed).

    `runs`: dicts as `make prices` stores them. Columns: `reward` (points, the mean of the last five steps), and in % of the test
    questions, asked greedily: `right` (the last number), `layout` (kept), `doubled` (a second `<reasoning>`), `unopened` (none; NaN
    for both where they were not counted); `reply`: of the stored greedy replies the first that has not one `<reasoning>`, else the first
    of all; empty where none was kept.
    """
    rows = {}
    for run in runs:
        replies = run.get("replies", {}).get("greedy", [""])
        rows[run["price"], run["seed"]] = {
            "reward": np.mean(run["curves"]["reward"][-LAST:]),
            "right": run["after"]["lenient, greedy"],
            "layout": run["after"]["layout, greedy"],
            "doubled": run.get("second reasoning", {}).get("greedy", np.nan),
            "unopened": run.get("no opening tag", {}).get("greedy", np.nan),
            "reply": next((text for text in replies if text.count("<reasoning>") != 1), replies[0]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def price_summary(runs):
    """A DataFrame of texts with a row for each price list of `price_runs`: means over the seeds, with the lowest and the highest."""
    rows = {}
    for price, each in runs.groupby(level=0, sort=False):
        rows[price] = {key: f"{each[key].mean():.1f} ({each[key].min():.1f} to {each[key].max():.1f})" for key in ("reward", "right", "layout")}
        rows[price]["layout lost"] = f"{(each['layout'] < LOST).sum()} of {len(each)} seeds"
    return pd.DataFrame.from_dict(rows, orient="index")


@readable
def plot_reward_and_right(logs, colors, titles):
    """Two panels, the reward and being right (in %) by training step, a curve for each of `logs`: a Figure.

    `logs`: {price: the trainer's log entries with a reward}; `colors`: {price: colour}; `titles`: the panels' titles. A point is
    the mean of the last five steps; a curve carries its name.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
        plt.close(figure)
        for axis, key, factor, title in zip(axes, ("reward", "rewards/lenient_accuracy/mean"), (1, 100), titles):
            for price, steps in logs.items():
                curve = factor * pd.Series([step[key] for step in steps], index=range(1, len(steps) + 1)).rolling(LAST, min_periods=1).mean()
                axis.plot(curve, color=colors.get(price, GREY), lw=2.5)
                offset = (5, 7) if price == next(iter(logs)) and key == "reward" else (5, -5 if key == "reward" else 0)  # ends may meet
                axis.annotate(price, (len(steps), curve.iloc[-1]), offset, textcoords="offset points", va="center", color=colors.get(price, GREY))
            axis.set(title=title, xlabel=f"training step (mean of the last {LAST})", ylim=(0, None), xlim=(0, 1.4 * len(steps)))
    return figure


@readable
def plot_price_runs(table, colors, titles):
    """A panel for each column of `titles` ({column: title}), a dot for each training, in the place of its price list: a Figure.

    `table` as `price_runs` gives it; `colors`: {price: colour}, in the order of the places. A grey line joins the trainings of one
    seed; a bar is the median over the seeds; a dot below 50 % carries its seed.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(titles), figsize=(5.2 * len(titles), 3.8), sharey=True, squeeze=False)
        plt.close(figure)
        for axis, (column, title) in zip(axes[0], titles.items()):
            each = table[column].astype(float).unstack(level=0)[list(colors)]  # a row for each seed, a column for each list
            shift = np.linspace(-0.16, 0.16, len(each))[:, None]
            places = np.arange(len(colors)) + shift
            axis.plot(places.T, each.to_numpy().T, "-", color=GREY, alpha=0.3, lw=1)
            for place, (price, color) in enumerate(colors.items()):
                axis.plot(places[:, place], each[price], "o", color=color, ms=6)
                axis.plot([place - 0.25, place + 0.25], [each[price].median()] * 2, color="black", lw=2.5, solid_capstyle="butt")
                height = -APART
                for seed, value in each[price][each[price] < LOW].sort_values().items():
                    height = max(value, height + APART)
                    axis.text(place + 0.22, height, seed, va="center", fontsize=9, color=color)
            axis.set(title=title, xlim=(-0.5, len(colors) - 0.4), ylim=(-4, 104))
            axis.set_xticks(range(len(colors)), list(colors))
            axis.grid(axis="x", visible=False)
        axes[0][0].set(ylabel="% of the test questions, greedy")
    return figure
