"""The embedded problems, solved again from their sentences by a reader that shares no code with the writer."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from grpo_kit.data import problems
from grpo_kit.data.problems import SEED, SIZES, is_held_out, n_steps
from grpo_kit.data.scenes import SCENES
from grpo_kit.rewards.answers import gold_answer
from grpo_kit.workshop.problem_files import write
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).resolve().parents[2] / "data" / "problems"
MARK = re.compile(r"<<(-?\d+)([-+*/])(-?\d+)=(-?\d+)>>")
STEP = re.compile(r"(-?[\d,]+) ([-+*/]) (-?[\d,]+) = (<<.*>>)(-?[\d,]+) \w+")
ARITHMETIC = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
WORDS = {"{A}": r"[A-Z]\w+", "{B}": r"[A-Z]\w+", "{x}": r"\w+", "{she}": "(?:he|she)", "{She}": "(?:He|She)",
         "{her}": "(?:him|her)", "{hers}": "(?:his|her)"}
SOLVE = {  # what a sentence of each operation does to the number reached
    "start": lambda value, n: n,
    "groups": lambda value, n, j: j * n,
    "plus": lambda value, k: value + k,
    "minus": lambda value, k: value - k,
    "times": lambda value, k: value * k,
    "share": lambda value, k: value / k,
    "half": lambda value: value / 2,
    "need": lambda value, k: k - value,
    "together": lambda value, k: value + (value + k),
    "compare": lambda value, k: value + value * k,
    "ask": lambda value: value,
}
SIGNS = {"groups": "*", "plus": "+", "minus": "-", "times": "*", "share": "/", "half": "/", "need": "-",
         "together": "++", "compare": "*+", "start": "", "ask": ""}


def number(text):
    return int(text.replace(",", ""))


def sentence_pattern(sentence):
    pattern = re.escape(sentence).replace(r"\{", "{").replace(r"\}", "}")
    for word, expression in WORDS.items():
        pattern = pattern.replace(word, expression)
    return re.compile(re.sub(r"\{([njk])\}", r"(?P<\1>-?[\\d,]*\\d)", pattern) + r"(?: |$)")


SENTENCES = [
    [(operation, sentence_pattern(sentence)) for operation in scene if operation != "unit" for sentence in scene[operation]]
    for scene in SCENES.values()
]


def readings(text, sentences, value=None, order=()):
    """Every way to read `text` as sentences of one scene: (operations, the number at the end)."""
    if not text:
        yield order, value
    for operation, pattern in sentences:
        opens = operation in ("start", "groups")
        if opens == (value is None) and (match := pattern.match(text)):
            numbers = {name: number(told) for name, told in match.groupdict().items()}
            yield from readings(text[match.end():], sentences, SOLVE[operation](value, **numbers), (*order, operation))


def read(question):
    """The operations of a story and its answer; there must be one reading."""
    found = {reading for sentences in SENTENCES for reading in readings(question, sentences)}
    assert len(found) == 1, f"{len(found)} readings of {question!r}"
    return found.pop()


def template(question):
    return " ".join(operation for operation in read(question)[0] if operation not in ("start", "ask"))


def check(row):
    """One story with one answer, steps that are right, lead to it, and use what the story tells."""
    operations, answer = read(row["question"])
    *steps, last = row["answer"].split("\n")
    assert last == f"#### {int(answer):,}" and answer == int(answer)
    marks = [MARK.fullmatch(STEP.fullmatch(step)[4]).groups() for step in steps]
    assert "".join(sign for _, sign, _, _ in marks) == "".join(SIGNS[operation] for operation in operations)
    told = [number(text) for text in re.findall(r"(?<!\w)-?\d[\d,]*\b", row["question"])]
    known = told + [2] * operations.count("half")
    for step, (left, sign, right, result) in zip(steps, marks):
        left, right, result = int(left), int(right), int(result)
        assert ARITHMETIC[sign](left, right) == result and (sign != "/" or left % right == 0)
        assert [number(text) for text in STEP.fullmatch(step).group(1, 3, 5)] == [left, right, result]
        assert left in known and right in known
        known.append(result)
    for (*_, result), (left, _, right, _) in zip(marks, marks[1:]):
        assert result in (left, right)
    assert int(marks[-1][3]) == int(answer)


@pytest.fixture(scope="module")
def committed():
    files = {split: (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8") for split in SIZES}
    return {split: [json.loads(line) for line in text.split("\n")[:-1]] for split, text in files.items()}


def test_sizes(committed):
    assert len(committed["train"]) >= 4000 and len(committed["test"]) >= 400 and len(committed["held_out"]) >= 200
    assert all(row.keys() == {"question", "answer"} for rows in committed.values() for row in rows)


def test_no_question_is_shared(committed):
    questions = [row["question"] for rows in committed.values() for row in rows]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("split", SIZES)
def test_committed_rows_are_right(committed, split):
    for row in committed[split]:
        check(row)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(), split=st.sampled_from(list(SIZES)))
def test_rows_of_any_seed_are_right(seed, split):
    for row in problems.problems(split, 20, seed):
        check(row)


def test_held_out_templates_are_in_no_other_split(committed):
    seen = {template(row["question"]) for split in ("train", "test") for row in committed[split]}
    for seed in (1, 2, 3):
        seen |= {template(row["question"]) for row in problems.problems("train", 1000, seed)}
    held_out = {template(row["question"]) for row in committed["held_out"] + problems.problems("held_out", 300, 4)}
    assert len(held_out) >= 20 and len(seen) >= 100
    assert not held_out & seen
    assert all(is_held_out(order) for order in held_out)
    assert not any(is_held_out(order) for order in seen)


def test_answers_have_commas_negatives_and_zeros(committed):
    for split, rows in committed.items():
        shown = [row["answer"].rpartition("#### ")[2] for row in rows]
        assert any("," in gold for gold in shown), f"no comma in {split}"
        assert any(gold.startswith("-") for gold in shown), f"no negative in {split}"
        assert "0" in shown, f"no zero in {split}"
        assert [gold_answer(row["answer"]) for row in rows] == [gold.replace(",", "") for gold in shown]


def test_committed_files_are_what_the_seed_writes(tmp_path):
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held_out.jsonl", "test.jsonl", "train.jsonl"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), "run python -m grpo_kit.workshop.problem_files"


def test_another_seed_gives_other_rows(committed):
    for split in SIZES:
        ours = {row["question"] for row in committed[split]}
        theirs = {row["question"] for row in problems.problems(split, 200, SEED + 1)}
        assert len(theirs & ours) < 20


def test_avoided_questions_do_not_come():
    rows = problems.problems("test", 50, 7)
    avoid = {row["question"] for row in rows[:25]}
    assert not avoid & {row["question"] for row in problems.problems("test", 50, 7, avoid=avoid)}


def test_unknown_split_is_an_error_that_lists_the_splits():
    with pytest.raises(ValueError, match="'dev'.*train, test, held_out"):
        problems.problems("dev", 1, 1)


def test_datasheet_counts(committed):
    """The table in data/README.md is what the files hold."""
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    for split, rows in committed.items():
        golds = [row["answer"].rpartition("#### ")[2] for row in rows]
        steps = Counter(n_steps(row) for row in rows)
        counts = [len(rows), len({template(row["question"]) for row in rows}), *(steps[n] for n in (1, 2, 3, 4)),
                  sum("," in gold for gold in golds), sum("-" in gold for gold in golds), golds.count("0")]
        assert f"| {split} | {' | '.join(f'{count:,}' for count in counts)} |" in readme
