"""When does a curve rise? The step of the change, found in a training's log rather than by eye, with its uncertainty."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

WIDTHS = 0.25 * 2 ** (np.arange(11) / 2)  # from 0.25 to 8 steps; from a tenth of a rise to nine tenths it is 4.4 widths


@dataclass(frozen=True)
class Rise:
    """A rise in a curve: `step` is its middle, between `low` and `high` with 95 % confidence.

    `fitted` has the curve's shape: the level before, the level after, and a logistic slope between them.
    `explained` is the share of the curve's variance that it accounts for, in [0, 1]. `middles` are the bootstrap's, shape (draws,).
    `takes`: the steps from a tenth of the rise to nine tenths, and its 95 % interval, (takes, low, high).
    """

    step: float
    low: float
    high: float
    fitted: np.ndarray
    explained: float
    middles: np.ndarray
    takes: tuple


def find_rise(moments, values, draws=1000, seed=3407):
    """The one rise that fits a curve best, by least squares: a `Rise`.

    `moments` (training steps, ascending) and `values`: shape (n,). The interval comes from `draws` curves made of the fit and its residuals
    with random signs (the wild bootstrap), each fitted anew. ValueError with fewer than 8 values, or without any spread.
    """
    moments, values = np.asarray(moments, float), np.asarray(values, float)
    if len(values) < 8 or values.std() == 0:
        raise ValueError(f"{len(values)} values with a spread of {values.std():g} show no rise: log at least 8 that differ.")
    middles, widths = (part.ravel() for part in np.meshgrid(np.arange(moments[0], moments[-1] + 0.25, 0.25), WIDTHS))
    shapes = expit((moments - middles[:, None]) / widths[:, None])  # (grid, n), each from 0 to 1
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1)

    def best(curves):  # of all shapes the one with the largest correlation leaves the smallest squared error
        return ((curves - curves.mean(axis=-1, keepdims=True)) @ (centred / length[:, None]).T).argmax(axis=-1)

    chosen = best(values)
    height = (values @ centred[chosen]) / length[chosen] ** 2
    fitted = values.mean() + height * centred[chosen]
    signs = np.random.default_rng(seed).choice([-1, 1], (draws, len(values)))
    drawn = best(fitted + signs * (values - fitted))
    explained = 1 - ((values - fitted) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    (low, high), takes = np.quantile(middles[drawn], [0.025, 0.975]), 2 * np.log(9) * np.array([widths[chosen], *np.quantile(widths[drawn], [0.025, 0.975])])
    return Rise(float(middles[chosen]), low, high, fitted, float(max(0.0, explained)), middles[drawn], tuple(takes))


def lag(first, second):
    """How many steps the rise `second` comes after `first`: (difference, low, high), with 95 % confidence.

    Both from the same moments of one training, found with the same `draws` and `seed`: then each draw gave the noise of a moment
    the same sign in both curves, so what shook both at once drops out of the difference. ValueError where the draws differ in number.
    """
    if len(first.middles) != len(second.middles):
        raise ValueError(f"{len(first.middles)} draws against {len(second.middles)}: find both rises with the same draws and seed.")
    low, high = np.quantile(second.middles - first.middles, [0.025, 0.975])
    return second.step - first.step, low, high
