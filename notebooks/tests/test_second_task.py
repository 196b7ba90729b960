"""Chapter 04's second task: its rows, solved again from their sentences, and the generator in its cell."""

import json
import random
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1]
FOLDER = NOTEBOOKS.parent / "data" / "bakery"
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


def test_the_chapter_s_generator_writes_these_files():
    cells = nbformat.read(NOTEBOOKS / "04_dataset_and_rewards.ipynb", 4).cells
    [source] = [cell.source for cell in cells if "def bakery_rows" in cell.source]
    scope = {"random": random}
    exec(source, scope)
    assert scope["bakery_rows"](600, seed=2026) == rows("train") + rows("test")
