"""The pictures of chapter 11: what a model wrote while it learned, when its curves rose, and what it cost."""

import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np

from grpo_kit.rewards.answers import TAGS
from grpo_kit.rewards.steps import EQUATION, is_true
from .style import BLUE, GREEN, GREY, ORANGE, STYLE, readable

STRIP_INK = "#222222"
EVENT_COLORS = {"layout": BLUE, "working": GREEN, "right": ORANGE}
STRIP_WIDTH = 84  # signs in a line of the film strip


def inks(text):
    """The colour of each sign of a completion: tags blue, true equations green, false ones orange."""
    colors = [STRIP_INK] * len(text)
    for found in re.finditer("|".join(TAGS), text):
        colors[found.start() : found.end()] = [BLUE] * len(found[0])
    for found in EQUATION.finditer(text):
        colors[found.start() : found.end()] = [GREEN if is_true(found) else ORANGE] * len(found[0])
    return colors


def lines_of(text, width=STRIP_WIDTH, most=2):
    """[(start, end)] of a completion's lines in the strip, broken at its own line ends or blanks; what passes `most` lines is left out."""
    found, start = [], 0
    while start < len(text) and len(found) < most:
        end = start + width
        if end < len(text):
            end = max(text.rfind("\n", start, end), text.rfind(" ", start, end)) + 1 or end
            end = end if end > start else start + width
        found.append((start, min(end, len(text))))
        start = end
    return found


@readable
def film_strip(frames, title):
    """What a model wrote to one question at several moments, a row each: a Figure.

    `frames`: [(label, text, {"layout": bool or None, "working": …, "right": …})]. Tags are blue, true equations green, false ones
    orange, and a key says so; ⏎ is a line's end; the dots, filled for yes, have no colour of their own. None, a dash: does not apply.
    """
    rows = [(label, text, marks, lines_of(text)) for label, text, marks in frames]
    heights = np.cumsum([0] + [0.42 * len(lines) + 0.35 for *_, lines in rows])
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9.6, 0.55 * heights[-1] + 0.9))
        for top, (label, text, marks, lines) in zip(heights, rows):
            axis.text(-1.5, top, label, ha="right", va="center", fontsize=9, color=GREY)
            colors = inks(text)
            for line, (start, end) in enumerate(lines):
                cut = line == len(lines) - 1 and end < len(text)
                signs = text[start:end].replace("\n", "⏎")
                for color in dict.fromkeys(colors[start:end]):  # each colour once, with blanks where another stands
                    inked = "".join(sign if ink == color else " " for sign, ink in zip(signs, colors[start:end]))
                    axis.text(0, top + 0.42 * line, inked + ("…" if cut and color == colors[end - 1] else ""), family="monospace", fontsize=8.6,
                              color=color, va="center", parse_math=False)
            for place, name in enumerate(EVENT_COLORS):
                style = {"marker": "_", "color": GREY} if marks[name] is None else {"marker": "o", "color": STRIP_INK}
                axis.plot(STRIP_WIDTH + 4 + 4 * place, top, **style, fillstyle="full" if marks[name] else "none")
        for place, name in enumerate(EVENT_COLORS):
            axis.text(STRIP_WIDTH + 3.4 + 4 * place, -0.45, name, rotation=60, fontsize=9, va="bottom", color=STRIP_INK)
        for place, (name, color) in enumerate({"a tag": BLUE, "a true equation": GREEN, "a false equation": ORANGE}.items()):
            axis.text(22 * place, heights[-1], name, fontsize=9, va="center", color=color)
        axis.set(xlim=(-20, STRIP_WIDTH + 16), ylim=(heights[-1] + 0.5, -1.2))
        axis.set_title("\n".join(textwrap.wrap(title, 105, replace_whitespace=False)), fontsize=10)
        axis.axis("off")
    plt.close(figure)
    return figure


@readable
def plot_rises(panels):
    """Shares over the moments of a training, with the fitted rises, a panel for each way of asking: a Figure.

    `panels`: {title: {measure: (Series of shares in [0, 1] indexed by step, its `Rise` or None)}}. Below the curves a measure has a
    row: a bar from the last moment before the rise's `low` to the first after its `high`. Measures drawn first are drawn wider, so that
    curves that coincide show.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 3.9), sharey=True, squeeze=False)
        for axis, (title, curves) in zip(axes[0], panels.items()):
            for place, (name, (curve, rise)) in enumerate(curves.items()):
                color, row = EVENT_COLORS[name], -12 - 9 * place
                axis.plot(curve.index, 100 * curve, ".", color=color, alpha=0.45, markersize=9 - 2 * place)
                if rise is not None:
                    axis.plot(curve.index, 100 * rise.fitted, color=color, linewidth=5.2 - 1.8 * place, alpha=0.55 if place == 0 else 1)
                    ends = [curve.index[curve.index <= rise.low].max(), curve.index[curve.index >= rise.high].min()]
                    axis.plot(ends, [row] * 2, color=color, linewidth=5, solid_capstyle="butt")
            axis.axhline(0, color=GREY, linewidth=0.8)
            axis.set(title=title, xlabel="training step", ylim=(-12 - 9 * len(curves), 104), yticks=range(0, 101, 20))
        for place, (name, color) in enumerate(EVENT_COLORS.items()):
            axes[0][0].text(0.03, 0.95 - 0.09 * place, name, color=color, weight="bold", transform=axes[0][0].transAxes, va="top")
        axes[0][-1].text(0.02, 0.02, "bars: between these looks\nlies the middle of the rise", fontsize=9, color=GREY, transform=axes[0][-1].transAxes, va="bottom")
        axes[0][0].set_ylabel("% of the watched questions")
    plt.close(figure)
    return figure


@readable
def plot_changes(panels):
    """How many questions changed at which moment: a Figure of bars, a panel for each way of asking.

    `panels`: {title: Series of counts indexed by step}.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 2.6), sharey=True, squeeze=False)
        for axis, (title, counts) in zip(axes[0], panels.items()):
            bars = axis.bar(counts.index, counts, width=0.8 * min(np.diff(counts.index)), color=GREEN)
            axis.bar_label(bars, [count or "" for count in counts], fontsize=9, color=GREY)
            axis.set(title=title, xlabel="training step")
        axes[0][0].set_ylabel("questions")
    plt.close(figure)
    return figure


KIND_COLORS = [ORANGE, BLUE, "#cc79a7", "#111111", GREEN]  # by the order in which the kinds appear


def colors_of(names):
    """{"kind": its colour} of names such as "kind: seed". ValueError with more kinds than colours."""
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in names))
    if len(kinds) > len(KIND_COLORS):
        raise ValueError(f"{len(kinds)} kinds of trainings, and only {len(KIND_COLORS)} colours that can be told apart: draw fewer kinds.")
    return dict(zip(kinds, KIND_COLORS))


@readable
def plot_flip(trainings, named=()):
    """The greedy share of replies with something, against the sampled share, at every moment of each training: a Figure.

    `trainings`: {"kind: seed": DataFrame with the columns "sampled" and "greedy", shares in [0, 1]}; a kind has one colour. On the dashed
    line both ways agree. Those that are `named` have their names beside the moment next to a greedy half.
    """
    colors = colors_of(trainings)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.2, 4.6))
        axis.axvspan(40, 60, color=GREY, alpha=0.12, linewidth=0)
        axis.text(50, 107, "40 to 60 %", color=GREY, fontsize=9, ha="center", va="center")
        axis.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1)
        axis.text(3, 8, "both the same", color=GREY, fontsize=9, rotation=31, rotation_mode="anchor")
        axis.annotate("training", (38, -9), xytext=(20, -9), color=GREY, fontsize=9, va="center", ha="right", arrowprops={"arrowstyle": "->", "color": GREY})
        labelled = set()
        for name, shares in trainings.items():
            kind = name.partition(":")[0]
            axis.plot(100 * shares["sampled"], 100 * shares["greedy"], "o-", color=colors[kind], alpha=0.6, markersize=3, linewidth=0.8,
                      label=None if kind in labelled else kind)
            labelled.add(kind)
            if name in named:
                after = int((shares["greedy"] >= 0.5).to_numpy().argmax())
                place = min((shares.iloc[number] for number in (after - 1, after)), key=lambda one: abs(one["greedy"] - 0.5))
                axis.annotate(name, (100 * place["sampled"], 100 * place["greedy"]), xytext=(8, -3), textcoords="offset points", fontsize=8, color=colors[kind])
        axis.set(title="Greedy decoding jumps when about half of the samples have working", xlabel="% with working, sampled",
                 ylabel="% with working, greedy", xlim=(0, 102), ylim=(-15, 113), yticks=range(0, 101, 20))
        axis.legend(loc="center left", frameon=False, fontsize=9)
    plt.close(figure)
    return figure


@readable
def plot_price(panels, base, notes):
    """What each training answers right as asked and with its reply begun, beside the untrained model: a Figure, a panel for each way of asking.

    `panels`: {way: {"kind: seed": (as asked, begun)}} and `base`: {way: begun}, all in %; `notes`: {"kind: seed": what stands beside it}.
    The thin lines are what a reply begun has lost.
    """
    colors = colors_of(next(iter(panels.values())))
    with plt.rc_context(STYLE):
        height = 1.3 + 0.28 * max(map(len, panels.values()))
        figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), height), sharey=True, sharex=True, squeeze=False)
        lowest = min(value for trainings in panels.values() for pair in trainings.values() for value in pair)
        for axis, (way, trainings) in zip(axes[0], panels.items()):
            axis.axvline(base[way], color=GREY, linewidth=1.4, label="untrained, reply begun")
            for place, (name, (asked, begun)) in enumerate(trainings.items()):
                color = colors[name.partition(":")[0]]
                axis.plot(asked, place, "o", color=color, markersize=7, label=None if place else "trained, as asked")
                axis.plot(begun, place, "o", color=color, markersize=12, fillstyle="none", markeredgewidth=1.5, label=None if place else "trained, reply begun")
                axis.plot([begun, base[way]], [place] * 2, color=color, linewidth=1, alpha=0.6, zorder=1)
                if name in notes and axis is axes[0][0]:
                    axis.text(base[way] + 0.6, place, notes[name], va="center", fontsize=7.5, color=color)
            axis.set(title=way, xlabel="% right", xlim=(lowest - 4, 100), ylim=(len(trainings) - 0.4, -0.6), yticks=range(len(trainings)), yticklabels=list(trainings))
        key = figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=10)
        for mark in key.legend_handles[1:]:  # all trainings', whatever their colour
            mark.set(color=STRIP_INK, markersize=8)
    plt.close(figure)
    return figure
