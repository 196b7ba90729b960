"""The pictures of chapter 09: a prefix in one head, two adapters' losses, where heads look, and what trainings solve."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.ticker import LogLocator

from grpo_kit.measure.score import wilson_shares
from .style import BLUE, GREY, ORANGE, STYLE, readable

ADAPTER_COLORS = {"small LoRA": ORANGE, "plain prefix": BLUE}


def _of(name):
    return next((color for kind, color in ADAPTER_COLORS.items() if name.startswith(kind)), BLUE if "prefix" in name else GREY)


@readable
def plot_mixing(without, prefixed, among_text):
    """A head's attention without a prefix, with one, and the text's part of the latter, scaled up: a Figure.

    Arrays (tokens, keys) of weights; the prefix's keys are the first of `prefixed`. Behind each of its rows stands the prefix's share.
    """
    tables = [np.asarray(table) for table in (without, prefixed, among_text)]
    tokens, virtual = len(tables[0]), tables[1].shape[1] - tables[0].shape[1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), width_ratios=[tokens, virtual + tokens, tokens])
        titles = ["without a prefix", f"with {virtual} virtual tokens; λ: their share", "the text's part / (1 - λ)"]
        for axis, title, table in zip(axes, titles, tables):
            image = axis.imshow(table, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto")
            axis.grid(False)
            axis.set(title=title, yticks=range(tokens), yticklabels=range(1, tokens + 1), xticks=range(tokens), xticklabels=range(1, tokens + 1))
        axes[0].set_ylabel("token")
        axes[1].axvline(virtual - 0.5, color=ORANGE, linewidth=2)
        for token, share in enumerate(tables[1][:, :virtual].sum(axis=1)):
            axes[1].text(virtual + tokens - 0.3, token, f"λ = {share:.2f}", va="center", fontsize=9, color=ORANGE)
        axes[1].set(xticks=[virtual / 2 - 0.5, virtual + tokens / 2 - 0.5], xticklabels=["the prefix's keys", "the text's"])
        axes[1].set_xlim(-0.5, virtual + tokens + 3.2)
        figure.colorbar(image, label="attention", ticks=[0, 0.1, 0.3, 0.6, 1])
        figure.suptitle("A prefix dims what a token reads of the text, all of it alike", x=0.01, ha="left", fontsize=12)
    plt.close(figure)
    return figure


@readable
def plot_losses(curves, title):
    """Validation losses against the step on a logarithmic scale, a panel a job: a Figure. `curves`: {(job, kind): Series by step}."""
    jobs = list(dict.fromkeys(job for job, _ in curves))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(jobs), figsize=(5 * len(jobs), 3.4), squeeze=False)
        for axis, name in zip(axes[0], jobs):
            ends = []
            for (job, kind), curve in curves.items():
                if job == name:
                    axis.plot(curve, "o-", color=_of(kind), markersize=4)
                    ends.append((curve.iloc[-1], f"  {kind} {curve.iloc[-1]:.3f}", curve.index[-1], _of(kind)))
            for place, (end, text, step, color) in enumerate(sorted(ends)):  # the lower name below its end, so that the two stay apart
                axis.text(step, end, text, color=color, va="bottom" if place else "top")
            axis.set(title=name, xlabel="step", yscale="log", xlim=(None, 1.55 * max(end[2] for end in ends)))
            axis.set_ylim(bottom=0.6 * min(end[0] for end in ends))
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        axes[0, 0].set_ylabel("validation loss, nats per token")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    plt.close(figure)
    return figure


@readable
def plot_heads(shares, title):
    """A share for every head of every layer, a panel a model, that of the most moved head in a frame: a Figure.

    `shares`: {model's name: array (layers, heads) of shares}; the moved head is the one in which the last differs most from the first.
    """
    tables = {name: 100 * np.asarray(table) for name, table in shares.items()}
    first, *_, last = tables.values()
    layer, head = np.unravel_index(np.abs(last - first).argmax(), last.shape)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(tables), figsize=(3 * len(tables), 2.9), sharey=True)
        for axis, (name, table) in zip(axes, tables.items()):
            depth, width = table.shape
            image = axis.imshow(table, cmap="Blues", vmin=0, vmax=100, aspect="auto")
            if table.size <= 64:  # room for the numbers
                for (row, column), share in np.ndenumerate(table):
                    axis.text(column, row, f"{share:.0f}", ha="center", va="center", color="white" if share > 50 else "black")
                axis.set(xticks=range(width), xticklabels=range(1, width + 1), yticks=range(depth), yticklabels=range(1, depth + 1))
            axis.add_patch(plt.Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False))
            axis.grid(False)
            axis.set(xlabel="head", title=name)
        axes[0].set_ylabel("layer")
        figure.colorbar(image, label="%")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    plt.close(figure)
    return figure


@readable
def plot_solved(found, questions, title):
    """Each training a dot, a panel for each way of asking with the rows that were asked so, and its own axis: a Figure.

    `found`: {row: {panel: [counts of questions, one a training]}}. A grey line is the first training's 95 % interval over the questions;
    the counts stand above the dots.
    """
    panels = list(dict.fromkeys(panel for counts in found.values() for panel in counts))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 0.75 * len(found) + 1.4), squeeze=False)
        for axis, panel in zip(axes[0], panels):
            rows = {name: counts[panel] for name, counts in found.items() if counts.get(panel)}
            for height, (name, values) in enumerate(rows.items()):
                low, high = wilson_shares(pd.DataFrame({"right": np.arange(questions) < values[0]}))[["low", "high"]].iloc[0] * questions / 100
                axis.plot([low, high], [height, height], color=GREY, linewidth=2, solid_capstyle="butt", marker="|", markersize=10)
                lifted = height + 0.14 * (np.arange(len(values)) - (len(values) - 1) / 2)  # equal counts stay apart
                axis.plot(values, lifted, "o", color=_of(name), markersize=6)
                axis.text(np.mean([low, high]), height - 0.28, ", ".join(map(str, values)), ha="center", va="bottom", color=_of(name))
            axis.set(title=panel, ylim=(len(rows) - 0.5, -0.7), xlabel=f"of {questions} problems; the axis does not begin at 0")
            axis.set_yticks(range(len(rows)), list(rows))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    plt.close(figure)
    return figure
