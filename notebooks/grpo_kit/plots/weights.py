"""The pictures of chapters 01 to 03: memory, weights, tokens."""

import matplotlib.pyplot as plt
import numpy as np

from .style import BLUE, GREY, STYLE, readable


PALETTE = [BLUE, "#009e73", "#bfe3d8", "#9a9a9a", "#cc79a7", "#e69f00", "#d55e00", "#56b4e9"]


@readable
def plot_parts(bars, title, xlabel, ends=None, limit=None, marks=None):
    """Horizontal bars made of parts, {bar: {part: size}}: a Figure. Behind each bar its text of `ends`, or else its sum.

    `limit`: a size beyond which there is nothing, drawn as a line. `marks`: sizes to compare with, {name: size}, dashed lines.
    """
    parts = list(dict.fromkeys(part for sizes in bars.values() for part in sizes))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 1.5 + 0.45 * len(bars)))
        left = np.zeros(len(bars))
        for part, color in zip(parts, PALETTE[: len(parts)], strict=True):
            sizes = np.array([sizes.get(part, 0) for sizes in bars.values()])
            if not sizes.any():  # its colour stays its own
                continue
            axis.barh(list(bars), sizes, left=left, height=0.7, color=color, edgecolor="white", label=part)
            left += sizes
        for height, (total, text) in enumerate(zip(left, ends or [f"{total:,.1f}" for total in left], strict=True)):
            axis.text(total, height, f"  {text}", va="center", weight="bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if marks else None)
        axis.set(title=title, xlabel=xlabel, xlim=(0, 1.25 * left.max() if limit is None else 1.02 * limit))
        if limit is not None:
            axis.axvline(limit, color="black")
        axis.invert_yaxis()
        for name, size in (marks or {}).items():
            axis.axvline(size, color="black", linewidth=1, linestyle="--", zorder=0)
            axis.annotate(name, (size, 0), xycoords=("data", "axes fraction"), xytext=(3, 4), textcoords="offset points", fontsize=9)
        axis.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=min(4, len(parts)), frameon=False)
    plt.close(figure)
    return figure


@readable
def plot_bars(values, title, xlabel, chosen=None, form="{:.1f}"):
    """A horizontal bar for each of `values`, {name: number}, with its number behind it, `chosen` in blue: a Figure."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 1 + 0.36 * len(values)))
        colors = [BLUE if name == chosen else "#9a9a9a" for name in values]
        bars = axis.barh(list(values), list(values.values()), height=0.65, color=colors)
        axis.bar_label(bars, [form.format(value) for value in values.values()], padding=4, weight="bold")
        axis.set(title=title, xlabel=xlabel, xlim=(0, 1.15 * max(values.values())))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
    plt.close(figure)
    return figure


@readable
def plot_levels(scaled, grids, xlabel):
    """A histogram of `scaled` weights and below it the levels of each grid, {name: (levels, color)}: a Figure."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 3.4))
        top = axis.hist(scaled, bins=121, color="#c9c9c9")[0].max()
        for row, (name, (levels, color)) in enumerate(grids.items()):
            low = -(0.13 + 0.14 * row) * top
            axis.vlines(levels, low, low + 0.1 * top, color=color, linewidth=2)
            axis.text(1.06, low + 0.05 * top, name, color=color, va="center", weight="bold")
        axis.set(xlim=(-1.05, 1.4), yticks=[], xlabel=xlabel, ylabel="how many weights")
        axis.grid(visible=False)
    plt.close(figure)
    return figure


@readable
def plot_shares(runs, title, measure="lenient"):
    """`Evaluation`s of the same questions, {name: run}: the share of `measure` in % as dots with 95 % intervals: a Figure."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.6, 1 + 0.45 * len(runs)))
        for height, run in enumerate(runs.values()):
            value, low, high = run.summary().loc[measure]
            color = GREY if height else BLUE
            axis.errorbar(value, height, xerr=[[value - low], [high - value]], fmt="o", color=color, ms=8, linewidth=2)
            axis.text(high + 1, height, f"{value:.1f} %", va="center", color=color, weight="bold")
        axis.set_yticks(range(len(runs)), runs)
        axis.set(ylim=(len(runs) - 0.5, -0.5), title=title, xlabel=f"% of {len(run.rows)} questions, with 95 % intervals")
        axis.set_xlim(0, 1.15 * axis.get_xlim()[1])
        axis.grid(axis="y", visible=False)
    plt.close(figure)
    return figure


def draw_tokens(rows, special_ids=(), width=64):
    """Tokens as boxes, rows [(id, text, part)]: a Figure. A colour a part, the id below, special ones bold; · is a space."""
    parts = list(dict.fromkeys(part for *_, part in rows))
    colors = dict(zip(parts, ["#e4e4e4", "#b5d9f0", "#f7cfa3"][: len(parts)], strict=True))
    column, line, boxes = 0, 0, []
    for number, text, part in rows:
        shown = text.replace("\n", "↵").replace(" ", "·")
        cells = max(len(shown), 0.8 * len(str(number))) + 0.9
        if column + cells > width:
            column, line = 0, line + 1
        boxes.append((column, line, cells, shown, number, part))
        column, line = (0, line + 1) if text.endswith("\n") else (column + cells, line)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.4, 0.42 * (line + 1)))
        axis.set(xlim=(0, width + 12), ylim=(line + 1, 0))
        axis.axis("off")
        for column, line, cells, shown, number, part in boxes:
            middle = {"x": column + cells / 2 - 0.1, "family": "monospace", "ha": "center", "va": "center"}
            axis.add_patch(plt.Rectangle((column, line), cells - 0.2, 0.88, color=colors[part], linewidth=0))
            axis.text(y=line + 0.3, s=shown, fontsize=10, weight="bold" if number in special_ids else "normal", **middle)
            axis.text(y=line + 0.69, s=number, fontsize=7.5, color="#444444", **middle)
        for part in parts:
            first = next(box[1] for box in boxes if box[-1] == part)
            axis.text(width + 1, first + 0.44, part.replace(" ", "\n"), va="center", color="#444444", weight="bold", fontsize=10)
    plt.close(figure)
    return figure
