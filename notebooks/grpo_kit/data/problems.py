"""The embedded word problems: GSM8K's row format, made from a seed and nothing else.

A problem is a story about one number. It opens with the number ("Mia has 12 shells"), changes it by
one to four operations, and asks for it. The *template* of a problem is its order of operations, for
example ``groups minus half``; every template is told in several scenes (`scenes`) and with several
sentences. Some templates never occur in training: `is_held_out` says which, and
`problems("held_out", …)` writes problems of those alone.
"""

import random
import zlib
from pathlib import Path

from .scenes import LARGE, NAMES, OBJECT_FORM, OWNER_FORM, SCENES, SIGNED

FOLDER = Path(__file__).resolve().parents[3] / "data" / "problems"
SEED = 2026
SIZES = {"train": 4000, "test": 400, "held_out": 200}
STEP_WEIGHTS = {1: 20, 2: 35, 3: 30, 4: 15}  # share of problems by number of steps, in percent
MIDDLE = ("plus", "minus", "times", "share", "half")
CLOSING = ("need", "together", "compare")
TAKING = {"minus", "share", "half"}  # after one of these a question may say "left"
STEPS_OF = {"together": 2, "compare": 2}  # every other operation is one step


def is_held_out(template: str) -> bool:
    """Whether no training problem has this order of operations (a sixth of those with two or more)."""
    return len(template.split()) > 1 and zlib.crc32(template.encode()) % 6 == 0


def shown(number: int) -> str:
    """The number as a text writes it: ``1250`` is ``1,250``."""
    return f"{number:,}"


def _operand(rng: random.Random, operation: str, value: int, peak: int, scene: str) -> int | None:
    """A number for `operation` that keeps the story simple at `value` (`peak` so far); None if there is none."""
    large, signed = scene in LARGE, scene in SIGNED
    if operation == "plus":
        return 50 * rng.randint(1, 19) if large else rng.randint(2, 25 if signed else 60)
    if operation == "minus":
        if signed:
            return rng.randint(2, 25)
        if large:
            return 50 * rng.randint(1, 19) if value >= 1000 else None
        if value < 3:
            return None
        return value if rng.random() < 0.05 else rng.randint(2, min(60, value - 1))  # sometimes all of it
    if operation == "times":
        k = rng.randint(2, 3 if large else 5)
        return k if 2 <= value <= (9000 if large else 600) // k else None
    if operation == "share":
        return rng.choice([k for k in range(2, 10) if value % k == 0 and value >= 2 * k] or [None])
    if operation == "half":
        return 2 if value >= 4 and value % (100 if large else 2) == 0 else None
    if operation == "need":
        # At least the peak: a bus has a seat for everyone who ever was on board.
        return peak + (50 * rng.randint(1, 19) if large else rng.randint(2, 60)) if value > 0 else None
    if operation == "together":
        return rng.randint(2, 40) if value > 0 else None
    return rng.randint(2, 4) if 2 <= value <= 200 else None  # compare


def _step(left: int, sign: str, right: int, unit: str) -> tuple[str, int]:
    """One line of a solution, with GSM8K's calculator mark, and its result."""
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
    mark = f"<<{left}{sign}{right}={result}>>"
    return f"{shown(left)} {sign} {shown(right)} = {mark}{shown(result)} {unit}", result


def _template(rng: random.Random, scene: dict, n_steps: int) -> list[str] | None:
    """A random order of operations of `n_steps` steps in this scene; None if the draw does not fit."""
    order = ["groups"] if "groups" in scene and rng.random() < 0.35 else []
    closing = [rng.choice([c for c in CLOSING if c in scene])] if "need" in scene and rng.random() < 0.25 else []
    n_middle = n_steps - len(order) - sum(STEPS_OF.get(c, 1) for c in closing)
    if n_middle < 0:
        return None
    order += [rng.choice([m for m in MIDDLE if m in scene]) for _ in range(n_middle)]
    return order + closing


def _tell(rng: random.Random, name: str, order: list[str]) -> dict | None:
    """A problem of this scene and template; None if no operand fits the number reached."""
    scene = SCENES[name]
    (a, she), (b, _) = rng.sample(NAMES, 2)
    unit = rng.choice(scene["unit"])
    words = {"A": a, "B": b, "x": unit, "she": she, "She": she.capitalize(), "her": OBJECT_FORM[she], "hers": OWNER_FORM[she]}
    if name in LARGE:
        value = 50 * rng.randint(20, 80)
    else:
        value = rng.choice([v for v in range(-9, 31) if abs(v) != 1]) if name in SIGNED else rng.randint(3, 80)
    lines, told, said, peak = [], [], set(), value

    if any(order.count(operation) > len(scene[operation]) for operation in order):
        return None  # no sentence is said twice

    def say(operation, **numbers):
        sentence = rng.choice([s for s in scene[operation] if s not in said])
        said.add(sentence)
        told.append(sentence.format(**words, **{key: shown(number) for key, number in numbers.items()}))

    def work(left, sign, right):
        line, result = _step(left, sign, right, unit)
        lines.append(line)
        return result

    if order[0] == "groups":
        value = 50 * rng.randint(4, 20) if name in LARGE else rng.randint(2, 25)
        groups = rng.randint(2, 9)
        say("groups", n=value, j=groups)
        value = peak = work(groups, "*", value)
    else:
        say("start", n=value)
    for operation in order:
        if operation == "groups":
            continue
        k = _operand(rng, operation, value, peak, name)
        if k is None:
            return None
        say(operation, k=k)
        if operation == "need":
            value = work(k, "-", value)
        elif operation in ("together", "compare"):
            other = work(value, "+" if operation == "together" else "*", k)
            value = work(value, "+", other)
        else:
            value = work(value, {"plus": "+", "minus": "-", "times": "*", "share": "/", "half": "/"}[operation], k)
            peak = max(peak, value)
    if order[-1] not in CLOSING:
        taken = not TAKING.isdisjoint(order)
        told.append(rng.choice([s for s in scene["ask"] if taken or "left" not in s]).format(**words))
    return {"question": " ".join(told), "answer": "\n".join(lines) + f"\n#### {shown(value)}"}


def problems(split: str, count: int, seed: int, avoid: set[str] = frozenset()) -> list[dict]:
    """`count` rows (``question``, ``answer``) of a split, all different and none of them in `avoid`.

    `split` is "train" or "test" (the same templates, other rows) or "held_out" (templates that those
    two never have). The same arguments give the same rows on every machine.
    """
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SIZES)}")
    rng = random.Random(f"{split} {seed}")
    rows, seen = [], set(avoid)
    while len(rows) < count:
        n_steps = rng.choices(list(STEP_WEIGHTS), list(STEP_WEIGHTS.values()))[0]
        if split == "held_out":
            n_steps = max(2, n_steps)
        row = None
        while row is None:  # keep n_steps, so that hard-to-fit lengths keep their share
            name = rng.choice(list(SCENES))
            order = _template(rng, SCENES[name], n_steps)
            if order and is_held_out(" ".join(order)) == (split == "held_out"):
                row = _tell(rng, name, order)
        if row["question"] not in seen:
            seen.add(row["question"])
            rows.append(row)
    return rows


def n_steps(row: dict) -> int:
    """How many steps the gold solution of a row has."""
    return row["answer"].count("<<")
