"""What several processes did with their time, what fits on how many cards, and how many should write."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

LIGHT = "#d9d9d9"
PARTS = {"rollouts": BLUE, "training": GREEN, "waiting": LIGHT}


@readable
def plot_ranks(lines, waiting):
    """The last steps of every rank on one clock, and the shares below: a Figure.

    `lines`: {rank: lines of its diary}; `waiting`: the names of the parts in which a process waits.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 0.9 + 0.75 * len(lines)))
        zero = min(line["began"] for steps in lines.values() for line in steps)
        for row, (rank, steps) in enumerate(lines.items()):
            for line in steps:
                axis.barh(row, line["seconds"], left=line["began"] - zero, height=0.62, color=GREEN)
                gradients = [part for part in line["parts"] if part[0] == "gradients"]
                waits = [part for part in line["parts"] if part[0] in waiting and part[0] != "gradients"]
                if gradients:
                    waits.append(["gradients", max(part[1] for part in gradients), max(part[2] for part in gradients), 0])
                for name, began, end, _ in [part for part in line["parts"] if part[0] == "rollouts"] + waits:
                    axis.barh(row, end - began, left=began - zero, height=0.62, color=BLUE if name == "rollouts" else LIGHT)
                axis.text(line["began"] - zero, row - 0.42, f" step {line['step']}", fontsize=8, color=GREY, va="bottom")
        axis.set(yticks=range(len(lines)), yticklabels=[f"rank {rank}" for rank in lines], xlabel="seconds")
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.legend(handles=[Patch(color=color, label=name) for name, color in PARTS.items()], frameon=False, ncols=3,
                    loc="lower right", bbox_to_anchor=(1, 1))
    plt.close(figure)
    return figure


@readable
def plot_choice(panels, rows, columns, names):
    """A field for each model and number of cards, coloured by what `choose` says: a Figure.

    `panels`: {title: array (rows, columns) of numbers}; `names`: {number: what it means}.
    """
    colors = ["#ffffff", "#f0c987", "#9ecae1", BLUE, GREEN]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), sharex=True, sharey=True)
        for axis, (title, values) in zip(axes.flat, panels.items(), strict=True):
            axis.imshow(values, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(colors) - 0.5, aspect="auto")
            axis.set_title(title)
            axis.set_xticks(range(len(columns)), columns)
            axis.set_yticks(range(len(rows)), rows)
            axis.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
            axis.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
            axis.grid(which="major", visible=False)
            axis.grid(which="minor", color="white", linewidth=2)
            axis.tick_params(which="both", length=0)
            for row, column in np.argwhere(np.asarray(values) == 0):
                axis.text(column, row, "–", ha="center", va="center", color=GREY)
        figure.supxlabel("cards (8 to a host)", fontsize=11)
        figure.legend(handles=[Patch(facecolor=colors[number], edgecolor=GREY, label=name) for number, name in names.items()],
                      frameon=False, ncols=2, loc="outside upper center")
    plt.close(figure)
    return figure


@readable
def plot_workers(panels):
    """Seconds of a step against the number of workers that write: a Figure. `panels`: {title: (workers, {label: seconds}, together)}.

    A curve's seconds are those for 1, 2, … writers; `together` is the step in which every worker does both.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.6))
        for axis, (title, (workers, curves, together)) in zip(np.atleast_1d(axes), panels.items(), strict=True):
            for (label, seconds), color, place in zip(curves.items(), (ORANGE, BLUE), (9, -17), strict=True):
                axis.plot(range(1, workers), seconds, color=color, lw=2, label=label)
                best = int(np.argmin(seconds))
                axis.plot(best + 1, seconds[best], "o", color=color)
                axis.annotate(f"{best + 1} write: {seconds[best]:.1f} s", (best + 1, seconds[best]), (0, place), textcoords="offset points",
                              color=color, ha="left" if best < workers / 4 else "center", fontsize=10, weight="bold",
                              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})
            axis.axhline(together, color=GREY, ls="--", lw=1.5, label="all do both, in turns")
            axis.text(workers - 1, together, f"{together:.1f} s", color=GREY, ha="right", va="bottom", fontsize=10)
            every = np.concatenate(list(curves.values()))
            axis.set(title=title, xlabel=f"of {workers} GPUs, so many write", ylim=(0, min(every.max(), 4 * every.min()) * 1.05))
        np.atleast_1d(axes)[0].set_ylabel("seconds a step")
        figure.legend(*np.atleast_1d(axes)[0].get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center")
    plt.close(figure)
    return figure
