"""Chapter 04's second task: its rows, solved again from their sentences, and the program that wrote them."""

import json
import random
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "bakery"
STORIES = [  # a sentence, and what it does to the stock
    (r"A bakery has (\d+) (\w+)\.", lambda stock, n, unit: int(n)),
    (r"A bakery gets (\d+) boxes with (\d+) (\w+) in each box\.", lambda stock, n, each, unit: int(n) * int(each)),
    (r"Then (\d+) more come out of the oven\.", lambda stock, k: stock + int(k)),
    (r"After lunch (\d+) more (\w+) are baked\.", lambda stock, k, unit: stock + int(k)),
    (r"Before noon (\d+) (\w+) are sold\.", lambda stock, k, unit: stock - int(k)),
    (r"A neighbour buys (\d+) of them\.", lambda stock, k: stock - int(k)),
    (r"A school takes (\d+) (\w+)\.", lambda stock, k, unit: stock - int(k)),
]


def rows(split):
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text("utf-8").splitlines()]


def solved(question):
    """The stock in the end and the units named, sentence by sentence; each sentence must be known."""
    *story, asked = re.split(r"(?<=\.) ", question)
    stock, units = None, [re.fullmatch(r"How many (\w+) are there now\?", asked)[1]]
    for sentence in story:
        [(match, change)] = [(m, change) for pattern, change in STORIES if (m := re.fullmatch(pattern, sentence))]
        assert (stock is None) == (sentence is story[0])
        stock = change(stock, *match.groups())
        units += [word for word in match.groups() if not word.isdigit()]
        assert stock > 0
    return stock, set(units)


@pytest.mark.parametrize("split, count", [("train", 400), ("test", 200)])
def test_each_row_is_right(split, count):
    assert len(rows(split)) == count
    for row in rows(split):
        assert set(row) == {"question", "answer", "unit"} and type(row["answer"]) is int
        assert solved(row["question"]) == (row["answer"], {row["unit"]})


def test_no_question_occurs_twice():
    assert len({row["question"] for row in rows("train") + rows("test")}) == 600


CHANGES = {"Then {k} more come out of the oven.": 1, "After lunch {k} more {unit} are baked.": 1,
           "Before noon {k} {unit} are sold.": -1, "A neighbour buys {k} of them.": -1, "A school takes {k} {unit}.": -1}


def bakery_rows(count, seed):
    "`count` different rows: a `question` about a bakery's day, its `answer`, and the `unit` that is counted."
    rng, rows = random.Random(seed), {}
    while len(rows) < count:
        unit, stock = rng.choice(["rolls", "muffins", "cookies", "buns", "pies", "cakes"]), rng.randint(5, 60)
        story = f"A bakery has {stock} {unit}."
        if rng.random() < 0.4:
            boxes, each = rng.randint(2, 9), rng.randint(2, 25)
            story, stock = f"A bakery gets {boxes} boxes with {each} {unit} in each box.", boxes * each
        lowest = stock
        for sentence in rng.sample(list(CHANGES), rng.randint(1, 3)):
            k = rng.randint(2, 40)
            story, stock = f"{story} {sentence.format(k=k, unit=unit)}", stock + k * CHANGES[sentence]
            lowest = min(lowest, stock)
        question = f"{story} How many {unit} are there now?"
        if lowest > 0:  # nobody can sell what is not there
            rows[question] = {"question": question, "answer": stock, "unit": unit}
    return list(rows.values())


def test_the_files_are_what_the_generator_writes():
    assert bakery_rows(600, seed=2026) == rows("train") + rows("test")
