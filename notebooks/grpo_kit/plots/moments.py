"""The pictures of chapter 11: what a model wrote while it learned, when its curves rose, and with which token its replies began."""

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


def film_frames(looks, number, measures):
    """The `frames` of a `film_strip` of question `number`: a frame as long as its reply stays the same.

    `looks`: [{"step": int, "answers": {way: [{"text": str, and a bool for each column of `measures`}]}}]; `measures`: {shown name: column}.
    Where a way's name holds "begun", the layout does not apply: the opening tag was given.
    """
    strip = []  # [way, first step, last step, answer]
    for way in looks[0]["answers"]:
        for look in looks:
            answer = look["answers"][way][number]
            if strip and strip[-1][0] == way and strip[-1][3]["text"] == answer["text"]:
                strip[-1][2] = look["step"]
            else:
                strip.append([way, look["step"], look["step"], answer])
    return [(f"{way.split(', ')[-1]} {first}" + f" to {last}" * (last > first), answer["text"],
             {name: None if "begun" in way and name == "layout" else answer[column] for name, column in measures.items()})
            for way, first, last, answer in strip]


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
    row: a bar over what `Rise.between` says. Measures drawn first are drawn wider, so that
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
                    axis.plot(rise.between(curve.index), [row] * 2, color=color, linewidth=5, solid_capstyle="butt")
            axis.axhline(0, color=GREY, linewidth=0.8)
            axis.set(title=title, xlabel="training step", ylim=(-12 - 9 * len(curves), 104), yticks=range(0, 101, 20))
        for place, name in enumerate(next(iter(panels.values()))):
            axes[0][0].text(0.03, 0.95 - 0.09 * place, name, color=EVENT_COLORS[name], weight="bold", transform=axes[0][0].transAxes, va="top")
        axes[0][-1].text(0.02, 0.02, "bars: where the\nmiddle lies (95 %)", fontsize=9, color=GREY, transform=axes[0][-1].transAxes, va="bottom")
        axes[0][0].set_ylabel("% of the watched questions")
    plt.close(figure)
    return figure


@readable
def plot_first_token(chances, greedy, ranges=None):
    """How likely each first token of a reply is over a training, and how many greedy replies have working: a Figure.

    `chances`: DataFrame indexed by step, a column a token, mean probabilities in [0, 1]; `greedy`: Series in [0, 1] with the same index.
    The grey band lies between the two looks from one to the next of which the greedy share passes one half. `ranges`: {token:
    DataFrame with the columns "low" and "high"}, in [0, 1], drawn as a pale band around the token's curve.
    """
    curves = {name: (chances[name], color) for name, color in zip(chances, [ORANGE, BLUE, GREY])} | {"greedy replies with working, %": (greedy, STRIP_INK)}
    flip = int((greedy >= 0.5).to_numpy().argmax())
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 4.2))
        if flip:
            axis.axvspan(*greedy.index[[flip - 1, flip]], color=GREY, alpha=0.2, linewidth=0)
        for place, (name, (curve, color)) in enumerate(curves.items()):
            last = name == list(curves)[-1]
            axis.plot(curve.index, 100 * curve, "--" if last else "-", color=color, linewidth=1.5 if last or place == 2 else 3)
            if name in (ranges or {}):
                axis.fill_between(curve.index, 100 * ranges[name]["low"], 100 * ranges[name]["high"], color=color, alpha=0.25, linewidth=0)
            top, early = curve.idxmax(), curve.idxmax() < curve.index[-1] / 2
            axis.annotate(name, (top, 100 * curve[top]), xytext=(0, -26 if curve[top] > 0.85 and not last else 6), textcoords="offset points",
                          ha="left" if early else "right", color=color, weight="bold")
        axis.set(title="The greedy replies flip (grey band) when another first token takes the lead", xlabel="training step",
                 ylabel="probability of the first token, %", ylim=(-3, 112), yticks=range(0, 101, 20))
    plt.close(figure)
    return figure


@readable
def plot_aligned(panels, dashed=(), title="", note=""):
    """Shares with working, sampled and greedy, of several trainings, laid upon each other where the greedy share passes one half: a Figure.

    `panels`: {title: {name: DataFrame with the columns "sampled" and "greedy", shares in [0, 1], indexed by step}}. The trainings
    named in `dashed` are drawn so, which `note` explains in the picture; `title` stands above. Step 0 is the first look at which half of the greedy replies have working.
    """
    colors = {"sampled": BLUE, "greedy": ORANGE}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.7), sharey=True, squeeze=False)
        figure.suptitle(title or None, fontsize=11, x=0.01, ha="left")
        for axis, (panel, trainings) in zip(axes[0], panels.items()):
            for name, shares in trainings.items():
                steps = shares.index - shares.index[int((shares["greedy"] >= 0.5).to_numpy().argmax())]
                for way, color in colors.items():
                    axis.plot(steps, 100 * shares[way], "--" if name in dashed else "-", color=color, linewidth=1.2, alpha=0.7)
            reach = 8 * (shares.index[1] - shares.index[0])
            axis.axhline(50, color=GREY, linewidth=0.8)
            axis.set(title=panel, xlabel="steps since the greedy replies flipped", xlim=(-reach, reach), ylim=(-3, 103), yticks=range(0, 101, 25))
        for place, (way, color) in enumerate(colors.items()):
            axes[0][0].text(0.03, 0.95 - 0.1 * place, way, color=color, weight="bold", transform=axes[0][0].transAxes, va="top")
        axes[0][-1].text(0.97, 0.06, note, color=GREY, fontsize=9, transform=axes[0][-1].transAxes, ha="right")
        axes[0][0].set_ylabel("% with working")
    plt.close(figure)
    return figure


@readable
def plot_begun(curves, title):
    """Shares of right replies over a training, as asked and begun, labelled at their first look: a Figure.

    `curves`: {label: Series of shares in [0, 1], indexed by step}, at most two.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6, 3.2))
        for (name, curve), color in zip(curves.items(), (BLUE, ORANGE)):
            axis.plot(curve.index, 100 * curve, ".-", color=color, linewidth=2)
            axis.annotate(name, (curve.index[0], 100 * curve.iloc[0]), xytext=(0, 8), textcoords="offset points", color=color, weight="bold")
        axis.set(title=title, xlabel="training step", ylabel="% of the watched questions right", ylim=(0, 104), yticks=range(0, 101, 20))
    plt.close(figure)
    return figure
