"""From text to number: the gold answer of a problem, and the answer a completion gives.

Numbers are exact (`int` or `Fraction`). `float` would not do: it reads `1_000`, `nan` and
the Arabic digits of `٧٢`, and it takes 2**53 + 1 for 2**53.
"""

import re
from decimal import Decimal
from fractions import Fraction

TAGS = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
WRAPPERS = [(r"\boxed{", "}"), ("$", "$"), ("**", "**")]
# Full-width forms as the ASCII they stand for. Not NFKC, which makes 52 of 5²; the digits of other scripts stay as they are.
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans("￥￡\u2212\u3000\u00a0\u202f", "¥£-  \u2009")
# 1{,}200 · 1,\!200 · 1\,200, a thin space · \$460 · 50\% · 90^\circ
LATEX = {"{,}": ",", r",\!": ",", r"\,": "\u2009", r"\$": "$", r"\%": "%", r"^{\circ}": "°", r"^\circ": "°", r"\sqrt": "√", r"\pi": "π"}
LATEX_TEXT = re.compile(r"\\(?:text|math)[a-z]*\{([^{}]*)\}")
CURRENCY = "$€£¥₹"
# [0-9] and not \d, which also matches ７ and ٧.
DIGITS = r"(?:(?:[0-9]{1,3}(?:[,\u2009][0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
SCALE = r"(?:[kK](?![A-Za-z])| ?[十百万亿萬億]| ?千(?![克米瓦卡]))"  # 5k and 5万 are numbers that are written otherwise; 5千克 is 5 kg
LETTERS = "A-Za-zÀ-ÖØ-öø-ɏµμΩА-яёЁ\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
UNIT = rf"/?[{LETTERS}{CURRENCY}%°℃℉㎀-㏟](?:[{LETTERS}{CURRENCY}°²³㎀-㏟/· -]|\^\{{?[23]\}}?)*"
ONE_NUMBER = re.compile(
    rf"(?P<sign>[-+]?[{CURRENCY}]?|[{CURRENCY}][-+])"  # -5, $5, -$5, $-5
    rf"(?P<digits>{DIGITS})(?!{SCALE})"
    rf"(?:[ \u2009]*{UNIT})?[.。]?"  # 5%, 5 apples, 5个苹果, 5 km/h, 5 m², 5.
)
# The last run of what may belong to one number, so that none is read in part: 3/4, 1e5, 12:30 and 2^6 are runs, and no numbers.
ANY_NUMBER = re.compile(
    r"(?P<word>(?:(?<![A-Za-z])[A-Za-z]{1,2}|[A-Za-z]_\{?|\^\{?)(?=[0-9]))?"  # m2, CO2, cm^2, x_1 are no numbers, but names
    # A minus is a sign unless it follows a letter, a digit or a bracket: 9-4 ends in 4, not in -4.
    rf"(?:(?<![A-Za-z0-9)\]}}])-)?[{CURRENCY}]?(?:√\{{?)?(?:(?<![A-Za-z0-9.)])\.)?"
    r"[0-9]+(?:(?:[.,:/_'’\u2009]|\^\{?-?|[eE][-+]|[A-Za-z]+|\}\{|√\{?)[0-9]+)*"
    rf"(?:{SCALE}|[¹²³⁰-₉¼-¾⅐-⅞√π])?"
)


def plain_text(text):
    """Return `text` with full-width forms and LaTeX's spellings written in ASCII, as far as numbers need it."""
    text = LATEX_TEXT.sub(r"\1", text.translate(FULL_WIDTH))
    for written, meant in LATEX.items():
        text = text.replace(written, meant)
    return text.strip()


def plain_digits(text):
    """Return the one number in `text` as sign, ASCII digits and point ("-1234.50"), or None. `parse_number` says what is read."""
    text = (text or "").strip()
    text = plain_text(text) if len(text) <= 200 else ""  # too long, and not worth the time
    for left, right in WRAPPERS:
        if text.startswith(left) and text.endswith(right):
            text = text[len(left) : -len(right)].strip()
            break
    match = ONE_NUMBER.fullmatch(text) if len(text) <= 64 else None
    return match and "-" * ("-" in match["sign"]) + re.sub("[,\u2009]", "", match["digits"])


def parse_number(text):
    """Return the one number in `text` as an int or a Fraction, or None.

    Read: `1,000`, `-3`, `.5`, `$72`, `72.0`, `72%`, `72 apples`, `72 km/h`, `７２元。`, LaTeX's `1{,}200` and
    `\\$460`, and one wrapper: `\\boxed{72}`, `$72$`, `**72**`. None: two numbers (`7 2`, `71,72`), fractions,
    exponents, other digits (`七十二`, `٧٢`, `7²`), `5k` and `5万`, more than 64 characters, and None itself.
    """
    digits = plain_digits(text)
    number = None if digits is None else Fraction(digits)
    return int(number) if number is not None and number.denominator == 1 else number


def gold_number(gold):
    """Return the number of a gold, a text or a number (1e16 is one, "1e16" is none), as `parse_number` does, or None."""
    return parse_number(f"{Decimal(str(gold)):f}" if isinstance(gold, float) else str(gold))


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
    """Return the last number anywhere in `text` as an int or a Fraction; None without one, or where it cannot be read.

    The lenient figure of an evaluation, for completions that ignore the layout; never a reward.
    """
    end = max(text.rfind(digit) for digit in "0123456789０１２３４５６７８９") + 1
    # The last number ends here. What does not fit in 200 characters is too long to be read anyway.
    tail = re.sub(r"\\[A-Za-z]+", " ", plain_text(text[max(0, end - 200) : end + 3]))
    numbers = [match[0] for match in ANY_NUMBER.finditer(tail) if not match["word"]]
    return parse_number(numbers[-1]) if numbers else None


def gold_answer(solution):
    """Return the gold answer of a GSM8K solution, what follows `####`, as plain digits.

    "… #### 1,000" gives "1000". ValueError when there is no `####`, or no number after it.
    """
    gold = solution.rpartition("####")[2]
    number = parse_number(gold) if "####" in solution else None
    if number is None:
        raise ValueError(f"A solution must end in '#### <number>', not in {solution[-60:]!r}.")
    return str(number) if isinstance(number, int) else f"{Decimal(plain_digits(gold)):f}"
