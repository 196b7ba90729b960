"""The rewards as verl calls them: one completion at a time.

verl imports this by `reward.custom_reward_function.path=pkg://grpo_kit.rewards.verl`. Standard library only, as the rewards are.
"""

from .answers import gold_number
from .functions import correctness_reward, format_reward, integer_reward, tag_reward

WEIGHTS = {correctness_reward: 1.0, format_reward: 2.0, tag_reward: 1.0, integer_reward: 1.0}  # as in chapter 05


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **more):
    """{"score": the weighted sum, and each reward under its name} of one completion, a text; verl trains on "score" and logs the rest.

    `ground_truth` is the gold answer, and ValueError where it is no number; `data_source` and `extra_info` are the row's, not used here.
    """
    if gold_number(ground_truth) is None:
        raise ValueError(f"The gold answer {ground_truth!r} of a problem of {data_source} is no number: mend the row, or leave it out.")
    paid = {reward.__name__: reward(completions=[solution_str], answer=[ground_truth])[0] for reward in WEIGHTS}
    return {"score": sum(weight * paid[reward.__name__] for reward, weight in WEIGHTS.items())} | paid
