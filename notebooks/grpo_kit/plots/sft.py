"""The pictures of chapter 08: two losses, marks by way of asking, right answers by stage."""

import matplotlib.pyplot as plt

from .style import BLUE, GREY, ORANGE, STYLE, readable


@readable
def plot_losses(training, validation, best, title, others=(), epoch=None):
    """The two losses of a training in nats per token over the step, its `best` step marked: a Figure.

    `training`, `validation`: Series over the step; `others`: validation losses of further trainings, drawn pale with their
    lowest point; `epoch`: the steps of one pass over the rows, for faint lines.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 3.2))
        last = max(curve.index[-1] for curve in (validation, *others))
        for curve in others:
            axis.plot(curve, color=BLUE, alpha=0.3)
            axis.plot(curve.idxmin(), curve.min(), "o", color=ORANGE, alpha=0.4, markersize=6)
        for name, curve, color in (("validation", validation, BLUE), ("training", training, GREY)):
            axis.plot(curve, "o-", color=color, markersize=4)
            axis.text(1.02 * last, curve.iloc[-1], name, color=color, weight="bold", va="center")
        axis.plot(best, validation[best], "o", color=ORANGE, markersize=10)
        axis.annotate("kept", (best, validation[best]), (0, 9), textcoords="offset points", color=ORANGE, weight="bold", ha="center")
        for number in range(1, int(last // epoch) + 1 if epoch else 0):
            axis.axvline(number * epoch, color=GREY, linestyle=":", linewidth=1)
            axis.text(number * epoch, 0.05, f"epoch {number} ", color=GREY, fontsize=9, ha="right")
        axis.set(title=title, xlabel="step", ylabel="loss, nats per token", xlim=(0, 1.22 * last), ylim=(0, None))
        axis.grid(axis="x", visible=False)
    plt.close(figure)
    return figure


@readable
def plot_marks(panels, title, chosen):
    """A panel for each mark, a bar for each way of asking, its dots the trainings, `chosen` in blue: a Figure.

    `panels`: {mark: {way: [(how many replies have the mark, of how many) for each training]}}; a way that a panel lacks has no bar.
    """
    ways = list(dict.fromkeys(way for found in panels.values() for way in found))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(9, 0.9 + 0.36 * len(ways)), sharey=True, squeeze=False)
        for axis, (mark, found) in zip(axes[0], panels.items(), strict=True):
            for way, counts in found.items():
                height, (hits, of) = ways.index(way), map(sum, zip(*counts, strict=True))
                axis.barh(height, 100 * hits / of, height=0.65, color=BLUE if way == chosen else "#c4c4c4")
                shares = [100 * one / total for one, total in counts]
                if len(counts) > 1:
                    axis.plot(shares, [height] * len(shares), "o", color="black", markersize=4)
                axis.text(max(100 * hits / of, *shares) + 3, height, f"{hits} of {of}", va="center", weight="bold")
            axis.set(title=mark, xlim=(0, 145), xticks=range(0, 101, 25), xlabel="% of the replies")
            axis.grid(axis="y", visible=False)
        axes[0][0].set_yticks(range(len(ways)), ways)
        axes[0][0].invert_yaxis()
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
    plt.close(figure)
    return figure


@readable
def plot_stages(panels, stages, title, ylabel):
    """A panel for each set of questions, a line for each way of asking through the means of the stages, dots the seeds: a Figure.

    `panels`: {set: {way: [the seeds' values, a list for each of `stages`]}}, all on one axis.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(9, 3), sharey=True, squeeze=False)
        for axis, (name, ways) in zip(axes[0], panels.items(), strict=True):
            for (way, found), color in zip(ways.items(), (BLUE, ORANGE), strict=True):
                means = [sum(values) / len(values) for values in found]
                axis.plot(means, color=color, label=way)
                for place, values in enumerate(found):
                    axis.plot([place] * len(values), values, "o", color=color, alpha=0.45, markersize=5)
            axis.set(title=name, xlim=(-0.3, len(stages) - 0.7))
            axis.set_xticks(range(len(stages)), stages)
            axis.grid(axis="x", visible=False)
        axes[0][0].set(ylabel=ylabel, ylim=(0, None))
        axes[0][0].legend(frameon=False, loc="upper left")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
    plt.close(figure)
    return figure
