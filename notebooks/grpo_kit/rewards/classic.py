"""The reward functions that most GRPO notebooks of 2025 share, faults included, as a lesson.

They score exactly as those do, and print nothing. They take chat completions, one message each.
The five add up to 4.0 on paper; no completion earns more than 3.5. `functions` has the repaired ones.
"""

import re

STRICT_LAYOUT = re.compile(r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$")
SOFT_LAYOUT = re.compile(r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>")


def extract_hash_answer(solution):
    """Return what follows the first `####`, commas and all, or None (some recipes: IndexError)."""
    return solution.split("####")[1].strip() if "####" in solution else None


def extract_xml_answer(text):
    """Return what follows the last `<answer>`, up to a closing tag; without tags, the whole text."""
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


def contents(completions):
    """Return the text of each chat completion's first message."""
    return [completion[0]["content"] for completion in completions]


def correctness_reward_func(prompts, completions, answer, **kwargs):
    """2.0 where the extracted string equals the gold string; rows past the shorter list are dropped."""
    extracted = [extract_xml_answer(text) for text in contents(completions)]
    return [2.0 if text == gold else 0.0 for text, gold in zip(extracted, answer)]


def int_reward_func(completions, **kwargs):
    """0.5 where the extracted string is all digits to `str.isdigit`: `²` is, `-10` is not."""
    return [0.5 if extract_xml_answer(text).isdigit() else 0.0 for text in contents(completions)]


def strict_format_reward_func(completions, **kwargs):
    """0.5 for the layout with one line in each block (`.` does not match a newline)."""
    return [0.5 if STRICT_LAYOUT.match(text) else 0.0 for text in contents(completions)]


def soft_format_reward_func(completions, **kwargs):
    """0.5 for the layout with no newline inside a block, so never together with the strict one."""
    return [0.5 if SOFT_LAYOUT.match(text) else 0.0 for text in contents(completions)]


def count_xml(text):
    """0.125 for each tag with its newlines, less 0.001 twice for each character after the end."""
    score = 0.125 * (text.count("<reasoning>\n") == 1) + 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        # Without the last newline the split finds nothing, and the whole text is charged.
        score += 0.125 - 0.001 * len(text.split("\n</answer>\n")[-1])
    if text.count("\n</answer>") == 1:
        score += 0.125 - 0.001 * (len(text.split("\n</answer>")[-1]) - 1)
    return score


def xmlcount_reward_func(completions, **kwargs):
    """`count_xml` of each completion: at most 0.5, no lower bound."""
    return [count_xml(text) for text in contents(completions)]


def containment_reward_func(prompts, completions, answer, **kwargs):
    """1.0 where the gold string occurs anywhere from the first `<answer>` to the last `</answer>`."""
    tails = [text.partition("<answer>")[2] for text in contents(completions)]
    blocks = [tail.rpartition("</answer>")[0].strip() for tail in tails]
    return [1.0 if gold in block else 0.0 for block, gold in zip(blocks, answer)]
