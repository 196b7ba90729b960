import json
import math
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpo_kit.rewards.answers import TAGS, extract_answer, gold_answer, gold_number, last_number, parse_number, plain_digits, plain_text

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "gsm8k"


def completion_of(reasoning, answer):
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


@pytest.mark.parametrize(
    "text",
    ["72", " 72\n", "+72", "072", "72.", "72.0", "72.00", "72%", "72 %", "72 apples", "72apples.", "$72"]
    + ["€72", "+$72", "$+72", "$72.00", "72 square feet", r"\boxed{72}", r"\boxed{ 72 }", "$72$", "**72**", "** $72 **"]
    # as Chinese readers write
    + ["72元", "72 元", "72个苹果", "72 个 苹果", "72块钱。", "72。", "￥72", "72％", "７２", "＋７２．００", "＄72", "７２\u3000元", "72千克", "￡72"]
    + ["72 りんご", "72 사과", "72 яблока", "72 années"]
    # as LaTeX does
    + [r"\$72", r"72\%", r"$\$72$", "$$72$$", r"72\text{ apples}", r"\text{72 apples}", r"72\,\mathrm{cm}^2", r"72^\circ", r"72^{\circ}C"]
    # units that are no words
    + ["72 km/h", "72km/h.", "72 °C", "72°", "72℃", "72 m²", "72㎡", "72 cm^2", "72 m^{3}", "72€", "72 €", "72\u00a0€", "72 $", "$72/hour"]
    + ["72 kilowatt-hours", "72 N·m", "72 μm", "72 Ω"],
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
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("$.50", Fraction(1, 2)),
        ("．５", Fraction(1, 2)),
        ("－５", -5),
        ("１，２００", 1200),
        ("1{,}200", 1200),
        (r"1{,}200{,}000.50", Fraction(2400001, 2)),
        (r"1,\!200", 1200),
        (r"1\,200", 1200),
        ("1\u2009200\u2009000", 1200000),
        (r"\boxed{1{,}200}", 1200),
        (r"$-\$1{,}200$", -1200),
        ("9" * 64, int("9" * 64)),
    ],
)
def test_exact_values(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "7 2", "72 or 73", "71,72", "7,2", "1,0000", "1000,000", ",000", "72,", "1e3", "7.2e1", "2^6", "72!", "3/4"]
    + ["²", "5²", "٧٢", "७२", "𝟕𝟐", "⑦", "七十二", "72½", "72 ５", "1_000", "nan", "inf", "x", "- 72", "--72", "-$-72", "$$72", "-", "$", "$$", "**"]
    + ["***", r"\boxed{72", r"\boxed{\boxed{72}}", r"$\boxed{72}$", "$**72**$", r"\boxed{100000000!}", "72\n73", "72\nso", "0x48"]
    # two numbers, or a number that is written otherwise
    + ["７　２", "72、73", "72×3", "72-3", "1 200", r"1\,20", "1{,}20", r"7\!2", "1.200,50", "1'200", "12:30", ".", "-.", "5..", "..5"]
    + ["5k", "5K", "5万", "5 万元", "5亿", "5千", "5百", "5十", "7π", "2√3", r"\frac{3}{4}", r"3\frac{1}{2}", r"\sqrt{2}", "72！", "约72", "共72元"]
    + ["72.5.1", "72..", "x72", "X72", "= 72", "9" * 65, "9" * 5000, "72" + " " * 60 + "a" * 9, None],
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
        ("71,72", None),
        ("the pair 1,2345", None),
        ("12,34,567", None),
        ("pi is 3,14", None),
        ("12,000,000 in all", 12000000),
        ("72 then ７３ and ²", 73),
        ("no number", None),
        # never a part of a number
        ("it is 3/4", None),
        (r"it is \frac{3}{4}", None),
        ("so 1e5", None),
        ("so 2.5e-3 m", None),
        ("5 and 2^6", None),
        ("5 and 2^{10}", None),
        ("1_000", None),
        ("0x48", None),
        ("at 12:30", None),
        ("version 72.5.1", None),
        ("1'200 francs", None),
        ("7²", None),
        ("5½", None),
        ("2√3", None),
        (r"2\sqrt{3}", None),
        ("√2", None),
        (r"2\pi", None),
        ("5k", None),
        ("1.2万元", None),
        ("5 亿", None),
        ("5千克", 5),
        (".5", Fraction(1, 2)),
        ("about -.5", Fraction(-1, 2)),
        ("$.50", Fraction(1, 2)),
        ("１，２００", 1200),
        ("1{,}200", 1200),
        (r"1,\!200 and that is it", 1200),
        (r"\$1{,}200.", 1200),
        (r"50\%", 50),
        # what stands beside a number
        ("一共72元。", 72),
        ("答案为-3", -3),
        ("共７２个苹果", 72),
        ("25 cm^2", 25),
        ("25 cm2", 25),
        ("25 m²", 25),
        ("60 km/h", 60),
        ("5 g of CO2", 5),
        ("x_1 and x_{12}", None),
        ("x^{2} = 9", 9),
        (r"\boxed{72}", 72),
        (r"x \approx72", 72),
        (r"x \to72", 72),
        ("72 and " + "so on " * 100 + "X", 72),
        ("US$72", 72),
        ("72.So it is", 72),
        ("wait...5", 5),
        ("so72", None),
        ("answer72", 72),
        ("72!", 72),
        ("[72]", 72),
        ("[9]-4", 4),
        ("$9$-4", -4),
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
        ("#### $2.50", "2.50"),
        ("#### 1,234.50", "1234.50"),
        ("#### -0.50", "-0.50"),
        ("#### .5", "0.5"),
        ("#### 2.00", "2"),
        ("#### 72元", "72"),
        ("#### ７２ 元。", "72"),
        (r"#### \$1{,}460.25", "1460.25"),
    ],
)
def test_gold_answer(solution, gold):
    assert gold_answer(solution) == gold
    assert parse_number(gold) is not None


@pytest.mark.parametrize("solution", ["72", "", "####", "#### ", "#### seven", "#### 7 2", "#### 1e3", "72 ####"])
def test_gold_that_cannot_be_scored_is_an_error(solution):
    with pytest.raises(ValueError, match="^A solution must end in '#### <number>', not in '.*'\\.$"):
        gold_answer(solution)


def test_the_error_shows_the_end_of_a_solution():
    with pytest.raises(ValueError, match=f"not in '{'b' * 60}'"):
        gold_answer("a" + "b" * 60)


@pytest.mark.parametrize("gold, number", [
    (72, 72), (-3, -3), ("72", 72), ("$1,000", 1000), (72.0, 72), (1e16, 10**16), (1e22, 10**22), (0.00001, Fraction(1, 10**5)),
    (2.5e-7, Fraction(1, 4 * 10**6)), (-1e16, -(10**16)), (0.1, Fraction(1, 10)), (Decimal("2.50"), Fraction(5, 2)),
    (math.nan, None), (math.inf, None), (1e300, None), (True, None), (None, None), ("1e3", None), ("", None),
])
def test_a_gold_may_be_a_number(gold, number):
    assert gold_number(gold) == number


@pytest.mark.parametrize("text, digits", [("-$1,234.50", "-1234.50"), ("$-5", "-5"), ("+5", "5"), ("007", "007"), ("７２元", "72"), ("x", None), (None, None)])
def test_plain_digits(text, digits):
    assert plain_digits(text) == digits


def test_plain_text():
    assert plain_text(r" ７２^{\circ}\mathrm{C} · \$1{,}200\% ") == "72°C · $1,200%"
    assert plain_text("90^\\circ 5² ٧ ！～｟") == "90° 5² ٧ !~｟"


def test_a_text_is_read_up_to_64_characters_and_two_hundred_of_latex():
    assert parse_number("0" * 62 + "72") == parse_number("**" + "0" * 62 + "72**") == 72
    assert parse_number("0" * 63 + "72") is None
    assert parse_number("72 " + "a" * 61) == 72
    assert parse_number("72 " + "a" * 62) is None
    assert parse_number("7" + r",\!000" * 10) == 7 * 10**30
    long = "72      " + r"\text{a}" * 24
    assert len(long) == 200 and parse_number(long) == 72 and parse_number("0" + long) is None
    assert parse_number(" " * 300 + "72" + " " * 300) == 72


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
HOSTILE += ["\\text{", "{,}", "\\,", "^{", "1^", "1e", "a1", "1/", "√{", "1\u2009", "元", "5万", "．", "x_"]
HOSTILE += ["a", " ", "\n", "\u2003", "9-", "##", "#### ", "\\boxed{", "</reasoning><answer></answer>", "２", "𝟕"]


@pytest.mark.parametrize("function", [parse_number, extract_answer, last_number])
@pytest.mark.parametrize("piece", HOSTILE)
def test_200_000_characters_take_less_than_50_ms(function, piece):
    text = piece * (200_000 // len(piece))
    times = []
    for hostile in [text, completion_of("x", text), "1" + text + "1"] * 3:
        start = time.thread_time()
        function(hostile)
        times.append(time.thread_time() - start)
    assert max(min(times[i::3]) for i in range(3)) < 0.05
