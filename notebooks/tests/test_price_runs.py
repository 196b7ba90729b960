"""Chapter 10's stored trainings as a table, and its pictures."""

import numpy as np
import pytest

from grpo_kit.plots import plot_lists, plot_price_runs, plot_reward_and_right, price_runs

COLORS = {"even": "green", "mended": "blue"}


def run(price, seed, right, layout, **more):
    after = {"lenient, greedy": right, "layout, greedy": layout}
    return {"price": price, "seed": seed, "after": after, "curves": {"reward": [9.0, 1.0, 2.0, 3.0, 4.0, 5.0]}} | more


@pytest.fixture
def runs():
    counted = {"second reasoning": {"greedy": 2.0}, "no opening tag": {"greedy": 99.0}}
    return price_runs([run("even", 7, 90.0, 0.0, **counted), run("even", 8, 80.0, 95.0), run("mended", 7, 70.0, 30.0), run("mended", 8, 60.0, 19.5)])


def test_a_row_for_each_training_and_nan_where_nothing_was_counted(runs):
    assert runs.loc[("even", 7)].to_dict() == {"reward": 3.0, "right": 90.0, "layout": 0.0, "doubled": 2.0, "unopened": 99.0}
    assert np.isnan(runs.loc[("even", 8), "doubled"])


def test_every_training_is_a_dot_in_the_row_of_its_seed_and_the_start_a_line(runs):
    right, layout = plot_price_runs(runs, COLORS, {"right": "Right", "layout": "Layout"}, {"right": 9.0, "layout": 0.0}).axes
    dots = [line for line in right.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[90.0, 80.0], [70.0, 60.0]]
    assert all(line.get_ydata().round().tolist() == [0, 1] for line in dots)
    assert [label.get_text() for label in right.get_yticklabels()] == ["7", "8"]
    assert [list(axis.lines[-1].get_xdata()) for axis in (right, layout)] == [[9.0, 9.0], [0.0, 0.0]]


def test_a_list_is_a_row_with_its_seeds_and_their_mean_and_each_start_a_line(runs):
    [axis] = plot_lists(runs, "right", COLORS, {"untrained": 9.0, "prefilled": 95.0}, "A title").axes
    assert [line.get_xdata().tolist() for line in axis.lines[:4]] == [[90.0, 80.0], [85.0, 85.0], [70.0, 60.0], [65.0, 65.0]]
    assert [list(line.get_xdata()) for line in axis.lines[4:]] == [[9.0, 9.0], [95.0, 95.0]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["even", "mended"]


def test_the_curves_are_means_of_the_last_five_steps():
    logs = {"even": [{"reward": float(step), "rewards/lenient_accuracy/mean": step / 10} for step in range(1, 7)]}
    reward, right = plot_reward_and_right(logs, COLORS, ["one", "two"]).axes
    assert reward.lines[0].get_ydata().tolist() == [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    assert right.lines[0].get_ydata()[-1] == pytest.approx(40.0)
    assert [text.get_text() for text in right.texts] == ["even"] and right.get_xlim() == (1, 6)
