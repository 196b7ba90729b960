"""The pictures of chapter 08: two losses, marks by way of asking, shares by stage."""

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
    """A panel for each mark, a bar for each way of asking, its circles the trainings, `chosen` in blue: a Figure.

    `panels`: {mark: {way: [(how many replies have the mark, of how many) for each training]}}; where a panel lacks a way, it says so.
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
                    spread = [height + 0.22 * (2 * place / (len(shares) - 1) - 1) for place in range(len(shares))]
                    axis.plot(shares, spread, "o", color="white", markeredgecolor="black", markersize=4)
                axis.text(106, height, f"{hits} of {of}", va="center", weight="bold")
            for way in set(ways) - set(found):
                axis.text(3, ways.index(way), "does not apply", va="center", color=GREY)
            axis.set(title=mark, xlim=(0, 145), xticks=range(0, 101, 25), xlabel="% of the replies")
            axis.grid(axis="y", visible=False)
        axes[0][0].set_yticks(range(len(ways)), ways)
        axes[0][0].invert_yaxis()
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
    plt.close(figure)
    return figure


@readable
def plot_stages(panels, stages, title, ylabel):
    """A panel for each measure, a line for each of up to three sets through the means of the stages, dots the seeds: a Figure.

    `panels`: {measure: {set: [the seeds' values, a list for each of `stages`]}}; each panel has its own axis from 0.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.2), squeeze=False)
        for axis, (name, sets) in zip(axes[0], panels.items(), strict=True):
            for aside, ((label, found), color) in enumerate(zip(sets.items(), (BLUE, ORANGE, GREY))):
                places = [place + 0.05 * (aside - 1) for place in range(len(stages))]  # so that no seed hides another's
                axis.plot(places, [sum(values) / len(values) for values in found], color=color, label=label)
                for place, values in zip(places, found, strict=True):
                    axis.plot([place] * len(values), values, "o", color=color, alpha=0.45, markersize=5)
            axis.set(title=name, xlim=(-0.3, len(stages) - 0.7), ylim=(0, None))
            axis.set_xticks(range(len(stages)), stages)
            axis.grid(axis="x", visible=False)
        axes[0][0].set(ylabel=ylabel)
        axes[0][0].legend(frameon=False, loc="upper left")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
    plt.close(figure)
    return figure
