"""The pictures of chapter 12: a place for each method, a colour for each regime, and every seed to be seen."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

COLOURS = [BLUE, ORANGE, GREEN]  # of the regimes, in the order given, in every picture


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


def _smoothed(curves, smooth):
    """Each curve with every point the mean of the last `smooth`."""
    return [[np.mean(curve[max(0, end - smooth) : end]) for end in range(1, len(curve) + 1)] for curve in curves]


@readable
def plot_learning(regimes, samples, ylabel, columns=3, smooth=3, reference=None):
    """A panel for each method: the median of its trainings, with their middle half, in the colour of the regime: a Figure.

    `regimes`: {title: {method: array (trainings, generations) of shares in %}}; `samples`: completions a generation. A point is the
    mean of the last `smooth` generations. The medians of the method `reference` are drawn in every panel, dashed.
    """
    methods = list(dict.fromkeys(method for found in regimes.values() for method in found))
    rows = max(-(-len(methods) // columns), 1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(max(3.2 * columns, 6.4), 0.7 + 2 * rows), sharex=True, sharey=True, squeeze=False)
        plt.close(figure)
        for place, axis in enumerate(axes.flat):
            axis.set_visible(place < len(methods))
        for axis, method in zip(axes.flat, methods):
            axis.set_title(method)
            for (title, found), color in zip(regimes.items(), COLOURS):
                for name in dict.fromkeys([method, *([reference] if reference in found else [])]):
                    curves = _smoothed(found.get(name, []), smooth)
                    if not len(curves):
                        continue
                    low, middle, high = np.percentile(curves, [25, 50, 75], axis=0)
                    sampled = samples * np.arange(1, len(middle) + 1)
                    if name == method:
                        axis.plot(sampled, middle, color=color, linewidth=2.4, label=title)
                        axis.fill_between(sampled, low, high, color=color, alpha=0.18, linewidth=0)
                    else:
                        axis.plot(sampled, middle, "--", color=color, linewidth=1.2, label=f"{reference}, {title}")
        handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles, loc="outside upper left", ncols=2, frameon=False)
        axes[0][0].set_ylim(0, None)
        figure.supxlabel("completions sampled", fontsize=11)
        figure.supylabel(ylabel, fontsize=11)
    return figure


VERDICTS = {"apart": (ORANGE, ORANGE), "equal": (BLUE, BLUE), "cannot be told": (GREY, "white")}  # edge and face of a mean's dot


@readable
def plot_differences(panels, reference, verdicts, margin, seeds):
    """Each method's distance from `reference` with its interval, a panel for each regime, in the colour of its verdict: a Figure.

    `panels`: {title: {method: (mean, half the width of the interval)}} in points; `verdicts`: {title: {method: one of VERDICTS}};
    a band reaches `margin` points to both sides of zero; `seeds`: {title: {method: the difference of each seed}}, small dots.
    """
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 5.4, sharex=True)
        for axis, (title, found) in zip(axes, panels.items()):
            axis.axvspan(-margin, margin, color=BLUE, alpha=0.10, linewidth=0)
            axis.axvline(0, color=GREY, linewidth=1)
            for place, (method, (mean, half)) in enumerate(found.items()):
                edge, face = VERDICTS[verdicts[title][method]]
                each = seeds[title][method]
                axis.plot(each, [place] * len(each), ".", color=edge, alpha=0.35, zorder=1)
                axis.errorbar(mean, place, xerr=half, fmt="o", color=edge, markerfacecolor=face, markersize=7, elinewidth=2)
            axis.set(title=title, xlabel=f"points more than {reference} (band: ± {margin:g})")
        handles = [Line2D([], [], marker="o", color=edge, markerfacecolor=face, markersize=7, linewidth=2) for edge, face in VERDICTS.values()]
        figure.legend(handles, VERDICTS, loc="outside upper left", ncols=3, frameon=False)
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
                    axis.plot([np.median(needed)] * 2, [place - 0.3, place + 0.3], color=color, linewidth=3)
                axis.plot([never] * (len(dots) < len(needed)), [place] * (len(dots) < len(needed)), "x", color=color, markersize=8)
                text = f"{len(dots)} of {len(needed)} seeds; {end:.0f} % at the end"
                axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=10)
            axis.set(title=title, xlabel="completions until the bar (stroke: median; cross: a seed never reaches it)", xlim=(0, 1.05 * never))
    return figure
