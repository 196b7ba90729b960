"""The equations in a completion: which count as steps, and which are true."""

import pytest

from grpo_kit.rewards.steps import EQUATION, is_true, works_first


@pytest.mark.parametrize("text, first", [
    ("42", 0.0),
    ("12 - 30 = -18\n-18 + 60 = 42", 1.0),
    ("<answer>\n42\n</answer> since 12 + 30 = 42", 0.0),
    ("<reasoning>\n1,000 / 4 = $250\n</reasoning>\n<answer>\n250\n</answer>", 1.0),
    ([{"role": "assistant", "content": "3 \\times 4 = 12"}], 1.0),
    ("12 + 30", 0.0),
])
def test_steps_are_an_equation_ahead_of_the_answer(text, first):
    assert works_first([text]) == [first]


@pytest.mark.parametrize("text, true", [
    ("12 + 30 = 42", True), ("12 + 30 = 43", False), ("-2 - 1 = -3", True), ("1,000 * 2 = 2,000", True), ("7 / 2 = 3.5", True),
    ("7 ÷ 0 = 7", False), ("3 × 4 = 12", True), ("3 \\times 4 = 11", False), ("5 \u2212 2 = 3", True),
])
def test_an_equation_is_true_or_not(text, true):
    assert is_true(EQUATION.search(text)) is true
