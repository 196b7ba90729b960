"""Chapter 10's stored trainings: a row for each price list and seed, and the picture of them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .style import GREY, STYLE, readable

LAST = 5  # steps whose mean reward stands for the end of a training


def price_runs(runs):
    """A DataFrame with a row for each stored training, by (price, seed).

    `runs`: dicts as `make prices` stores them. Columns: `reward` (points, the mean of the last five steps), and in % of the test
    questions, asked greedily: `right` (the last number), `layout` (kept), `doubled` (a second `<reasoning>`), `unopened` (none; NaN
    for both where they were not counted).
    """
    rows = {}
    for run in runs:
        rows[run["price"], run["seed"]] = {
            "reward": np.mean(run["curves"]["reward"][-LAST:]),
            "right": run["after"]["lenient, greedy"],
            "layout": run["after"]["layout, greedy"],
            "doubled": run.get("second reasoning", {}).get("greedy", np.nan),
            "unopened": run.get("no opening tag", {}).get("greedy", np.nan),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


@readable
def plot_reward_and_right(logs, colors, titles):
    """Two panels, the reward and being right (in %) by training step, a curve for each of `logs`: a Figure.

    `logs`: {price: the trainer's log entries with a reward}; `colors`: {price: colour}; `titles`: the panels' titles. A point is
    the mean of the last five steps; a curve carries its name behind the last step, where the axis ends.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
        plt.close(figure)
        for axis, key, factor, title in zip(axes, ("reward", "rewards/lenient_accuracy/mean"), (1, 100), titles):
            for price, steps in logs.items():
                curve = factor * pd.Series([step[key] for step in steps], index=range(1, len(steps) + 1)).rolling(LAST, min_periods=1).mean()
                axis.plot(curve, color=colors.get(price, GREY), lw=2.5, clip_on=False)
                offset = (5, 7) if price == next(iter(logs)) and key == "reward" else (5, -5 if key == "reward" else 0)  # ends may meet
                axis.annotate(price, (len(steps), curve.iloc[-1]), offset, textcoords="offset points", va="center", color=colors.get(price, GREY))
            axis.set(title=title, xlabel=f"training step (mean of the last {LAST})", ylim=(0, None), xlim=(1, len(steps)))
    return figure


@readable
def plot_price_runs(table, colors, titles, start):
    """A panel for each column of `titles` ({column: title}), a row for each seed, a dot for each of its trainings: a Figure.

    `table` as `price_runs` gives it, in %; `colors`: {price: colour}; `start`: {column: the untrained model's figure}, a broken line.
    A seed's dots stand below each other in the order of `colors`.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(titles), figsize=(5.2 * len(titles), 4.4), sharey=True, squeeze=False)
        plt.close(figure)
        for axis, (column, title) in zip(axes[0], titles.items()):
            each = table[column].astype(float).unstack(level=0)[list(colors)]  # a row for each seed, a column for each list
            heights = np.arange(len(each))[:, None] + np.linspace(-0.22, 0.22, len(colors))
            for place, (price, color) in enumerate(colors.items()):
                axis.plot(each[price], heights[:, place], "o", color=color, ms=7, label=price, clip_on=False)
            axis.axvline(start[column], color=GREY, ls="--", lw=1.2)
            axis.text(start[column] + 2, -0.75, "untrained", va="center", fontsize=9, color=GREY)
            axis.set(title=title, xlabel="% of the test questions, greedy", xlim=(-2, 100), ylim=(len(each) - 0.5, -1.1))
            axis.set_yticks(range(len(each)), each.index)
            axis.grid(axis="y", visible=False)
        axes[0][0].set(ylabel="seed")
        handles = axes[0][0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=len(colors), frameon=False, labelcolor="linecolor", handletextpad=0)
    return figure


@readable
def plot_lists(table, column, colors, starts, title):
    """A row for each price list with a dot for each of its seeds, and a bar at their mean: a Figure.

    `table` as `price_runs` gives it, `column` in %; `colors`: {price: colour}, top to bottom; `starts`: {name: %}, a broken line each.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 2.9))
        plt.close(figure)
        for row, (price, color) in enumerate(colors.items()):
            shares = table.loc[price, column].astype(float)
            axis.plot(shares, np.full(len(shares), row), "o", color=color, ms=7, alpha=0.7, clip_on=False)
            axis.plot([shares.mean()] * 2, [row - 0.3, row + 0.3], color=color, lw=2.5, solid_capstyle="butt")
        for name, share in starts.items():
            axis.axvline(share, color=GREY, ls="--", lw=1.2)
            axis.text(share + (1 if share < 50 else -1), -0.75, name, ha="left" if share < 50 else "right", va="center", fontsize=9, color=GREY)
        axis.set(title=title, xlabel=f"{column}, % of the test questions, greedy; a dot: a seed, a bar: their mean", xlim=(-2, 100), ylim=(len(colors) - 0.5, -1.1))
        axis.set_yticks(range(len(colors)), colors)
        axis.grid(axis="y", visible=False)
    return figure
