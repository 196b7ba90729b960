"""When does a curve rise? The step of the change, found in a training's log rather than by eye, with its uncertainty."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

WIDTHS = 0.25 * 2 ** (np.arange(11) / 2)  # from 0.25 to 8 steps; from a tenth of a rise to nine tenths it is 4.4 widths


@dataclass(frozen=True)
class Rise:
    """A rise in a curve: `step` is its middle, between `low` and `high` in 95 % of the bootstrap's draws.

    `fitted` has the curve's shape: the level before, the level after, and a logistic slope between them.
    `explained` is the share of the curve's variance that it accounts for, in [0, 1].
    `takes`: the steps from a tenth of the rise to nine tenths, and between what they lie in 95 % of the draws, (takes, low, high).
    """

    step: float
    low: float
    high: float
    fitted: np.ndarray
    explained: float
    takes: tuple

    def between(self, moments):
        """(the last of the moments before `low`, the first after `high`); where there is none, the log's end."""
        before, after = [step for step in moments if step < self.low], [step for step in moments if step > self.high]
        return (before[-1] if before else moments[0]), (after[0] if after else moments[-1])


def slopes(moments):
    """All slopes that are tried: (middles, widths, shapes); `shapes` (tried, n), each with mean 0 and length 1."""
    middles, widths = (part.ravel() for part in np.meshgrid(np.arange(moments[0], moments[-1] + 0.25, 0.25), WIDTHS))
    shapes = expit((moments - middles[:, None]) / widths[:, None])
    shapes -= shapes.mean(axis=1, keepdims=True)
    return middles, widths, shapes / np.linalg.norm(shapes, axis=1, keepdims=True)


def find_rise(moments, values, draws=1000, seed=3407):
    """The slope that leaves a curve the smallest squared error, a `Rise`; and how it moves in `draws` curves of the bootstrap.

    `moments` (training steps, ascending) and `values`: shape (n,). ValueError with fewer than 8 values, or without any spread.
    """
    moments, values = np.asarray(moments, float), np.asarray(values, float)
    if len(values) < 8 or values.std() == 0:
        raise ValueError(f"{len(values)} values with a spread of {values.std():g} show no rise: log at least 8 that differ.")
    middles, widths, shapes = slopes(moments)
    mean, around = values.mean(), values - values.mean()
    best = (shapes @ around).argmax()  # the largest correlation is the smallest squared error
    fitted = mean + shapes[best] * (shapes[best] @ around)
    signs = np.random.default_rng(seed).choice([-1, 1], (draws, len(values)))
    again = ((fitted + signs * (values - fitted)) @ shapes.T).argmax(axis=1)  # the best slope of each redrawn curve
    explained = 1 - ((values - fitted) ** 2).sum() / (around**2).sum()
    low, high = np.quantile(middles[again], [0.025, 0.975])
    takes = 2 * np.log(9) * np.array([widths[best], *np.quantile(widths[again], [0.025, 0.975])])
    return Rise(float(middles[best]), low, high, fitted, float(max(0.0, explained)), tuple(takes))
