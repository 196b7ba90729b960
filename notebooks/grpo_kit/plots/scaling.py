"""What several processes did with their time, what fits on how many cards, and how many should write."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

LIGHT = "#c4c4c4"
WAYS_TO_SHARE = {  # name: (of each of four GPUs, which quarters of the states and of the engine it holds; what travels between them)
    "DDP": ([("0123", "0123")] * 4, "gradients, once a step"),
    "FSDP, ZeRO-3": ([(str(gpu), "0123") for gpu in range(4)], "every layer, when needed; its gradient"),
    "FSDP + TP": ([(str(gpu), "02" if gpu % 2 == 0 else "13") for gpu in range(4)], "as FSDP; in the engine, each layer's output"),
    "HSDP": ([("01" if gpu % 2 == 0 else "23", "0123") for gpu in range(4)], "layers within a host, gradients between hosts"),
    "disaggregated": ([("01", ""), ("23", ""), ("", "0123"), ("", "0123")], "completions; new weights"),
    "disaggregated, asynchronous": ([("01", ""), ("23", ""), ("", "0123"), ("", "0123")], "the same, but both work at once"),
}
TURNS = {"disaggregated": (("", "1", "", "2", ""), ("1", "", "2", "", "3")), "disaggregated, asynchronous": (("", "1", "2", "3", "4"), ("1", "2", "3", "4", "5"))}
PARTS = {"writing completions": BLUE, "training": GREEN, "waiting for the others": LIGHT, "between steps: log, checkpoint": "white"}


@readable
def plot_ways():
    """What each of four GPUs holds, for each way of `WAYS_TO_SHARE`, and what travels between the GPUs: a Figure."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(11, 6.2))
        for axis, (name, (gpus, travels)) in zip(axes.flat, WAYS_TO_SHARE.items()):
            for gpu, parts in enumerate(gpus):
                left = 1.25 * gpu + 0.35 * (name == "HSDP" and gpu > 1)
                axis.add_patch(FancyBboxPatch((left, 0), 1, 1.9, boxstyle="round,pad=0.05", facecolor="white", edgecolor=GREY))
                for place, held, color in zip((0.14, 0.58), parts, (GREEN, BLUE)):
                    for quarter in range(4):
                        axis.add_patch(Rectangle((left + place, 1.35 - 0.42 * quarter), 0.3, 0.36, edgecolor=LIGHT, lw=0.8,
                                                 facecolor=color if str(quarter) in held else "white"))
                axis.text(left + 0.5, -0.13, f"GPU {gpu + 1}", ha="center", va="top", fontsize=9)
            for row, (who, turns) in enumerate(zip(("train", "write"), TURNS.get(name, ()))):
                axis.text(-0.1, -0.85 - 0.42 * row, who, ha="right", va="center", fontsize=9)
                for turn, step in enumerate(turns):
                    axis.add_patch(Rectangle((0.98 * turn, -1.02 - 0.42 * row), 0.94, 0.34, facecolor=(GREEN, BLUE)[row] if step else LIGHT, alpha=1 if step else 0.35))
                    axis.text(0.98 * turn + 0.47, -0.86 - 0.42 * row, step and f"step {step}", color="white", ha="center", va="center", fontsize=8)
            if name == "HSDP":
                for host, middle in enumerate((1.1, 3.95)):
                    axis.text(middle, -0.5, f"host {host + 1}", ha="center", va="top", fontsize=10, weight="bold")
            axis.set(xlim=(-0.9, 5.5), ylim=(-1.6, 2.1))
            axis.set_title(f"{name}\n", weight="bold", fontsize=12)
            axis.text(2.4, 2.12, travels, ha="center", va="bottom", fontsize=10, color=GREY)
            axis.axis("off")
        figure.legend(handles=[Patch(facecolor=GREEN, label="states: weights, gradients, moments"), Patch(facecolor=BLUE, label="the engine's weights"),
                               Patch(facecolor="white", edgecolor=LIGHT, label="a quarter that this GPU does not hold")], frameon=False, ncols=3, loc="outside lower center")
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
def plot_step_seconds(steps):
    """Seconds of a step against the step's completions, a dot a step and a line a number of processes through the means: a Figure.

    `steps`: {"2 x 12": seconds of each step}, processes x completions of each.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 3.8))
        sizes = {name: tuple(map(int, name.split(" x "))) for name in steps}
        for processes, color in zip(sorted({number for number, _ in sizes.values()}), (ORANGE, BLUE, GREEN)):
            mine = sorted((number * each, steps[name]) for name, (number, each) in sizes.items() if number == processes)
            for completions, seconds in mine:
                axis.plot([completions] * len(seconds), seconds, "o", color=color, alpha=0.2, ms=4, mew=0)
            means = [(completions, float(np.mean(seconds))) for completions, seconds in mine]
            axis.plot(*zip(*means), "o-", color=color, lw=2, label=f"{processes} process{'es' if processes > 1 else ''}")
            for completions, mean in means:
                axis.annotate(f"{mean:.2f}", (completions, mean), (0, 8 if processes == 1 else -15), textcoords="offset points", ha="center", color=color,
                              weight="bold", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
        axis.set(xlabel="completions of a step, over all processes", ylabel="seconds a step", ylim=0, xticks=sorted({number * each for number, each in sizes.values()}))
        single = Line2D([], [], ls="", marker="o", ms=4, color=GREY, alpha=0.4, label="a single step")
        axis.legend(handles=[*axis.get_legend_handles_labels()[0], single], frameon=False)
    plt.close(figure)
    return figure


@readable
def plot_choice(panels, rows, columns, names, least):
    """A field for each model and number of GPUs, coloured by what `choose` says; before them the least number of GPUs that fits: a Figure.

    `panels`: {title: array (rows, columns) of numbers}, 0 where nothing fits; `names`: {number: what it means}; `least`: {title: the
    least number of each row, None where nothing fits}.
    """
    colors = ["#ffffff", "#f0c987", "#9ecae1", BLUE, "#8e6bbf", GREEN]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), sharex=True, sharey=True)
        for axis, (title, values) in zip(axes.flat, panels.items(), strict=True):
            values = np.pad(values, ((0, 0), (1, 0)))  # a white column for the least numbers
            axis.imshow(values, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(colors) - 0.5, aspect="auto")
            axis.set_title(title)
            axis.set_xticks(range(1 + len(columns)), ["least", *columns])
            axis.set_yticks(range(len(rows)), rows)
            axis.set_xticks(np.arange(1 + len(columns)) - 0.5, minor=True)
            axis.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
            axis.grid(which="major", visible=False)
            axis.grid(which="minor", color="white", linewidth=2)
            axis.tick_params(which="both", length=0)
            for row, column in np.argwhere(values == 0):
                if column:
                    axis.text(column, row, "–", ha="center", va="center", color=GREY)
            for row, number in enumerate(least[title]):
                axis.text(0, row, number or "none", ha="center", va="center", weight="bold")
        figure.supxlabel("GPUs (8 to a host); least: the least number of 1 to 64 that fits", fontsize=11)
        figure.legend(handles=[Patch(facecolor=colors[number], edgecolor=GREY, label=name) for number, name in names.items()],
                      frameon=False, ncols=2, loc="outside upper center")
    plt.close(figure)
    return figure


@readable
def plot_workers(panels):
    """Seconds of a step against the number of workers that write: a Figure, its panels on one scale.

    `panels`: {title: (workers, {label: seconds}, (least, most), together)}. A curve's seconds are those for 1, 2, … writers, its best is
    marked; from `least` to `most` the last curve is nearly at its best; `together` is the step in which every worker does both.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.2), sharey=True, squeeze=False)
        lowest = [min(map(min, curves.values())) for _, curves, *_ in panels.values()]
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
            axis.set(xlabel=f"of {workers} GPUs, so many write", ylim=(0, 4 * max(lowest)), xlim=(0, workers))
            axis.set_title(title, pad=46, weight="bold")
        axes[0][0].set_ylabel("seconds a step")
        figure.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside upper center")
    plt.close(figure)
    return figure
