"""The pictures of chapter 12: many methods, a few of them named in colour, each with what its seeds say."""

import matplotlib.pyplot as plt
import numpy as np

from .comparing import _panels
from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

NONE = {"no training in the file yet": {}}
COLOURS = [BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933", "#882255"]


@readable
def plot_learning(panels, samples, ylabel, smooth=3):
    """A curve for each method, the mean over its trainings, in a panel for each regime: a Figure.

    `panels`: {title: {method: array (trainings, generations) of shares in %}}; `samples`: completions a generation. Each point is
    the mean of the last `smooth` generations. Every second curve is dashed and lies above the others: two that coincide show both.
    """
    panels = panels or NONE
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(panels), 3.9, width=6.4)
        for axis, (title, curves) in zip(axes, panels.items()):
            for number, ((method, curve), color) in enumerate(zip(curves.items(), COLOURS)):
                mean, dashed = np.mean(curve, axis=0), number % 2
                means = [mean[max(0, place - smooth + 1) : place + 1].mean() for place in range(len(mean))]
                axis.plot(samples * np.arange(1, len(mean) + 1), means, color=color, label=f"{method} ({len(curve)})",
                          linewidth=1.6 if dashed else 2.6, linestyle="--" if dashed else "-", zorder=2.5 if dashed else 2)
            axis.set(title=title, xlabel="completions sampled", ylim=(0, None))
            if curves:
                axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        axes[0].set_ylabel(ylabel)
    return figure


@readable
def plot_differences(panels, reference, clear=(), margin=0, seeds=None):
    """Each method's distance from `reference` with its interval, a panel for each regime; those of `clear` in blue: a Figure.

    `panels`: {title: {method: (mean, half the width of the interval or None)}} in points; `clear`: {(title, method)}; a grey band
    reaches `margin` points to both sides of zero; `seeds`: {title: {method: the difference of each seed}}, drawn as small dots.
    """
    panels = panels or NONE
    methods = list(dict.fromkeys(method for found in panels.values() for method in found))
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(panels), 0.9 + 0.33 * len(methods), width=4.8, sharex=True)
        for axis, (title, found) in zip(axes, panels.items()):
            axis.axvspan(-margin, margin, color=GREY, alpha=0.12, linewidth=0)
            axis.axvline(0, color=GREY, linewidth=1)
            for place, method in enumerate(methods):
                if method in found:
                    mean, half = found[method]
                    color = BLUE if (title, method) in clear else GREY
                    each = (seeds or {}).get(title, {}).get(method, [])
                    axis.plot(each, [place] * len(each), ".", color=ORANGE, alpha=0.6, zorder=1)
                    axis.errorbar(mean, place, xerr=half or 0, fmt="o", color=color, elinewidth=2)
            axis.set(title=title, xlabel=f"points more than {reference}", ylim=(max(len(methods), 1) - 0.5, -0.5))
            axis.set_yticks(range(len(methods)), methods)
    return figure


@readable
def plot_choice(panels):
    """Where each method ends against what it needs: up and to the left is better; a panel for each regime: a Figure.

    `panels`: {title: {method: (completions, share in %, half its interval or None)}}; completions None where the bar was not reached.
    Methods with the same three are one point.
    """
    panels = panels or NONE
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(panels), 4.2, width=5.2)
        reached = [completions for found in panels.values() for completions, _, _ in found.values() if completions]
        near, never = 0.9 * min(reached, default=1), 1.1 * max(reached, default=1)
        shares = [share + sign * (half or 0) for found in panels.values() for _, share, half in found.values() for sign in (-1, 1)]
        low, high = min(shares, default=0) - 3, max(shares, default=100) + 3
        for axis, (title, found) in zip(axes, panels.items()):
            same = {}
            for method, point in found.items():
                same.setdefault(point, []).append(method)
            points = sorted(zip(same.items(), COLOURS), key=lambda pair: pair[0][0][1])
            gap, last = (high - low) / 16, -np.inf
            for ((completions, share, half), methods), color in points:
                last = max(share, last + gap)  # names stand apart where the points do not
                place, marker = (completions, "o") if completions else (never, "X")
                axis.errorbar(place, share, yerr=half or 0, fmt=marker, color=color, elinewidth=1.5)
                axis.annotate(", ".join(methods), (place, share), xytext=(never + 0.12 * (never - near), last), color=color, fontsize=9, va="center",
                              arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5})
            axis.set(title=title, xlabel="completions until the bar (median; X: not reached)", ylim=(low, high + 2 * gap))
            axis.set_xlim(near - 0.08 * (never - near), never + 0.75 * (never - near))
            axis.set_xticks([tick for tick in axis.get_xticks() if near <= tick <= never])
        axes[0].set_ylabel("strict, sampled, % at the end")
    return figure
