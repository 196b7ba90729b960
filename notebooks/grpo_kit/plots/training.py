"""What a training showed, and what its model wrote."""

import html
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .style import BLUE, GREEN, ORANGE, STYLE, readable


@readable
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
    panels |= {"kl": "KL to the base model"} if "kl" in logs and logs["kl"].any() else {}  # with beta 0 a GPU logs zeros
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


@readable
def plot_log(panels):
    """Curves against the training step, a panel each: a Figure. `panels`: {title: {label, "" for none: Series indexed by step}}."""
    columns = 3 if len(panels) > 4 else len(panels)
    rows = math.ceil(len(panels) / columns)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 2.8 * rows))
        for place, (title, curves) in enumerate(panels.items(), start=1):
            axis = figure.add_subplot(rows, columns, place, title=title)
            for (label, values), color in zip(curves.items(), [BLUE, ORANGE, GREEN]):
                _draw_curve(axis, pd.Series(values.index), values.astype(float).reset_index(drop=True), color, label)
                if len(values) <= 60:
                    axis.lines[-2].set(markersize=9, alpha=0.55, clip_on=False)  # a few dots may be large
            axis.autoscale(axis="y")  # the first curve's limits are not the others'
            axis.set_ylim(bottom=min(0, axis.dataLim.y0))
            least = 0.08 * axis.get_ylim()[1]
            for below, text in itertools.pairwise(sorted(axis.texts, key=lambda text: text.get_position()[1])):
                place, height = text.get_position()
                text.set_position((place, max(height, below.get_position()[1] + least)))  # beside the others, not on them
            if any(curves):
                axis.legend(frameon=False, fontsize=9, loc="lower right")
        windows = sorted({max(1, len(values) // 8) for curves in panels.values() for values in curves.values()})
        figure.supxlabel(f"training step (dots: each one, line: mean of {' or '.join(map(str, windows))} steps)", fontsize=11)
    plt.close(figure)
    return figure


def _draw_curve(axis, steps, values, color=BLUE, label=""):
    smooth = values.rolling(max(1, len(values) // 8), center=True, min_periods=1).mean()
    axis.plot(steps, values, ".", color=color, alpha=0.3, markersize=5, markeredgewidth=0)
    axis.plot(steps, smooth, color=color, linewidth=2, label=label or None)
    end = smooth.iloc[-1]
    axis.text(steps.iloc[-1], end, f"  {end:.3g}", va="center", color=color, weight="bold")
    axis.margins(x=0.02)
    axis.set_ylim(bottom=min(0, values.min()))


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
