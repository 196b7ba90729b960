"""The pictures of chapter 12: a row or a line for each method, and every seed to be seen."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

COLOURS = [BLUE, ORANGE, GREEN]  # of the lines, or of the panels, in the order given


def _rows(panels, methods, width, **options):
    """A Figure with a panel for each of `panels` and a row for each method, from above."""
    count = max(len(panels), 1)
    height = 1.0 + 0.31 * max(map(len, methods), default=1)
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False, **options)
    plt.close(figure)
    for axis, names in zip(axes[0], methods):
        axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axis.set_yticks(range(len(names)), names)
    return figure, axes[0]


@readable
def plot_curves(curves, samples, title, smooth=3):
    """A line for each training, with its name at the end, the last one dashed: a Figure.

    `curves`: {name: right and paid completions of each generation in %}; `samples`: completions a generation. A point is the mean of
    the last `smooth` generations.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 3.0))
        plt.close(figure)
        named = []
        for place, ((name, curve), color) in enumerate(zip(curves.items(), COLOURS)):
            drawn = [np.mean(curve[max(0, end - smooth) : end]) for end in range(1, len(curve) + 1)]
            dashed = 0 < place == len(curves) - 1
            axis.plot(samples * np.arange(1, len(drawn) + 1), drawn, "--" if dashed else "-", color=color, linewidth=2 if dashed else 4)
            named.append((drawn[-1], name, color))
        near, groups = 0.06 * max(end for end, _, _ in named), []
        for end, name, color in sorted(named):  # names of lines that end close together stand beside one another
            if groups and end - groups[-1][0] <= near:
                groups[-1][1].append(name)
            else:
                groups.append((end, [name], color))
        for end, names, color in groups:
            axis.annotate(" · ".join(names), (1.01, end), xycoords=("axes fraction", "data"), va="center", color=color)
        axis.set(title=title, xlabel="completions sampled", ylabel="right and in the tag, %", xlim=(0, None), ylim=(0, None))
    return figure


VERDICTS = {"lower": (ORANGE, ORANGE), "higher": (GREEN, GREEN), "equal": (BLUE, BLUE), "open": (GREY, "white")}  # edge and face of a mean


@readable
def plot_differences(panels, reference, margin):
    """Each method's distance from `reference` with its interval, a panel for each regime, in the colour of its verdict: a Figure.

    `panels`: {title: {method: (the difference of each seed, their mean, half the width of the interval, one of VERDICTS)}} in points.
    A band reaches `margin` points to both sides of zero. A small dot is a seed, the large one the mean.
    """
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 5.6, sharex=True)
        for axis, (title, found) in zip(axes, panels.items()):
            axis.axvspan(-margin, margin, color=BLUE, alpha=0.10, linewidth=0)
            axis.axvline(0, color=GREY, linewidth=1)
            for place, (each, mean, half, verdict) in enumerate(found.values()):
                edge, face = VERDICTS[verdict]
                axis.plot(each, [place] * len(each), ".", color=edge, alpha=0.35, zorder=1)
                axis.errorbar(mean, place, xerr=half, fmt="o", color=edge, markerfacecolor=face, markersize=7, elinewidth=2)
            axis.set(title=title, xlabel=f"points more than {reference} (band: ± {margin:g})")
        shown = [word for word in VERDICTS if any(row[3] == word for found in panels.values() for row in found.values())]
        handles = [Line2D([], [], marker="o", color=VERDICTS[word][0], markerfacecolor=VERDICTS[word][1], markersize=7, linewidth=2) for word in shown]
        figure.legend(handles, shown, loc="outside upper left", ncols=4, frameon=False)
    return figure


@readable
def plot_choice(panels):
    """How many completions each training needs until it reaches the bar: a row for each method, a dot for each seed: a Figure.

    `panels`: {title: {method: (completions of each seed, infinity where the bar is never reached; mean share in % at the end)}}. The
    stroke is the median, left out where fewer than half reach the bar; a cross at the right stands for those that never reach it,
    and beside it how many do, and the share.
    """
    reached = [one for found in panels.values() for needed, _ in found.values() for one in needed if np.isfinite(one)]
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 6.4)
        never = 1.1 * max(reached, default=1)
        for axis, (title, found), color in zip(axes, panels.items(), COLOURS):
            for place, (needed, end) in enumerate(found.values()):
                dots = [one for one in needed if np.isfinite(one)]
                axis.plot(dots, [place] * len(dots), "o", color=color, alpha=0.35, markeredgewidth=0)
                if np.isfinite(np.median(needed)):
                    axis.plot([np.median(needed)] * 2, [place - 0.3, place + 0.3], color=color, linewidth=3, solid_capstyle="butt")
                axis.plot([never] * (len(dots) < len(needed)), [place] * (len(dots) < len(needed)), "x", color=color, markersize=8)
                text = f"{len(dots)} of {len(needed)} reach it; test {end:.0f} %"
                axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=10)
            axis.set(title=title, xlabel="completions until the bar (stroke: median; cross: never)", xlim=(0, 1.05 * never))
    return figure
