"""The pictures and tables a reader looks at; each function gives a Figure or a table to display."""

import html
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey print.
GREY, BLUE = "#6e6e6e", "#0072b2"
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def plot_training(log_history):
    """A training's curves, from `trainer.state.log_history` of TRL's GRPOTrainer: a Figure.

    One panel each for the reward, every reward function's mean, the length in tokens and, where
    it was logged, KL. Dots are the logged steps, the line is their running mean, the number its
    end. There is no band: a step's completions earn nearly nothing or nearly all, so that one
    standard deviation around their mean would pass the most that can be earned.
    """
    logs = pd.DataFrame([log for log in log_history if "reward" in log])
    if logs.empty:
        raise ValueError("No logged step holds a reward: call trainer.train() first, with logging_steps=1.")
    panels = {"reward": "reward"}
    panels |= {key: key.split("/")[1] for key in logs.filter(regex="^rewards/.*/mean$")}
    panels |= {"completions/mean_length": "completion length, tokens"}
    panels |= {"kl": "KL to the base model"} if "kl" in logs else {}
    columns = 3 if len(panels) <= 6 else 4
    rows = math.ceil(len(panels) / columns)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 2.6 * rows))
        for place, (key, title) in enumerate(panels.items(), start=1):
            axis = figure.add_subplot(rows, columns, place, title=title)
            _draw_curve(axis, logs["step"], logs[key].astype(float))
        figure.supxlabel("training step (dots: each one, line: running mean)", fontsize=11)
    plt.close(figure)  # a notebook shows the returned figure; left open, it would show it twice
    return figure


def _draw_curve(axis, steps, values):
    smooth = values.rolling(max(1, len(values) // 8), center=True, min_periods=1).mean()
    axis.plot(steps, values, ".", color=BLUE, alpha=0.3, markersize=5, markeredgewidth=0)
    axis.plot(steps, smooth, color=BLUE, linewidth=2)
    end = smooth.iloc[-1]
    axis.text(steps.iloc[-1], end, f"  {end:.3g}", va="center", color=BLUE, weight="bold")
    axis.margins(x=0.02)
    axis.set_ylim(bottom=min(0, values.min()))


def plot_before_after(before, after, title="Before and after training"):
    """Two `Evaluation`s of the same questions as dots with 95 % intervals: a Figure.

    Rows: the layout, the strict and the lenient answer; the axis is the share of questions in %.
    """
    labels = {"layout": "layout kept", "strict": "right answer\nin the tag", "lenient": "right last\nnumber"}
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 3.6))
        for run, name, color, shift in [(before, "before", GREY, -0.14), (after, "after", BLUE, 0.14)]:
            table = run.summary().loc[list(labels)]
            heights = np.arange(len(labels)) + shift
            reach = [table["value"] - table["low"], table["high"] - table["value"]]
            axis.errorbar(table["value"], heights, xerr=reach, fmt="o", color=color, ms=9, linewidth=2.5)
            for value, high, height in zip(table["value"], table["high"], heights, strict=True):
                axis.text(high + 1.5, height, f"{name} {value:.0f} %", va="center", color=color, weight="bold")
        axis.set_yticks(range(len(labels)), labels.values())
        axis.set(xlim=(-1, 118), ylim=(len(labels) - 0.5, -0.5), title=title, xticks=range(0, 101, 20))
        axis.set_xlabel(f"% of {len(after.rows)} questions, with 95 % intervals")
        axis.grid(axis="y", visible=False)
        axis.spines["bottom"].set_bounds(0, 100)
    plt.close(figure)
    return figure


def completions_table(dataset, before, after, n=4, seed=0):
    """Questions drawn by `seed`, not picked, with the texts before and after: a pandas Styler."""
    if not len(dataset) == len(before.rows) == len(after.rows):
        raise ValueError("dataset, before and after differ in length: evaluate both on this dataset.")
    drawn = np.random.default_rng(seed).choice(len(dataset), min(n, len(dataset)), replace=False)
    chosen = [dataset[int(row)] for row in drawn]
    table = pd.DataFrame({"row": drawn})
    table["question"] = [row["question"] for row in chosen]
    table["gold"] = [row["answer"] for row in chosen]
    for name, run in {"before": before, "after": after}.items():
        marks = ["✓" if right else "✗" for right in run.rows["strict"].iloc[drawn]]
        texts = run.rows["text"].iloc[drawn]
        table[name] = [f"{mark}\n{text}" for mark, text in zip(marks, texts, strict=True)]
    caption = f"{len(drawn)} of {len(dataset)} questions, drawn by seed {seed}, not picked; ✓ right in the tag"
    # Escaped, or the browser would swallow the tags; the classes keep $5 and $7 from being a formula.
    style = table.style.format(lambda cell: html.escape(str(cell)).replace("\n", "<br>")).hide()
    style.set_table_attributes('class="tex2jax_ignore mathjax_ignore"').set_caption(caption)
    return style.set_properties(**{"text-align": "left", "vertical-align": "top", "max-width": "24em"})


PALETTE = [BLUE, "#009e73", "#bfe3d8", "#9a9a9a", "#cc79a7", "#e69f00", "#d55e00", "#56b4e9"]


def plot_parts(bars, title, xlabel, ends=None):
    """Horizontal bars made of parts, {bar: {part: size}}: a Figure. Behind each bar its text of `ends`, or else its sum."""
    parts = list(dict.fromkeys(part for sizes in bars.values() for part in sizes))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 1.5 + 0.45 * len(bars)))
        left = np.zeros(len(bars))
        for part, color in zip(parts, PALETTE[: len(parts)], strict=True):
            sizes = np.array([sizes.get(part, 0) for sizes in bars.values()])
            axis.barh(list(bars), sizes, left=left, height=0.7, color=color, edgecolor="white", label=part)
            left += sizes
        for height, (total, text) in enumerate(zip(left, ends or [f"{total:,.1f}" for total in left], strict=True)):
            axis.text(total, height, f"  {text}", va="center", weight="bold")
        axis.set(title=title, xlabel=xlabel, xlim=(0, 1.25 * left.max()))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=min(4, len(parts)), frameon=False)
    plt.close(figure)
    return figure


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
    colors = dict(zip(parts, ["#e4e4e4", "#b5d9f0", "#f7cfa3"], strict=True))
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
