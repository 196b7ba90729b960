"""From text to number: the gold answer of a problem, and the answer a completion gives.

Numbers are exact (`int` or `Fraction`). `float` would not do: it reads `1_000`, `nan` and
the Arabic digits of `٧٢`, and it takes 2**53 + 1 for 2**53.
"""

import re
from fractions import Fraction

TAGS = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
WRAPPERS = [(r"\boxed{", "}"), ("$", "$"), ("**", "**")]
# [0-9] and not \d, which also matches ７ and ٧. \u2212 is the typographic minus sign.
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
ONE_NUMBER = re.compile(
    r"(?P<sign>[-+\u2212]?[$€£¥₹]?|[$€£¥₹][-+\u2212])"  # -5, $5, -$5, $-5
    rf"(?P<digits>{DIGITS})"
    r"(?: ?%|[A-Za-z ]*)\.?"  # 5%, 5 apples, 5.
)
# A minus is a sign unless it follows a letter, a digit or a bracket: 9-4 ends in 4, not in -4.
ANY_NUMBER = re.compile(rf"(?:(?<![\w)])[-\u2212])?[$€£¥₹]?{DIGITS}")


def parse_number(text):
    """Return the one number in `text` as an int or a Fraction, or None.

    Read: `1,000`, `-3`, `$72`, `72.0`, `72%`, `72 apples`, and one wrapper: `\\boxed{72}`,
    `$72$`, `**72**`. None: two numbers (`7 2`, `71,72`), exponents, digits that are not
    ASCII, more than 64 characters, and None itself.
    """
    text = (text or "").strip()
    for left, right in WRAPPERS:
        if text.startswith(left) and text.endswith(right):
            text = text[len(left) : -len(right)].strip()
            break
    match = ONE_NUMBER.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        return None
    number = Fraction(match["digits"].replace(",", ""))
    if "-" in match["sign"] or "\u2212" in match["sign"]:
        number = -number
    return int(number) if number.denominator == 1 else number


def extract_answer(text):
    """Return what stands in the answer block, stripped, or None.

    There must be exactly one `</reasoning>` and after it exactly one `<answer>…</answer>`.
    Nothing is guessed: with two blocks, or one inside the reasoning, the answer is None.
    """
    if any(text.count(tag) != 1 for tag in TAGS[1:]):
        return None
    after_reasoning = text.partition("</reasoning>")[2]
    body, closing_tag, _ = after_reasoning.partition("<answer>")[2].partition("</answer>")
    return body.strip() if closing_tag else None


def last_number(text):
    """Return the last number anywhere in `text` as an int or a Fraction, or None.

    The lenient figure of an evaluation, for completions that ignore the layout; never a reward.
    """
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    # The last number ends here. What does not fit in 100 characters is too long to be read anyway.
    numbers = ANY_NUMBER.findall(text[max(0, end - 100) : end])
    return parse_number(numbers[-1]) if numbers else None


def gold_answer(solution):
    """Return the gold answer of a GSM8K solution, what follows `####`, as plain digits.

    "… #### 1,000" gives "1000". ValueError when there is no `####`, or no number after it.
    """
    gold = solution.rpartition("####")[2].strip()
    number = parse_number(gold) if "####" in solution else None
    if number is None:
        raise ValueError(f"A solution must end in '#### <number>', not in {solution[-60:]!r}.")
    return str(number) if isinstance(number, int) else gold
