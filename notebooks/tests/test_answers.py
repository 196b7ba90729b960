import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpo_kit.rewards.answers import TAGS, extract_answer, gold_answer, last_number, parse_number

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "gsm8k"


def completion_of(reasoning, answer):
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


@pytest.mark.parametrize(
    "text",
    ["72", " 72\n", "+72", "072", "72.", "72.0", "72.00", "72%", "72 %", "72 apples", "72apples.", "$72"]
    + ["€72", "+$72", "$+72", "$72.00", "72 square feet", r"\boxed{72}", r"\boxed{ 72 }", "$72$", "**72**", "** $72 **"],
)
def test_equal_values_written_otherwise(text):
    assert parse_number(text) == 72
    assert type(parse_number(text)) is int


@pytest.mark.parametrize(
    "text, number",
    [
        ("-10", -10),
        ("\u221210", -10),
        ("-$5", -5),
        ("$-5", -5),
        ("**-5**", -5),
        ("1,000", 1000),
        ("-12,345,678", -12345678),
        ("0", 0),
        ("-0", 0),
        ("72.5", Fraction(145, 2)),
        ("$1,000.25", Fraction(4001, 4)),
        ("9007199254740993", 2**53 + 1),
        ("0.1", Fraction(1, 10)),
        ("9" * 64, int("9" * 64)),
    ],
)
def test_exact_values(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "7 2", "72 or 73", "71,72", "7,2", "1,0000", "1000,000", ",000", "72,", "1e3", "7.2e1", "2^6", "72!", "3/4"]
    + ["²", "5²", "７２", "٧٢", "72 ５", "1_000", "nan", "inf", "x", "- 72", "--72", "-$-72", "$$72", "-", "$", "$$", "**"]
    + ["***", r"\boxed{72", r"\boxed{\boxed{72}}", r"$\boxed{72}$", "$**72**$", r"\boxed{100000000!}", "72\n73", "72\nso", "0x48"]
    + ["72.5.1", "72..", "x72", "= 72", "9" * 65, "9" * 5000, "72" + " " * 60 + "a" * 9, None],
)
def test_rejected(text):
    assert parse_number(text) is None


@given(st.integers(-(10**40), 10**40))
def test_integers_survive_the_round_trip(number):
    assert parse_number(str(number)) == number
    assert parse_number(f"{number:,}") == number
    assert parse_number(f"**{number:,}.0**") == number
    assert last_number(f"So the total is {number:,}.") == number


@given(st.decimals(-(10**9), 10**9, places=3))
def test_decimals_are_exact(number):
    assert parse_number(str(number)) == Fraction(number)


@given(st.text(alphabet="0123456789,.+-−$€%*{}\\boxed apples²７٧_e\n", max_size=70))
@example("9" * 5000)
def test_parse_number_never_raises(text):
    assert type(parse_number(text)) in (int, Fraction, type(None))


@pytest.mark.parametrize(
    "text, answer",
    [
        (completion_of("6 * 12 = 72", "72"), "72"),
        (completion_of("two\nlines", "72 apples").replace("\n", "\r\n"), "72 apples"),
        ("think</reasoning> so <answer>72</answer> and a tail", "72"),
        ("<reasoning>x</reasoning><answer></answer>", ""),
        ("72", None),
        ("", None),
        ("<answer>72</answer>", None),
        ("<reasoning>x</reasoning>72", None),
        ("<reasoning>x</reasoning><answer>72", None),
        ("<reasoning>x</reasoning></answer>72<answer>", None),
        ("<answer>72</answer><reasoning>x</reasoning>", None),
        ("<reasoning><answer>72</answer></reasoning>", None),
        ("<reasoning>x<answer></reasoning>72</answer>", None),
        (completion_of("x", "72") + "<answer>", None),
        (completion_of("x", "72") + "<answer>73</answer>", None),
        (completion_of("x", "72") + "</reasoning>", None),
        (completion_of("x", "72") + "</answer>", None),
    ],
)
def test_extraction(text, answer):
    assert extract_answer(text) == answer


@given(st.lists(st.sampled_from([*TAGS, "72", "\n", "x"]) | st.text(max_size=5)).map("".join))
@example(completion_of("x", "72"))
def test_extraction_is_idempotent(text):
    answer = extract_answer(text)
    if answer is not None:
        assert extract_answer(completion_of("x", answer)) == answer


@pytest.mark.parametrize(
    "text, number",
    [
        ("She has 3 apples and 5 pears, so 8.", 8),
        ("It costs $1,234.50.", Fraction(2469, 2)),
        ("72", 72),
        (completion_of("7 * 8 = 56", "57"), 57),
        ("a loss of -$3", -3),
        ("a loss of \u22123 dollars", -3),
        ("<<5-8=-3>>-3 degrees", -3),
        ("9-4", 4),
        ("(9)-4", 4),
        ("71,72", 72),
        ("the pair 1,2345", 2345),
        ("12,000,000 in all", 12000000),
        ("72 then ７３ and ²", 72),
        ("no number", None),
        ("", None),
        ("5 and then " + "9" * 5000, None),
        ("5 and then " + "1," + ",".join(["000"] * 40), None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


@given(st.text() | st.text(alphabet="0123456789,.-$ a"))
def test_last_number_never_raises(text):
    assert type(last_number(text)) in (int, Fraction, type(None))


@pytest.mark.parametrize(
    "solution, gold",
    [
        ("48 / 2 = <<48/2=24>>24\n#### 72", "72"),
        ("#### 1,000", "1000"),
        ("#### -3", "-3"),
        ("####5", "5"),
        ("#### $1,000", "1000"),
        ("#### 007", "7"),
        ("#### 2.5", "2.5"),
        ("#### 1\nno\n#### 2", "2"),
    ],
)
def test_gold_answer(solution, gold):
    assert gold_answer(solution) == gold
    assert parse_number(gold) is not None


@pytest.mark.parametrize("solution", ["72", "", "####", "#### ", "#### seven", "#### 7 2", "#### 1e3", "72 ####"])
def test_gold_that_cannot_be_scored_is_an_error(solution):
    with pytest.raises(ValueError, match="must end in '#### <number>'"):
        gold_answer(solution)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs GSM8K's jsonl files in ../shared/gsm8k beside the clone")
def test_gsm8k_golds():
    lines = [(GSM8K / f"{split}.jsonl").read_text("utf-8").split("\n") for split in ("train", "test")]
    rows = [[json.loads(line) for line in split if line] for split in lines]
    assert [len(split) for split in rows] == [7473, 1319]
    for row in rows[0] + rows[1]:
        gold = gold_answer(row["answer"])
        assert gold == str(int(row["answer"].split("####")[1].replace(",", "")))
        assert last_number(row["answer"]) == int(gold)


HOSTILE = ["<", "<answer>", "</", "<reasoning></reasoning>", "1,", "1,111", "111,", "1", "1.", "1 ", "-", "-$", "−", "**"]
HOSTILE += ["a", " ", "\n", "\u2003", "9-", "##", "#### ", "\\boxed{", "</reasoning><answer></answer>", "２"]


@pytest.mark.parametrize("function", [parse_number, extract_answer, last_number])
@pytest.mark.parametrize("piece", HOSTILE)
def test_200_000_characters_take_less_than_50_ms(function, piece):
    text = piece * (200_000 // len(piece))
    times = []
    for hostile in [text, completion_of("x", text), "1" + text + "1"] * 3:
        start = time.perf_counter()
        function(hostile)
        times.append(time.perf_counter() - start)
    assert max(min(times[i::3]) for i in range(3)) < 0.05
