"""The pictures of chapter 13: a marker for each seed, and bars before and after."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

MARKERS = [("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", GREY)]  # of the seeds, in their order


@readable
def plot_seeds(panels, seeds, title):
    """Each training a marker, one shape for each seed, a row for each kind of training: a Figure.

    `panels`: {xlabel: {row: {seed: a share in %}}}; `seeds`: in the order of the legend. Equal marks stand above each other, a little apart.
    """
    rows = list(dict.fromkeys(row for found in panels.values() for row in found))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 1.5 + 0.42 * len(rows)), squeeze=False, sharey=True)
        plt.close(figure)
        for axis, (xlabel, found) in zip(axes[0], panels.items()):
            for height, row in enumerate(rows):
                for place, (seed, (marker, color)) in enumerate(zip(seeds, MARKERS)):
                    if seed in found.get(row, {}):
                        axis.plot(found[row][seed], height + 0.2 * (place - (len(seeds) - 1) / 2), marker, color=color, markersize=6, clip_on=False)
            axis.set(xlabel=xlabel, xlim=(-3, 103), ylim=(len(rows) - 0.5, -0.5))
            axis.set_yticks(range(len(rows)), rows)
        handles = [Line2D([], [], linestyle="", marker=marker, color=color, label=f"seed {seed}") for seed, (marker, color) in zip(seeds, MARKERS)]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


@readable
def plot_pairs(panels, title, columns=3):
    """Two bars for each name, before (grey) and after (blue), with their values above, a panel for each measure: a Figure.

    `panels`: {title: {name: (before, after)}}; each panel has a scale of its own, from 0.
    """
    rows = -(-len(panels) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 0.9 + 2.1 * rows), squeeze=False)
        plt.close(figure)
        for axis in axes.flat[len(panels):]:
            axis.set_visible(False)
        for axis, (name, found) in zip(axes.flat, panels.items()):
            for shift, color, heights in zip((-0.2, 0.2), (GREY, BLUE), zip(*found.values())):
                bars = axis.bar(np.arange(len(found)) + shift, heights, 0.38, color=color, alpha=0.5 if color == GREY else 1)
                axis.bar_label(bars, [f"{height:.0f}" for height in heights], fontsize=9)
            axis.set(title=name, ylim=(0, 1.2 * max(1, *map(max, found.values()))))
            axis.set_xticks(range(len(found)), found)
            axis.grid(visible=False, axis="x")
        handles = [Patch(color=GREY, alpha=0.5, label="before practice"), Patch(color=BLUE, label="after")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure
