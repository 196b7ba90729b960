"""Does a completion work something out before it answers: the equations in its text, and whether they are true."""

import re
from fractions import Fraction

from .answers import parse_number
from .functions import completion_text

NUMBER = r"[0-9][0-9,]*(?:\.[0-9]+)?"
EQUATION = re.compile(rf"((?<![\w)])-?{NUMBER})\s*([-+*/×÷\u2212]|\\times|\\div)\s*[$€£]?({NUMBER})\s*=\s*[$€£]?(-?{NUMBER})")


def works_first(completions, **columns):
    """1.0 where an equation stands before the answer block, or anywhere if there is none; in TRL's form, to be watched."""
    texts = [completion_text(completion).partition("<answer>")[0] for completion in completions]
    return [float(EQUATION.search(text) is not None) for text in texts]


def is_true(equation):
    """Whether a match of `EQUATION` holds; a division by zero does not."""
    a, b, c = (Fraction(parse_number(equation[place])) for place in (1, 3, 4))
    sign = equation[2].replace("\\times", "*").replace("×", "*").replace("\\div", "/").replace("÷", "/").replace("\u2212", "-")
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign] == c
