"""The reward functions, in the form TRL calls them: one number for each completion.

A completion is a string or a list of chat messages. `**columns` takes what else TRL passes
(`prompts`, `completion_ids`, the dataset's other columns). A right answer earns 2.0, all the
rest together at most 1.0, so a right answer in any shape outranks a wrong one in perfect shape.
"""

import re
from functools import wraps

from .answers import TAGS, extract_answer, parse_number

ANY_TAG = re.compile("(" + "|".join(TAGS) + ")")


def completion_text(completion):
    """Return a completion's text: the string, or the last chat message's; "" for None."""
    if isinstance(completion, list):
        completion = completion[-1]["content"] if completion else None
    return completion or ""


def correctness_reward(completions, answer, **columns):
    """2.0 where the answer block holds the gold number, else 0.0.

    `answer` has one gold a completion; a length that differs is a ValueError. A gold that is
    no number gives None: TRL leaves the row out of this reward.
    """
    rewards = []
    for completion, gold in zip(completions, answer, strict=True):
        gold_number = parse_number(str(gold))
        number = parse_number(extract_answer(completion_text(completion)))
        rewards.append(None if gold_number is None else 2.0 * (number == gold_number))
    return rewards


def format_reward(completions, **columns):
    """0.5 where the four tags stand in order, text in both blocks and none outside, else 0.0."""
    rewards = []
    for completion in completions:
        pieces = ANY_TAG.split(completion_text(completion))  # outside, tag, inside, tag, outside, …
        filled = [piece.strip() != "" for piece in pieces[0::2]]
        kept = pieces[1::2] == TAGS and filled == [False, True, False, True, False]
        rewards.append(0.5 * kept)
    return rewards


def tag_reward(completions, **columns):
    """0.0625 for each tag that occurs once and in order: partial credit, at most 0.25."""
    rewards = []
    for completion in completions:
        text, reward, end = completion_text(completion), 0.0, 0
        for tag in TAGS:
            start = text.find(tag, end)
            if start >= 0 and text.count(tag) == 1:
                reward, end = reward + 0.0625, start + len(tag)
        rewards.append(reward)
    return rewards


def integer_reward(completions, **columns):
    """0.25 where the answer block holds a whole number, right or wrong, else 0.0."""
    answers = [extract_answer(completion_text(completion)) for completion in completions]
    return [0.25 * isinstance(parse_number(answer), int) for answer in answers]


def zero_truncated(reward_func, stop_ids):
    """Return `reward_func` with 0.0 for each completion cut off by the length limit.

    A finished completion's last token is in `stop_ids`: the end-of-text tokens and the padding
    token. TRL passes `completion_ids`, one list of token ids a completion, and logs the reward
    under the function's name, which is kept.
    """

    @wraps(reward_func)
    def reward_of_finished(completions, completion_ids, **columns):
        rewards = reward_func(completions=completions, **columns)
        pairs = zip(rewards, completion_ids, strict=True)
        # `reward and`: None stays None, and an empty completion, which earns 0.0, has no last token.
        return [0.0 if reward and ids[-1] not in stop_ids else reward for reward, ids in pairs]

    return reward_of_finished
