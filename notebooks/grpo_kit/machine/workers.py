"""A small model of a training step's time against the number of workers that write completions and that train.

A worker's time is a straight line in its completions, for writing as for training. Workers share the completions evenly, nobody
waits for a long one, and what joins them takes a fixed time. Seconds and completions throughout; nothing here knows what a worker is.
"""

from dataclasses import dataclass

import numpy as np

from .memory import count_parameters, frozen_bytes, kv_bytes
from .step_time import FIXED, MOVES, REACHED, WAIT


@dataclass(frozen=True)
class Worker:
    """Seconds of one worker: `writing` and `training` as (however few completions, and for each); `joining`, once a step."""

    writing: tuple
    training: tuple
    joining: float = 0.0

    def writes(self, completions):
        return self.writing[0] + self.writing[1] * completions

    def trains(self, completions):
        return self.training[0] + self.training[1] * completions

    def together(self, completions, workers):
        """A step in which every worker writes its share, then trains on it."""
        return self.writes(completions / workers) + self.trains(completions / workers) + self.joining * (workers > 1)

    def apart(self, completions, writers, trainers):
        """A step in which some write while the others wait, then the others train."""
        return self.writes(completions / writers) + self.trains(completions / trainers) + self.joining

    def one_step_off(self, completions, writers, trainers):
        """A step in which both work at once: one part trains on the completions that the other wrote during the step before."""
        return max(self.writes(completions / writers), self.trains(completions / trainers)) + self.joining

    def best(self, step, completions, workers):
        """(writers, seconds) of the quickest division of `workers`; `step` is `apart` or `one_step_off` of this worker."""
        return min(((writers, step(completions, writers, workers - writers)) for writers in range(1, workers)), key=lambda pair: pair[1])

    def nearly_best(self, step, completions, workers, share=0.05):
        """(least, most) writers whose step takes at most so large a share longer than the best, in one unbroken range around it."""
        best, seconds = self.best(step, completions, workers)
        good = [step(completions, writers, workers - writers) <= (1 + share) * seconds for writers in range(1, workers)]
        least = best - next((n for n, fine in enumerate(good[best - 1 :: -1]) if not fine), best) + 1
        return least, best + next((n for n, fine in enumerate(good[best - 1 :]) if not fine), workers - best) - 1


def calibrate(steps, joining=0.0):
    """A `Worker` from steps of one process: [(completions, seconds of writing, seconds of training)], of two sizes at least."""
    completions, writing, training = np.array(steps, dtype=float).T
    if len(set(completions)) < 2:
        raise ValueError("A line needs steps of two sizes: measure with another number of completions too.")
    lines = [np.polynomial.Polynomial.fit(completions, seconds, 1).convert().coef for seconds in (writing, training)]
    return Worker(*[tuple(map(float, line)) for line in lines], joining=joining)


def gpu_worker(config, card, prompt, length, joined=25e9):
    """The `Worker` that one GPU is on paper, with 16-bit weights, by the constants that `step_time` was fitted with.

    Writing a token of all its completions moves the weights and half of each full-length KV cache; training is 6 operations a
    weight and token. Joining moves the 16-bit weights once at `joined` bytes a second.
    """
    count = count_parameters(config)
    weights = frozen_bytes(count, "16-bit")
    cache = kv_bytes(config, prompt + length / 2)
    operations = 6 * (count["linear"] + count["rest"]) * (prompt + length)
    return Worker(writing=(length * (MOVES * weights / card.bandwidth + WAIT), length * MOVES * cache / card.bandwidth),
                  training=(FIXED, operations / (REACHED * card.flops)), joining=weights / joined)
