"""Chapter 10's stored trainings as a table, and its pictures."""

import numpy as np
import pytest

from grpo_kit.plots import plot_price_runs, plot_reward_and_right, price_runs, price_summary

COLORS = {"even": "green", "mended": "blue"}


def run(price, seed, right, layout, **more):
    after = {"lenient, greedy": right, "layout, greedy": layout}
    return {"price": price, "seed": seed, "after": after, "curves": {"reward": [9.0, 1.0, 2.0, 3.0, 4.0, 5.0]}} | more


@pytest.fixture
def runs():
    counted = {"second reasoning": {"greedy": 2.0}, "no opening tag": {"greedy": 99.0}, "replies": {"greedy": ["<reasoning> first", "second"]}}
    return price_runs([run("even", 7, 90.0, 0.0, **counted), run("even", 8, 80.0, 95.0), run("mended", 7, 70.0, 30.0), run("mended", 8, 60.0, 19.5)])


def test_a_row_for_each_training_and_nan_where_nothing_was_counted(runs):
    assert runs.loc[("even", 7)].to_dict() == {"reward": 3.0, "right": 90.0, "layout": 0.0, "doubled": 2.0, "unopened": 99.0, "reply": "second"}
    assert np.isnan(runs.loc[("even", 8), "doubled"]) and runs.loc[("even", 8), "reply"] == ""


def test_the_summary_gives_mean_lowest_and_highest(runs):
    table = price_summary(runs)
    assert list(table.index) == ["even", "mended"]
    assert table.loc["even"].tolist() == ["3.0 (3.0 to 3.0)", "85.0 (80.0 to 90.0)", "47.5 (0.0 to 95.0)", "1 of 2 seeds"]
    assert table.loc["mended", "layout lost"] == "1 of 2 seeds"


def test_every_training_is_a_dot_and_a_low_one_is_named(runs):
    figure = plot_price_runs(runs, COLORS, {"right": "Right", "layout": "Layout"})
    right, layout = figure.axes
    assert [text.get_text() for text in layout.texts] == ["7", "8", "7"] and not right.texts
    dots = [line.get_ydata().tolist() for line in right.lines if line.get_marker() == "o"]
    assert dots == [[90.0, 80.0], [70.0, 60.0]]
    heights = sorted(text.get_position()[1] for text in layout.texts[1:])
    assert heights[1] - heights[0] >= 6


def test_the_curves_are_means_of_the_last_five_steps():
    logs = {"even": [{"reward": float(step), "rewards/lenient_accuracy/mean": step / 10} for step in range(1, 7)]}
    reward, right = plot_reward_and_right(logs, COLORS, ["one", "two"]).axes
    assert reward.lines[0].get_ydata().tolist() == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    assert right.lines[0].get_ydata()[-1] == pytest.approx(40.0)
    assert [text.get_text() for text in right.texts] == ["even"]
