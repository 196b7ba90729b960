"""What several processes did with their time, what fits on how many cards, and how many should write."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

LIGHT = "#c4c4c4"
WAY_COLORS = {  # what `choose` answers: (its colour, what a GPU then holds)
    "does not fit": ("#ffffff", "does not fit"),
    "QLoRA": ("#f0c987", "QLoRA: a 4-bit base, a copy on each"),
    "DDP": ("#9ecae1", "DDP: everything, and an engine"),
    "FSDP": (BLUE, "FSDP: a share, and an engine"),
    "FSDP + TP": ("#8e6bbf", "FSDP + TP: a share, and a share of an engine"),
    "disaggregated": (GREEN, "disaggregated: a share; the engine elsewhere"),
}
WAYS_TO_SHARE = {  # name: (of each of four GPUs, which quarters of every layer of the states and of the engine it holds; what travels)
    "DDP": ([("0123", "0123")] * 4, "gradients, once a step"),
    "FSDP, ZeRO-3": ([(str(gpu), "0123") for gpu in range(4)], "each layer's weights, when needed; gradients"),
    "FSDP + TP": ([(str(gpu), "01" if gpu % 2 == 0 else "23") for gpu in range(4)], "as FSDP; in the engine, each layer's output"),
    "disaggregated": ([("01", ""), ("23", ""), ("", "0123"), ("", "0123")], "completions; new weights"),
    "disaggregated, asynchronous": ([("01", ""), ("23", ""), ("", "0123"), ("", "0123")], "the same, but both work at once"),
}
TURNS = {"disaggregated": (("", "1", "", "2", ""), ("1", "", "2", "", "3")), "disaggregated, asynchronous": (("", "1", "2", "3", "4"), ("1", "2", "3", "4", "5"))}
PARTS = {"writing completions": BLUE, "training": GREEN, "waiting for the others": LIGHT, "between steps: log, checkpoint": "white"}


@readable
def plot_ways():
    """What each of four GPUs holds of four layers, for each way of `WAYS_TO_SHARE`, and what travels between the GPUs: a Figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), height_ratios=(2.6, 3.7))
        for axis, (name, (gpus, travels)) in zip(axes.flat, WAYS_TO_SHARE.items()):
            for gpu, parts in enumerate(gpus):
                left = 1.25 * gpu
                axis.add_patch(FancyBboxPatch((left, 0), 1, 1.9, boxstyle="round,pad=0.05", facecolor="white", edgecolor=GREY))
                for place, held, color in zip((0.06, 0.55), parts, (GREEN, BLUE)):
                    for layer in range(4):
                        axis.add_patch(Rectangle((left + place, 1.35 - 0.42 * layer), 0.4, 0.34, facecolor="white", edgecolor=GREY, lw=0.8))
                        for quarter in map(int, held):
                            axis.add_patch(Rectangle((left + place + 0.1 * quarter, 1.35 - 0.42 * layer), 0.1, 0.34, facecolor=color, lw=0))
                axis.text(left + 0.5, -0.13, f"GPU {gpu + 1}", ha="center", va="top", fontsize=9)
            for row, (who, turns) in enumerate(zip(("train", "write"), TURNS.get(name, ()))):
                axis.text(-0.1, -0.85 - 0.42 * row, who, ha="right", va="center", fontsize=9)
                for turn, step in enumerate(turns):
                    axis.add_patch(Rectangle((0.98 * turn, -1.02 - 0.42 * row), 0.94, 0.34, facecolor=(GREEN, BLUE)[row] if step else LIGHT, alpha=1 if step else 0.35))
                    axis.text(0.98 * turn + 0.47, -0.86 - 0.42 * row, step and f"step {step}", color="white", ha="center", va="center", fontsize=8)
            axis.set(xlim=(-0.9, 5.5), ylim=(-1.6 if name in TURNS else -0.5, 2.1))
            axis.set_title(f"{name}\n", weight="bold", fontsize=12)
            axis.text(2.4, 2.12, travels, ha="center", va="bottom", fontsize=10, color=GREY)
        for axis in axes.flat:
            axis.axis("off")
        axes[1][2].legend(handles=[Patch(facecolor=GREEN, label="weights, gradients, moments"), Patch(facecolor=BLUE, label="the engine's weights"),
                                   Patch(facecolor="white", edgecolor=GREY, label="a share that this GPU\ndoes not hold")],
                          title="four layers, a box each", frameon=False, loc="center", alignment="left")
    plt.close(figure)
    return figure


@readable
def plot_ranks(lines, waiting):
    """The last steps of every rank on one clock, with the longest completion of each and an arrow at the longest wait: a Figure.

    `lines`: {rank: lines of its diary}; `waiting`: the names of the parts in which a process waits.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 1.5 + 0.95 * len(lines)))
        zero = min(line["began"] for steps in lines.values() for line in steps)
        waits = []
        for row, (rank, steps) in enumerate(lines.items()):
            for line in steps:
                axis.barh(row, line["seconds"], left=line["began"] - zero, height=0.62, color=GREEN)
                gradients = [part for part in line["parts"] if part[0] == "gradients"]
                idle = [part for part in line["parts"] if part[0] in waiting and part[0] != "gradients"]
                waits += [(end - began, (began + end) / 2 - zero, row, rank) for _, began, end, _ in idle]
                if gradients:
                    idle.append(["gradients", max(part[1] for part in gradients), max(part[2] for part in gradients), 0])
                for name, began, end, _ in [part for part in line["parts"] if part[0] == "rollouts"] + idle:
                    axis.barh(row, end - began, left=began - zero, height=0.62, color=BLUE if name == "rollouts" else LIGHT)
                    if name == "rollouts":
                        axis.text((began + end) / 2 - zero, row, f"longest\n{line['longest']} tokens", color="white", fontsize=9, ha="center", va="center")
        for line in next(iter(lines.values())):
            axis.text(line["began"] - zero, -0.36, f"step {line['step']}", fontsize=10, color=GREY, va="bottom")
        if waits:
            seconds, middle, row, rank = max(waits)
            axis.annotate(f"rank {rank} waits {1000 * seconds:.0f} ms", (middle, row + 0.31), (0, -10), textcoords="offset points", ha="center", va="top",
                          fontsize=10, weight="bold", arrowprops={"arrowstyle": "->"}, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axis.set(yticks=range(len(lines)), yticklabels=[f"rank {rank}" for rank in lines], xlabel="seconds", ylim=(len(lines) - 0.35, -0.7))
        axis.grid(axis="y", visible=False)
        figure.legend(handles=[Patch(facecolor=color, edgecolor=GREY, label=name) for name, color in PARTS.items()], frameon=False, ncols=4,
                      loc="outside upper center")
    plt.close(figure)
    return figure


@readable
def plot_choice(panels, columns):
    """A field for each model and number of GPUs, coloured by the way that fits; before them the least number of GPUs, in its way's colour: a Figure.

    `panels`: {title: {model: (the way of each of `columns`, (least number, its way), or None where nothing fits)}}.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), sharex=True, sharey=True)
        places = list(WAY_COLORS)
        for axis, (title, rows) in zip(axes.flat, panels.items(), strict=True):
            ways = [[least[1] if least else "does not fit", *row] for row, least in rows.values()]
            axis.imshow([[places.index(way) for way in row] for row in ways], aspect="auto", vmin=-0.5, vmax=len(WAY_COLORS) - 0.5,
                        cmap=ListedColormap([color for color, _ in WAY_COLORS.values()]))
            axis.set_title(title)
            axis.set_xticks(range(1 + len(columns)), ["least", *columns])
            axis.set_yticks(range(len(rows)), rows)
            axis.set_xticks(np.arange(1 + len(columns)) - 0.5, minor=True)
            axis.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
            axis.grid(which="major", visible=False)
            axis.grid(which="minor", color="white", linewidth=2)
            axis.axvline(0.5, color="white", linewidth=9)
            axis.tick_params(which="both", length=0)
            for row, (fields, (_, least)) in enumerate(zip(ways, rows.values())):
                dark = least and least[1] in ("FSDP", "FSDP + TP", "disaggregated")
                axis.text(0, row, least[0] if least else "none", ha="center", va="center", weight="bold", color="white" if dark else "black")
                for column, way in enumerate(fields[1:], 1):
                    if way == "does not fit":
                        axis.text(column, row, "–", ha="center", va="center", color=GREY)
        figure.supxlabel("GPUs (8 to a host); least: the least number of 1 to 64 that fits", fontsize=11)
        figure.legend(handles=[Patch(facecolor=color, edgecolor=GREY, label=label) for color, label in WAY_COLORS.values()],
                      frameon=False, ncols=2, loc="outside upper center")
    plt.close(figure)
    return figure


@readable
def plot_workers(panels):
    """Seconds of a step against the number of workers that write: a Figure.

    `panels`: {title: (workers, {label: seconds}, (least, most), together)}. A curve's seconds are those for 1, 2, … writers, its best is
    marked; from `least` to `most` the last curve is nearly at its best; `together` is the step in which every worker does both.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.2), squeeze=False)
        for axis, (title, (workers, curves, (least, most), together)) in zip(axes[0], panels.items(), strict=True):
            said = [(f"all, in turns: {together:.1f} s", GREY)]
            for (label, seconds), color in zip(curves.items(), (ORANGE, BLUE), strict=True):
                axis.plot(range(1, workers), seconds, color=color, lw=2, label=label)
                writers = int(np.argmin(seconds)) + 1
                axis.plot(writers, seconds[writers - 1], "o", color=color)
                said.append((f"{label.partition(',')[0]}: {seconds[writers - 1]:.1f} s, {writers} of {workers} writing", color))
            axis.axvspan(least - 0.5, most + 0.5, color=BLUE, alpha=0.2, lw=0, label="one step off: within 5 % of its best")
            axis.axhline(together, color=GREY, ls="--", lw=1.5, label="all do both, in turns")
            for line, (words, color) in enumerate(said):
                axis.text(0.0, 1.03 + 0.068 * (len(said) - 1 - line), words, color=color, fontsize=10, transform=axis.transAxes)
            axis.set(xlabel=f"of {workers} GPUs, so many write", ylim=(0, 2.5 * together), xlim=(0, workers))
            axis.set_title(title, pad=46, weight="bold")
        axes[0][0].set_ylabel("seconds a step")
        figure.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside upper center")
    plt.close(figure)
    return figure
