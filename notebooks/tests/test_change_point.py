"""The step of a rise, found in curves whose rise is known."""

import numpy as np
import pytest
from scipy.special import expit

from grpo_kit.training.change_point import find_rise

STEPS = np.arange(1, 49)


def curve(middle, width=2.0, noise=0.06, seed=0):
    return 0.1 + 0.8 * expit((STEPS - middle) / width) + noise * np.random.default_rng(seed).normal(size=len(STEPS))


@pytest.mark.parametrize("middle, width", [(10.0, 0.5), (20.0, 2.0), (33.0, 4.0)])
def test_a_clean_rise_is_found_where_it_is(middle, width):
    rise = find_rise(STEPS, curve(middle, width, noise=1e-4))
    assert abs(rise.step - middle) <= 0.25 and rise.high - rise.low <= 0.5
    takes, low, high = rise.takes
    assert takes == pytest.approx(4.394 * width, rel=1e-3) and low <= takes <= high  # from a tenth of a logistic slope to nine tenths
    assert rise.explained > 0.999 and np.abs(rise.fitted - curve(middle, width, noise=0)).max() < 0.02


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rises = [find_rise(STEPS, curve(20.0, 3.0, seed=seed), draws=200) for seed in range(100)]
    assert 85 <= sum(rise.low - 0.125 <= 20 <= rise.high + 0.125 for rise in rises) <= 100
    assert all(rise.low <= rise.high for rise in rises)


def test_more_noise_gives_a_wider_interval_and_explains_less():
    quiet, loud = (find_rise(STEPS, curve(20.0, noise=noise)) for noise in (0.03, 0.3))
    assert loud.high - loud.low > 2 * (quiet.high - quiet.low) and loud.explained < quiet.explained


def test_a_fall_is_no_rise():
    falling = find_rise(STEPS, -curve(20.0))
    assert falling.explained < 0.2


def test_the_scale_and_the_numbering_of_the_steps_do_not_matter():
    values = curve(20.0)
    assert find_rise(STEPS + 100, 1000 * values - 7).step == find_rise(STEPS, values).step + 100


@pytest.mark.parametrize("values", [[0.0] * 20, [0.1, 0.9] * 3])
def test_without_spread_or_with_a_handful_of_values_it_says_so(values):
    with pytest.raises(ValueError, match="show no rise"):
        find_rise(range(len(values)), values)


def test_the_looks_around_a_middle_are_never_one_look():
    from grpo_kit.training.change_point import Rise

    def between(low, high):
        return Rise(0.0, low, high, STEPS, 1.0, (1, 1, 1)).between([0, 2, 4, 6])

    assert between(2.5, 3.0) == (2, 4) and between(2.0, 2.0) == (0, 4) and between(2.5, 4.25) == (2, 6)
    assert between(0.0, 6.0) == (0, 6)  # the log's ends
