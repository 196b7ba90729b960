"""What chance would do: the paired test, intervals over seeds, before against after, pass@k and votes."""

from collections import Counter

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from .score import MEASURES, as_bools


def paired_test(before, after):
    """Count the pairs that changed, and how easily chance does that: (gained, lost, p).

    `before` and `after` are bools, one a question; ValueError where they are not, or not equally many. p is McNemar's
    exact test (statsmodels).
    """
    before, after = as_bools(before), as_bools(after)
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(f"Pairs need one answer a question, before and after: these are {before.shape} and {after.shape}.")
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained, lost, float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue)


def paired_line(before, after):
    """`paired_test` in words: "gained  59, lost   0, p < 0.001"."""
    gained, lost, p = paired_test(before, after)
    return f"gained {gained:3}, lost {lost:3}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def over_seeds(values):
    """The mean of a measure over seeds, and half the width of its 95 % interval (Student's t): two floats.

    `values` has one number a training. With three it is an honest interval, and wide. ValueError with fewer than two,
    or with one that is not finite.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} training has no spread: an interval over seeds needs at least two.")
    if not np.isfinite(values).all():
        raise ValueError(f"A training without a result has no place in the mean of {list(values)}: leave it out, and say so.")
    return float(np.mean(values)), float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def compare(before, after):
    """Two `Evaluation`s of the same questions, side by side: a DataFrame ready to read.

    One row a measure: before and after with their 95 % intervals, the difference in points, the
    questions that gained and lost it, and p of the paired test. Raises ValueError if the
    prompts differ.
    """
    if list(before.rows["prompt"]) != list(after.rows["prompt"]):
        raise ValueError("Not the same questions: evaluate both on one dataset, with one tokenizer.")
    old, new = before.summary(), after.summary()
    change = (new["value"] - old["value"]).round(1)
    table = {}
    for name in MEASURES:
        pair = old.loc[name], new.loc[name]
        cells = [f"{value:.1f} % [{low:.1f}, {high:.1f}]" for value, low, high in pair]
        gained, lost, p = paired_test(before.rows[name], after.rows[name])
        table[name] = [*cells, change[name], gained, lost, "<0.001" if p < 0.001 else f"{p:.3f}"]
    cells = [f"{one.loc['mean tokens', 'value']:.1f}" for one in (old, new)]
    table["mean tokens"] = [*cells, change["mean tokens"], "", "", ""]
    columns = ["before", "after", "difference", "gained", "lost", "p"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)


def pass_at_k(right, k):
    """Each question's chance that of `k` completions at least one is right: floats in [0, 1], shape (questions,).

    `right`: bools, shape (questions, n), one for each sampled completion. With c right ones the estimate is
    1 - C(n - c, k) / C(n, k), which is unbiased (Chen et al. 2021, arXiv:2107.03374); the quotient is the product
    of 1 - k / i over the i from n - c + 1 to n. Raises ValueError unless k is a whole number from 1 to n.
    """
    right = as_bools(right)
    _, n = right.shape
    if k not in range(1, n + 1):
        raise ValueError(f"pass@{k} needs a k from 1 to {n}, the number of completions to each question.")
    factors = [1 - k / np.arange(n - c + 1, n + 1) for c in right.sum(axis=1)]
    return np.array([1 - np.maximum(some, 0).prod() for some in factors])


def majority_vote(answers, golds, k, draws=50, seed=3407):
    """Each question's chance that the commonest of `k` answers is the gold: floats in [0, 1], shape (questions,).

    `answers`: for each question its n sampled numbers, None or NaN where a completion holds none: those do not vote.
    The mean over `draws` random choices of k completions. Of answers with equally many votes the one drawn
    first wins, which is a fair lot. Raises ValueError unless 1 <= k <= n, and where a gold is missing.
    """
    if draws < 1 or not len(golds) or pd.isna(np.array(golds, dtype=object)).any():
        raise ValueError("A vote needs at least one question and one draw, and a gold for each question.")
    rng = np.random.default_rng(seed)
    won = np.zeros(len(answers))
    for question, (given, gold) in enumerate(zip(answers, golds, strict=True)):
        if k not in range(1, len(given) + 1):
            raise ValueError(f"A vote of {k} needs a k from 1 to {len(given)}, the number of completions to each question.")
        for _ in range(draws):
            drawn = [given[completion] for completion in rng.permutation(len(given))[:k]]
            votes = Counter(number for number in drawn if number is not None and number == number).most_common(1)
            won[question] += bool(votes) and votes[0][0] == gold
    return won / draws
