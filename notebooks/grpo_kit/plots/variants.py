"""The pictures of chapter 12: a place for each method, a colour for each regime, and every seed to be seen."""

import matplotlib.pyplot as plt
import numpy as np

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
    """A panel for each method: each training a thin line, their mean a thick one, in the colour of its regime: a Figure.

    `regimes`: {title: {method: array (trainings, generations) of shares in %}}; `samples`: completions a generation. A point is the
    mean of the last `smooth` generations. The means of the method `reference` are drawn in every panel, dashed.
    """
    methods = list(dict.fromkeys(method for found in regimes.values() for method in found))
    rows = max(-(-len(methods) // columns), 1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 0.7 + 2 * rows), sharex=True, sharey=True, squeeze=False)
        plt.close(figure)
        for place, axis in enumerate(axes.flat):
            axis.set_visible(place < len(methods))
        for axis, method in zip(axes.flat, methods):
            axis.set_title(method)
            for (title, found), color in zip(regimes.items(), COLOURS):
                means = _smoothed(found.get(method, []), smooth)
                for curve in means if len(means) > 1 else []:
                    axis.plot(samples * np.arange(1, len(curve) + 1), curve, color=color, linewidth=0.7, alpha=0.35)
                if means:
                    axis.plot(samples * np.arange(1, len(means[0]) + 1), np.mean(means, axis=0), color=color, linewidth=2.4, label=title)
                others = _smoothed(found.get(reference, []) if method != reference else [], smooth)
                if others:
                    label = f"{reference}, {title}"
                    axis.plot(samples * np.arange(1, len(others[0]) + 1), np.mean(others, axis=0), "--", color=color, linewidth=1.2, label=label)
        handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles, loc="outside upper left", ncols=2, frameon=False)
        axes[0][0].set_ylim(0, None)
        figure.supxlabel("completions sampled", fontsize=11)
        figure.supylabel(ylabel, fontsize=11)
    return figure


@readable
def plot_differences(panels, reference, clear=(), margin=0, seeds=None):
    """Each method's distance from `reference` with its interval, a panel for each regime; those not of `clear` in grey: a Figure.

    `panels`: {title: {method: (mean, half the width of the interval or None)}} in points; `clear`: {(title, method)}; a grey band
    reaches `margin` points to both sides of zero; `seeds`: {title: {method: the difference of each seed}}, drawn as small dots.
    """
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 5.2, sharex=True)
        for axis, (title, found), color in zip(axes, panels.items(), COLOURS):
            axis.axvspan(-margin, margin, color=GREY, alpha=0.12, linewidth=0)
            axis.axvline(0, color=GREY, linewidth=1)
            for place, (method, (mean, half)) in enumerate(found.items()):
                shown = color if (title, method) in clear else GREY
                each = (seeds or {}).get(title, {}).get(method, [])
                axis.plot(each, [place] * len(each), ".", color=shown, alpha=0.5, zorder=1)
                axis.errorbar(mean, place, xerr=half or 0, fmt="o", color=shown, elinewidth=2)
            axis.set(title=title, xlabel=f"points more than {reference}" + f" (band: ± {margin:g})" * bool(margin))
    return figure


@readable
def plot_choice(panels):
    """How many completions each training needs until it reaches the bar: a row for each method, a dot for each seed: a Figure.

    `panels`: {title: {method: (completions of each seed, infinity where the bar is never reached; mean share in % at the end)}}. The
    stroke is the median, left out where fewer than half reach the bar; to the right stands how many reach it, and the share.
    """
    reached = [one for found in panels.values() for needed, _ in found.values() for one in needed if np.isfinite(one)]
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 6.4)
        for axis, (title, found), color in zip(axes, panels.items(), COLOURS):
            for place, (needed, end) in enumerate(found.values()):
                dots = [one for one in needed if np.isfinite(one)]
                axis.plot(dots, [place] * len(dots), "o", color=color, alpha=0.35, markeredgewidth=0)
                if np.isfinite(np.median(needed)):
                    axis.plot([np.median(needed)] * 2, [place - 0.3, place + 0.3], color=color, linewidth=3)
                text = f"{len(dots)} of {len(needed)}; {end:.0f} % at the end"
                axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=10)
            axis.set(title=title, xlabel="completions until the bar (stroke: median); right: how many seeds reach it", xlim=(0, 1.05 * max(reached, default=1)))
    return figure
