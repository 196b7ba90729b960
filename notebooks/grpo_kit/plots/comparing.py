"""The pictures of chapters 06 and 07: the base beside the adapter."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from grpo_kit.measure.score import wilson_shares
from .style import BLUE, GREY, ORANGE, STYLE, readable


MODELS = {"base": GREY, "adapter": BLUE}


def _panels(count, height, width=4.5, **options):
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), sharey=True, squeeze=False, **options)
    plt.close(figure)
    return figure, axes[0]


def _dots(axis, places, table, name):
    """Dots with intervals, joined; `table` has the columns value, low and high, in %."""
    reach = [table["value"] - table["low"], table["high"] - table["value"]]
    axis.errorbar(places, table["value"], yerr=reach, fmt="o-", color=MODELS[name], linewidth=1, elinewidth=2)
    axis.annotate(name, (places[-1], table["value"].iloc[-1]), xytext=(8, 0), textcoords="offset points",
                  color=MODELS[name], weight="bold", va="top" if name == "base" else "bottom")


@readable
def plot_answers(answers, gold, title):
    """Numbers that were given to one question, a box each, blue where it is `gold`, hollow where there was none: a Figure.

    `answers`: {model's name: its numbers, None where a completion held none}.
    """
    with plt.rc_context(STYLE):
        figure, [axis] = _panels(1, 1.7, width=9)
        for height, numbers in enumerate(answers.values()):
            for place, number in enumerate(numbers):
                fill = BLUE if number == gold else "white" if number is None else "#e8e8e8"
                axis.add_patch(plt.Rectangle((place + 0.05, height + 0.1), 0.9, 0.8, facecolor=fill, edgecolor="#e8e8e8"))
                text, color = "" if number is None else f"{float(number):.6g}", "white" if number == gold else "#444444"
                axis.text(place + 0.5, height + 0.5, text, ha="center", va="center", color=color, fontsize=9)
        names = [f"{name}, {numbers.count(gold)} right" for name, numbers in answers.items()]
        axis.set(xlim=(0, max(map(len, answers.values()))), ylim=(len(answers), 0), title=title, xticks=[])
        axis.set_yticks(np.arange(len(names)) + 0.5, names)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.grid(visible=False)
    return figure


def _apart(height, count):
    """Heights about one row for `count` dots; the first on it."""
    return height + 0.12 * np.array([(-1) ** number * -(-number // 2) for number in range(count)])


@readable
def plot_trainings(found, questions, xlabel="right last number, % of the questions", first_is="the first", joined=()):
    """Each training a dot, the first in a ring with its interval over questions, a panel for each way of asking: a Figure.

    `found`: {(way, reward): a share in % for each training}; each is of `questions` questions. A line goes through the first reward's.
    `first_is`: what the legend calls the first; `joined`: pairs of rewards whose trainings, seed by seed, a line joins.
    """
    ways, rewards = (list(dict.fromkeys(names)) for names in zip(*found))
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(ways), 3.6)
        for axis, way in zip(axes, ways):
            for height, reward in enumerate(rewards):
                shares = found[way, reward]
                first = pd.DataFrame({"first": np.arange(questions) < round(shares[0] / 100 * questions)})
                axis.plot(wilson_shares(first)[["low", "high"]].iloc[0], [height] * 2, color=GREY, linewidth=3, alpha=0.6, label=f"95 %, over {questions} questions, of the first training")
                places = _apart(height, len(shares))
                axis.plot(shares, places, "o", color=ORANGE, markersize=5, label="a training")
                axis.plot(shares[:1], places[:1], "o", color="none", markeredgecolor="black", markersize=9, label=first_is)
            for pair in joined:
                heights = [_apart(rewards.index(reward), len(found[way, reward])) for reward in pair]
                for ends, rows in zip(zip(*(found[way, reward] for reward in pair)), zip(*heights)):
                    axis.plot(ends, rows, color=ORANGE, linewidth=1, alpha=0.6, zorder=1)
            axis.axvline(found[way, rewards[0]][0], color=GREY, linestyle=":", label=rewards[0])  # the model that was not trained
            axis.set(title=way, xlim=(-2, 102), ylim=(len(rewards) - 0.5, -0.5), xlabel=xlabel)
            axis.set_yticks(range(len(rewards)), rewards)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles[:3] + handles[-1:], labels[:3] + labels[-1:], loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


@readable
def plot_by_steps(panels, fewest=10):
    """Right last numbers against the steps of the gold solution, with 95 % intervals: a Figure.

    `panels`: {title: (`Evaluation` of the base, of the adapter, steps of each question)}. Groups of fewer than `fewest`
    questions are left out: their intervals would fill the picture.
    """
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(panels), 3.3)
        for axis, (title, (base, adapter, steps)) in zip(axes, panels.items()):
            counts = {step: count for step, count in pd.Series(steps).value_counts().sort_index().items() if count >= fewest}
            for run, name, shift in [(base, "base", -0.08), (adapter, "adapter", 0.08)]:
                groups = [replace(run, rows=run.rows[np.equal(steps, step)]).summary().loc["lenient"] for step in counts]
                _dots(axis, np.array(list(counts)) + shift, pd.DataFrame(groups), name)
            axis.set(title=title, ylim=(-9, 112), yticks=range(0, 101, 20), xlim=(min(counts) - 0.4, max(counts) + 0.9))
            axis.set_xticks(list(counts), [f"{step}\n({count})" for step, count in counts.items()])
            axis.set_xlabel("steps in the gold solution (questions)")
        axes[0].set_ylabel("right, lenient, % of the questions")
    return figure


@readable
def plot_temperatures(runs, temperatures):
    """Shares that are right, leniently, and that hold a calculation, against the temperature, with 95 % intervals: a Figure.

    `runs`: {(model's name, temperature): `Evaluation`}.
    """
    count = len(runs["base", temperatures[0]].rows)
    with plt.rc_context(STYLE):
        figure, axes = _panels(2, 3.4)
        for axis, title in zip(axes, ["right, lenient", "writes a calculation"]):
            for name, shift in [("base", -0.01), ("adapter", 0.01)]:
                rows = {one: runs[name, one].rows for one in temperatures}
                hits = {one: row["lenient"] if axis is axes[0] else row["text"].str.contains("=") for one, row in rows.items()}
                _dots(axis, np.array(temperatures) + shift, wilson_shares(pd.DataFrame(hits)), name)
            axis.set(title=title, xlabel="temperature (0: greedy)", xticks=temperatures)
            axis.set(xlim=(-0.07, max(temperatures) * 1.35), ylim=(-9, 112), yticks=range(0, 101, 20))
        axes[0].set_ylabel(f"% of {count} questions")
    return figure


@readable
def plot_curves(panels, lucky, ylabel):
    """Curves over k with their bands: a Figure.

    `panels`: {title: {model's name: array (k, 3) of mean, low, high in %}}; `lucky`: {model's name: means in %}, dotted.
    """
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(panels), 3.8)
        for axis, (title, curves) in zip(axes, panels.items()):
            for name, curve in curves.items():
                mean, low, high = np.array(curve).T
                ks = np.arange(1, len(mean) + 1)
                axis.fill_between(ks, low, high, color=MODELS[name], alpha=0.2, linewidth=0)
                axis.plot(ks, mean, "o-", color=MODELS[name], markersize=4)
                axis.text(len(ks) + 0.5, mean[-1], name, color=MODELS[name], weight="bold", va="top" if name == "base" else "bottom")
            ticks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= len(ks)]
            axis.set(title=title, xlabel="k, completions to each question", xticks=ticks, xlim=(0.5, len(ks) * 1.3), ylim=(0, 112), yticks=range(0, 101, 20))
        for name, means in lucky.items():
            axes[0].plot(np.arange(1, len(means) + 1), means, ":", color=MODELS[name])
        axes[0].set_ylabel(ylabel)
    return figure


@readable
def plot_formats(formats):
    """Exported forms of one model, a row each: a Figure.

    `formats`: DataFrame indexed by the forms' names, with MB, strict, low and high (in %), and nats (extra ones a token, or NaN).
    """
    with plt.rc_context(STYLE):
        figure, axes = _panels(3, 3.4, width=3.6)
        for place, form in enumerate(formats.itertuples()):
            color = BLUE if form.Index.startswith("GGUF") else GREY
            axes[1].errorbar(form.strict, place, xerr=[[form.strict - form.low], [form.high - form.strict]], fmt="o", color=color, capsize=3)
            for axis, number, text in [(axes[0], form.MB, f" {form.MB:,.1f}"), (axes[2], 1000 * form.nats, f" {1000 * form.nats:.2f}")]:
                if number == number:  # not NaN
                    axis.barh(place, number, color=color, height=0.6)
                    axis.text(number, place, text, va="center", color=color)
        for axis, title in zip(axes, ["size, MB", "strict, %, 95 % interval", "extra surprise, 0.001 nats a token"]):
            low, high = axis.get_xlim()  # below 0 where noise in 16 bits has made a surprise smaller
            ends = (10 * (formats["low"].min() // 10), 100) if axis is axes[1] else (min(0, 1.35 * low), 1.35 * high)
            axis.set(title=title, xlim=ends)
            axis.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(formats)), formats.index)
        axes[0].invert_yaxis()
    return figure
