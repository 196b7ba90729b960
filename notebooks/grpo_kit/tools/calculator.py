"""A calculator that a model may call: an own grammar, read character by character, never Python's `eval` (standard library only).

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = "-" factor | "(" sum ")" | number
    number  = digits, with or without commas between thousands, with or without a decimal part

Bounds: `LENGTH` characters, `DIGITS` digits a number, `DEPTH` brackets and minus signs within each other. So an answer
takes microseconds and has at most as many digits as the expression has characters, or so.
"""

import re
from fractions import Fraction

LENGTH, DIGITS, DEPTH = 100, 15, 10
TOKEN = re.compile(r"[ ]*(?:(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9]+)(?P<decimals>\.[0-9]+)?|(?P<sign>[-+*/()]))")


def tokens(expression):
    """The numbers (as Fraction) and signs (as str) of an expression, in order. ValueError, one sentence, for anything else in it."""
    found, place = [], 0
    expression = expression.rstrip(" ")
    while place < len(expression):
        match = TOKEN.match(expression, place)
        if match is None:
            raise ValueError(f"what is {expression[place:].lstrip()[:1]!r}? Only numbers, + - * / and brackets.")
        place = match.end()
        if match["sign"]:
            found.append(match["sign"])
            continue
        digits = match["number"].replace(",", "") + (match["decimals"] or "")
        if len(digits) > DIGITS:
            raise ValueError(f"a number of more than {DIGITS} digits.")
        found.append(Fraction(digits))
    return found


class _Reader:
    """The tokens of an expression, and how far it has been read."""

    def __init__(self, found):
        self.found, self.place = found, 0

    def next_is(self, signs):
        """The next token if it is one of `signs`, and then it counts as read; else None."""
        token = self.found[self.place] if self.place < len(self.found) else None
        if isinstance(token, str) and token in signs:
            self.place += 1
            return token
        return None

    def sum(self, depth):
        value = self.product(depth)
        while sign := self.next_is("+-"):
            right = self.product(depth)
            value = value + right if sign == "+" else value - right
        return value

    def product(self, depth):
        value = self.factor(depth)
        while sign := self.next_is("*/"):
            right = self.factor(depth)
            if sign == "/" and right == 0:
                raise ValueError("a division by zero.")
            value = value * right if sign == "*" else value / right
        return value

    def factor(self, depth):
        if depth > DEPTH:
            raise ValueError(f"more than {DEPTH} brackets within each other.")
        if self.next_is("-"):
            return -self.factor(depth + 1)
        if self.next_is("("):
            value = self.sum(depth + 1)
            if not self.next_is(")"):
                raise ValueError("a bracket is not closed.")
            return value
        if self.place == len(self.found) or isinstance(self.found[self.place], str):
            raise ValueError("a number is missing.")
        self.place += 1
        return self.found[self.place - 1]


def value(expression):
    """The exact value of an expression, a Fraction. ValueError, one sentence, where it is none or is over a bound."""
    if not isinstance(expression, str):
        raise ValueError("the expression must be a text.")
    if len(expression) > LENGTH:
        raise ValueError(f"more than {LENGTH} characters.")
    reader = _Reader(tokens(expression))
    result = reader.sum(0)
    if reader.place < len(reader.found):
        raise ValueError("a sign is missing between two numbers, or a bracket was not opened.")
    return result


def calculate(expression: str) -> str:
    """Work out a sum of numbers with + - * / and brackets.

    Args:
        expression: The sum to work out, such as 12 * 30 - 4

    Returns:
        The result.
    """
    result = value(expression)
    return f"{int(result):,}" if result.denominator == 1 else f"{float(result):,.6g}"
