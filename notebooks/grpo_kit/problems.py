"""The embedded word problems: GSM8K's row format, made from a seed, standard library only.

A problem is a story about one number. It opens with the number ("Mia has 12 shells"), changes it by
one to four operations, and asks for it. The *template* of a problem is its order of operations, for
example ``groups minus half``; every template is told in several scenes and with several sentences.
Some templates never occur in training: `is_held_out` says which, and `problems("held_out", …)`
writes problems of those alone.

    python -m grpo_kit.problems            # rewrites data/problems/*.jsonl
"""

import json
import os
import random
import zlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "data" / "problems"
SEED = 2026
SIZES = {"train": 4000, "test": 400, "held_out": 200}
STEP_WEIGHTS = {1: 20, 2: 35, 3: 30, 4: 15}  # share of problems by number of steps, in percent

NAMES = [("Mia", "she"), ("Ben", "he"), ("Ana", "she"), ("Tom", "he"), ("Lena", "she"), ("Omar", "he"),
         ("Ruth", "she"), ("Ivan", "he"), ("Wei", "she"), ("Noah", "he"), ("Sara", "she"), ("Luis", "he")]
OBJECT_FORM = {"she": "her", "he": "him"}
OWNER_FORM = {"she": "her", "he": "his"}

# Sentences of a scene, by operation. {A} and {B} are people, {x} the things counted, {n} the opening
# number, {j} how many groups of it, {k} the operand. `start` or `groups` opens, `ask` closes; `need`,
# `together` and `compare` are closing operations with a question of their own.
SCENES = {
    "collection": {
        "unit": ["stickers", "marbles", "shells", "cards", "stamps", "coins", "buttons", "beads"],
        "start": ["{A} has {n} {x}.", "{A} starts with {n} {x}.", "There are {n} {x} in {A}'s drawer."],
        "groups": ["{A} has {j} boxes with {n} {x} in each box.", "{A} buys {j} packs of {n} {x}."],
        "plus": ["{B} gives {her} {k} more.", "{She} finds {k} more {x}.", "For {hers} birthday {she} gets {k} more {x}."],
        "minus": ["{She} gives {k} {x} to {B}.", "{She} loses {k} of them.", "{She} trades {k} {x} for a book."],
        "times": ["{She} collects until {she} has {k} times as many.", "Then the collection grows to {k} times its size."],
        "share": ["{She} sorts all {hers} {x} into {k} equal piles and keeps one pile.", "{She} divides all {hers} {x} among {k} albums and keeps one album."],
        "half": ["{She} gives half of all {hers} {x} to {B}.", "Then {she} loses half of all {hers} {x}."],
        "need": ["{She} wants to have {k} {x}. How many more {x} does {she} need?"],
        "together": ["{B} has {k} more {x} than {A} has now. How many {x} do they have together?"],
        "compare": ["{B} has {k} times as many {x} as {A} has now. How many {x} do they have together?"],
        "ask": ["How many {x} does {A} have now?", "How many {x} does {A} have in the end?"],
    },
    "bakery": {
        "unit": ["rolls", "muffins", "cookies", "buns", "pies", "cakes"],
        "start": ["A bakery has {n} {x}.", "{A} bakes {n} {x} in the morning."],
        "groups": ["{A} bakes {j} trays of {n} {x}.", "A bakery gets {j} boxes with {n} {x} in each box."],
        "plus": ["Then {k} more come out of the oven.", "{B} brings {k} more {x}.", "After lunch {k} more {x} are baked."],
        "minus": ["Before noon {k} {x} are sold.", "A neighbour buys {k} of them.", "A school takes {k} {x}."],
        "times": ["The oven runs until there are {k} times as many."],
        "share": ["All the {x} go into {k} equal bags, and all bags but one are sold.", "All the {x} are packed in {k} equal boxes, and only one box stays."],
        "half": ["Half of all the {x} are sold.", "A neighbour buys half of all the {x}."],
        "need": ["A party needs {k} {x}. How many more {x} must be baked?"],
        "ask": ["How many {x} are left?", "How many {x} are there now?"],
    },
    "bus": {
        "unit": ["passengers", "people"],
        "start": ["A bus leaves with {n} {x}.", "There are {n} {x} on a train."],
        "groups": ["A train has {j} cars with {n} {x} in each car."],
        "plus": ["At the market {k} more get on.", "At the next stop {k} {x} get on.", "A group of {k} {x} gets on."],
        "minus": ["At the museum {k} {x} get off.", "At the next stop {k} of them get off.", "Then {k} {x} leave."],
        "half": ["At the park half of all the {x} get off.", "Half of all the {x} leave at the station."],
        "need": ["There are {k} seats on board. How many seats are empty?"],
        "ask": ["How many {x} are on board now?", "How many {x} are left on board?"],
    },
    "money": {
        "unit": ["dollars"],
        "start": ["{A} has ${n}.", "{A} saved ${n}."],
        "groups": ["{A} works {j} hours for ${n} an hour.", "{A} sells {j} cakes for ${n} each."],
        "plus": ["{She} earns ${k} more.", "{B} gives {her} ${k}.", "{She} finds ${k}."],
        "minus": ["{She} spends ${k} on a book.", "{She} pays ${k} for lunch.", "{She} gives ${k} to {B}."],
        "times": ["{She} saves until {she} has {k} times as much.", "Then {hers} money grows to {k} times as much."],
        "share": ["All the money is split equally among {k} people, and {A} keeps one share."],
        "half": ["{She} spends half of all {hers} money.", "{She} gives half of all {hers} money to {B}."],
        "need": ["A bike costs ${k}. How many more dollars does {A} need?"],
        "together": ["{B} has ${k} more than {A} has now. How many dollars do they have together?"],
        "compare": ["{B} has {k} times as much money as {A} has now. How many dollars do they have together?"],
        "ask": ["How many dollars does {A} have now?", "How many dollars does {A} have left?"],
    },
    "garden": {
        "unit": ["trees", "roses", "tulips", "bushes"],
        "start": ["There are {n} {x} in a garden.", "{A} plants {n} {x}."],
        "groups": ["A garden has {j} rows with {n} {x} in each row.", "{A} plants {j} rows of {n} {x}."],
        "plus": ["{B} plants {k} more.", "In spring {k} more {x} are planted."],
        "minus": ["A storm breaks {k} of them.", "{B} cuts down {k} {x}.", "In winter {k} {x} die."],
        "times": ["After some years there are {k} times as many."],
        "share": ["All the {x} are moved into {k} equal fields, and one field is kept."],
        "half": ["A fire burns half of all the {x}.", "Half of all the {x} are sold."],
        "need": ["A park needs {k} {x}. How many more {x} must be planted?"],
        "ask": ["How many {x} are there now?", "How many {x} are left?"],
    },
    "weather": {
        "unit": ["degrees"],
        "start": ["At dawn it is {n} degrees.", "The day starts at {n} degrees."],
        "plus": ["Then it gets {k} degrees warmer.", "The temperature rises by {k} degrees."],
        "minus": ["Then it gets {k} degrees colder.", "The temperature falls by {k} degrees."],
        "ask": ["What is the temperature in degrees now?", "How many degrees is it now?"],
    },
    "game": {
        "unit": ["points"],
        "start": ["{A} starts a game with {n} points.", "{A} has a score of {n} points."],
        "plus": ["{She} wins {k} points.", "A bonus gives {her} {k} points."],
        "minus": ["{She} loses {k} points.", "A mistake costs {her} {k} points."],
        "ask": ["What is {A}'s score now?", "How many points does {A} have in the end?"],
    },
    "town": {
        "unit": ["visitors", "books", "bricks", "tickets"],
        "start": ["A town counts {n} {x}.", "There are {n} {x} in a big hall."],
        "groups": ["A town has {j} halls with {n} {x} in each hall."],
        "plus": ["Then {k} more {x} come in.", "A second town sends {k} more."],
        "minus": ["Then {k} {x} go to a school.", "The next day {k} of them are gone."],
        "times": ["Within a year there are {k} times as many."],
        "half": ["Half of all the {x} go to a second town."],
        "need": ["The plan asks for {k} {x}. How many more {x} are needed?"],
        "ask": ["How many {x} are there now?", "How many {x} are left?"],
    },
}
SIGNED = {"weather", "game"}  # the number may fall below zero
LARGE = {"town"}  # thousands, in round fifties
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


def write(folder: Path = FOLDER, seed: int = SEED) -> None:
    """Writes train.jsonl, test.jsonl and held_out.jsonl, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for split, count in SIZES.items():
        rows = problems(split, count, seed, avoid=seen)
        seen |= {row["question"] for row in rows}
        temporary = folder / f"{split}.jsonl.tmp"
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(temporary, folder / f"{split}.jsonl")


if __name__ == "__main__":
    write()
    print(f"wrote {', '.join(f'{count} {split}' for split, count in SIZES.items())} problems to {FOLDER}")
