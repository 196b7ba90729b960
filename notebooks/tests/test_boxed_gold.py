"""Chapter 10's `gold_text`, as its cell has it: the gold of a solution that ends in `#### 72` or in `\\boxed{72}`."""

import json
from pathlib import Path

import pytest

from grpo_kit.rewards.answers import parse_number


@pytest.fixture(scope="module")
def gold_text():
    cells = json.loads((Path(__file__).parents[1] / "10_grpo_without_vllm.ipynb").read_text("utf-8"))["cells"]
    [source] = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code" and "def gold_text" in "".join(cell["source"])]
    names = {"parse_number": parse_number}
    exec(source, names)
    return names["gold_text"]


@pytest.mark.parametrize("solution, gold", [
    ("6 * 12 = 72\n#### 72", "72"), (r"so \boxed{72}.", "72"), (r"First \boxed{3}. Finally \boxed{4}.", "4"), ("#### 3\nthen \\boxed{4}", "4"),
    ("\\boxed{3}\n#### 4", "4"), (r"\boxed{1{,}200}", "1{,}200"), (r"\boxed{\text{72 apples}}", r"\text{72 apples}"), (r"\boxed{ -3 }", "-3"),
    ("#### 72元", "72元"), (r"\boxed{\$460}", r"\$460"), (r"\boxed{3} and \boxed 4", "4")])
def test_the_last_of_either_is_the_gold(gold_text, solution, gold):
    assert gold_text(solution) == gold and parse_number(gold) is not None


@pytest.mark.parametrize("solution", [
    r"First \boxed{3}. Finally \boxed{\frac{3}{4}}", r"\boxed{3}, no: \boxed{\frac{\sqrt{2}}{2}}", r"\boxed{3} and \boxed{x}", r"\boxed{3} and \boxed x",
    "#### 3\nor \\boxed{\\text{three}}", r"\boxed{3} then \boxed{", "#### 3\n#### three", r"\boxed{3}, \boxed{}", "The answer is 72.", ""])
def test_an_earlier_gold_never_stands_for_a_last_one_that_cannot_be_read(gold_text, solution):
    with pytest.raises(ValueError, match="A solution must hold"):
        gold_text(solution)
