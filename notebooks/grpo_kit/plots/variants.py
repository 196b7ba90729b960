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
        named = []  # (end, place in the order given, name, colour)
        for place, ((name, curve), color) in enumerate(zip(curves.items(), COLOURS)):
            drawn = [np.mean(curve[max(0, end - smooth) : end]) for end in range(1, len(curve) + 1)]
            dashed = 0 < place == len(curves) - 1
            axis.plot(samples * np.arange(1, len(drawn) + 1), drawn, "--" if dashed else "-", color=color, linewidth=2 if dashed else 4)
            named.append((drawn[-1], place, f"{name} (dashed)" if dashed else name, color))
        near, groups = 0.06 * max(end for end, *_ in named), []
        for end, place, name, color in sorted(named):  # names of lines that end close together stand above one another
            if groups and end - groups[-1][0] <= near:
                groups[-1][1].append((place, name, color))
            else:
                groups.append((end, [(place, name, color)]))
        for end, names in groups:
            for row, (_, name, color) in enumerate(sorted(names)):
                shift = 14 * ((len(names) - 1) / 2 - row)
                axis.annotate(name, (1.01, end), (0, shift), ("axes fraction", "data"), "offset points", va="center", color=color)
        axis.set(title=title, xlabel="completions sampled", ylabel="right and in the tag, %", xlim=(0, None), ylim=(0, None))
    return figure


VERDICTS = {"lower": (ORANGE, ORANGE), "higher": (GREEN, GREEN), "equal": (BLUE, BLUE), "open": (GREY, "white")}  # edge and face of a mean


@readable
def plot_differences(panels, reference, margin):
    """Each method's distance from `reference` with its interval, a panel for each regime, in the colour of its verdict: a Figure.

    `panels`: {title: {method: (the difference of each seed, their mean, half the width of the interval, one of VERDICTS)}} in points.
    A band reaches `margin` points to both sides of zero. A small dot is a seed, the large one the mean. Each panel is as wide as its
    intervals; seeds further out stand as arrows at its edge, with their points.
    """
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 5.6)
        for axis, (title, found) in zip(axes, panels.items()):
            axis.axvspan(-margin, margin, color=BLUE, alpha=0.10, linewidth=0)
            axis.axvline(0, color=GREY, linewidth=1)
            left = min([-2.4 * margin, *(mean - half - 3 for _, mean, half, _ in found.values())])
            right = max([2.4 * margin, *(mean + half + 3 for _, mean, half, _ in found.values())])
            for place, (each, mean, half, verdict) in enumerate(found.values()):
                edge, face = VERDICTS[verdict]
                inside = [one for one in each if left < one < right]
                axis.plot(inside, [place] * len(inside), ".", color=edge, alpha=0.35, zorder=1)
                for end, mark, beyond in ((left, "←", [one for one in each if one <= left]), (right, "→", [one for one in each if one >= right])):
                    text = ", ".join(f"{one:.0f}" for one in sorted(beyond))
                    text = f"{mark} {text}" if end == left else f"{text} {mark}"
                    if beyond:
                        axis.annotate(text, (end, place), (0, 9), textcoords="offset points", ha="left" if end == left else "right",
                                      va="center", color=edge, fontsize=9)
                if not any(each):
                    axis.annotate("the same in each seed", (mean, place), (-9, 0), textcoords="offset points", ha="right", va="center", color=edge, fontsize=9)
                axis.errorbar(mean, place, xerr=half, fmt="o", color=edge, markerfacecolor=face, markersize=7, elinewidth=2)
            axis.set(title=title, xlabel=f"points more than {reference} (band: ± {margin:g})", xlim=(left, right), ylim=(len(found) - 0.5, -0.9))
        shown = [word for word in VERDICTS if any(row[3] == word for found in panels.values() for row in found.values())]
        handles = [Line2D([], [], marker="o", color=VERDICTS[word][0], markerfacecolor=VERDICTS[word][1], markersize=7, linewidth=2) for word in shown]
        figure.legend(handles, shown, loc="outside upper left", ncols=4, frameon=False)
    return figure


@readable
def plot_choice(panels, bar):
    """How many completions each training needs until it reaches the `bar`, in %: a row for each method, a dot for each seed: a Figure.

    `panels`: {title: {method: completions of each seed, infinity where the bar is never reached}}. The stroke is the median, left out
    where fewer than half reach the bar; beside the row stands how many do.
    """
    reached = [one for found in panels.values() for needed in found.values() for one in needed if np.isfinite(one)]
    with plt.rc_context(STYLE):
        figure, axes = _rows(panels, list(panels.values()), 6.0)
        for axis, (title, found), color in zip(axes, panels.items(), COLOURS):
            for place, needed in enumerate(found.values()):
                dots = [one for one in needed if np.isfinite(one)]
                axis.plot(dots, [place] * len(dots), "o", color=color, alpha=0.35, markeredgewidth=0)
                if np.isfinite(np.median(needed)):
                    axis.plot([np.median(needed)] * 2, [place - 0.3, place + 0.3], color=color, linewidth=3, solid_capstyle="butt")
                text = f"{len(dots)} of {len(needed)} reach it"
                axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=10)
            axis.set(title=title, xlabel=f"completions until {bar:.0f} % (stroke: median)", xlim=(0, 1.05 * max(reached, default=1)))
    return figure
