"""The reward functions, in the form TRL calls them: one number for each completion.

A completion is a string or a list of chat messages. `**columns` takes what else TRL passes
(`prompts`, `completion_ids`, the dataset's other columns). A right answer earns 2.0, all the
rest together at most 1.0, so a right answer in any shape outranks a wrong one in perfect shape.
"""

import re
from functools import wraps
from inspect import iscoroutinefunction

from .answers import TAGS, extract_answer, gold_number, parse_number

ANY_TAG = re.compile("(" + "|".join(TAGS) + ")")


def completion_text(completion):
    """Return a completion's text: the string, or the last chat message's, its text parts joined; "" for None."""
    if isinstance(completion, list):
        completion = completion[-1]["content"] if completion else None
    if isinstance(completion, list):
        completion = "".join(part.get("text") or "" for part in completion)
    return completion or ""


def correctness_reward(completions, answer, **columns):
    """2.0 where the answer block holds the gold number, else 0.0.

    `answer` has one gold a completion; a length that differs is a ValueError. A gold that is
    no number gives None: TRL leaves the row out of this reward.
    """
    rewards = []
    for completion, gold in zip(completions, answer, strict=True):
        wanted = gold_number(gold)
        number = parse_number(extract_answer(completion_text(completion)))
        rewards.append(None if wanted is None else 2.0 * (number == wanted))
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
    """Return `reward_func`, async or not, with 0.0 for each completion cut off by the length limit.

    Where the batch has a reward below 0.0 it is the lowest one: being cut off must not pay. A finished completion's
    last token is in `stop_ids`. TRL logs the reward under the function's name, which is kept.
    """

    def paid(rewards, completion_ids):
        lowest = min([0.0, *(reward for reward in rewards if reward is not None)])
        pairs = zip(rewards, completion_ids, strict=True)
        return [reward if reward is None or ids and ids[-1] in stop_ids else lowest for reward, ids in pairs]

    @wraps(reward_func)
    def reward_of_finished(completions, completion_ids, **columns):
        return paid(reward_func(completions=completions, completion_ids=completion_ids, **columns), completion_ids)

    @wraps(reward_func)
    async def awaited(**columns):
        return paid(await reward_func(**columns), columns["completion_ids"])

    return awaited if iscoroutinefunction(reward_func) or iscoroutinefunction(reward_func.__call__) else reward_of_finished
