import asyncio
import inspect
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpo_kit.rewards.answers import TAGS, gold_answer
from grpo_kit.rewards.classic import (
    containment_reward_func, correctness_reward_func, extract_hash_answer, int_reward_func, soft_format_reward_func,
    strict_format_reward_func, xmlcount_reward_func,
)
from grpo_kit.rewards.ends import end_tokens
from grpo_kit.rewards.functions import (
    completion_text, correctness_reward, format_reward, integer_reward, tag_reward, zero_truncated,
)

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "gsm8k"
needs_gsm8k = pytest.mark.skipif(
    not GSM8K.is_dir(), reason="needs GSM8K's jsonl files in ../shared/gsm8k beside the clone"
)
SHAPING = [format_reward, tag_reward, integer_reward]


def W(reasoning, answer):
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


def chat(text):
    return [{"role": "assistant", "content": text}]


def right(text, gold="72"):
    """Our four rewards of one completion: correctness, format, tags, integer."""
    columns = {"completions": [chat(text)], "answer": [gold], "prompts": [chat("?")]}
    scores = [func(**columns) for func in (correctness_reward, *SHAPING)]
    assert scores == [func(**(columns | {"completions": [text]})) for func in (correctness_reward, *SHAPING)]
    return [score for [score] in scores]


def classic(text, gold="72"):
    """The five classic rewards of one completion: xmlcount, soft, strict, int, correctness."""
    columns = {"completions": [chat(text)], "answer": [gold], "prompts": [chat("?")]}
    five = [xmlcount_reward_func, soft_format_reward_func, strict_format_reward_func, int_reward_func]
    return [func(**columns)[0] for func in (*five, correctness_reward_func)]


def gsm8k_rows(split):
    return [json.loads(line) for line in (GSM8K / f"{split}.jsonl").read_text("utf-8").split("\n") if line]


# The table of what the classic rewards get wrong, line by line: first theirs, then ours.


def test_two_lines_of_reasoning():
    text = W("6 * 12 = 72\nSo it is 72.", "72")
    assert classic(text) == [0.5, 0.0, 0.0, 0.5, 2.0]
    assert right(text) == [2.0, 0.5, 0.25, 0.25]


@needs_gsm8k
def test_gold_solutions_score_full_marks():
    rows = gsm8k_rows("train") + gsm8k_rows("test")
    bodies = [row["answer"].split("####")[0].strip() for row in rows]
    golds = [gold_answer(row["answer"]) for row in rows]
    written = [row["answer"].split("####")[1].strip() for row in rows]
    texts = [chat(W(body, gold)) for body, gold in zip(bodies, written)]
    assert strict_format_reward_func(texts) == [0.0] * 8792
    scores = zip(correctness_reward(texts, golds), *(func(texts) for func in SHAPING))
    assert list(scores) == [(2.0, 0.5, 0.25, 0.25)] * 8792
    assert correctness_reward(texts, written) == [2.0] * 8792


def test_one_line_of_reasoning():
    text = W("6 * 12 = 72", "72")
    assert classic(text) == [0.5, 0.0, 0.5, 0.5, 2.0]
    assert right(text) == [2.0, 0.5, 0.25, 0.25]


def test_strict_and_soft_exclude_each_other():
    pieces = [*TAGS, "\n", "\n", "72", " ", "x"]
    layouts = ["<reasoning>\nx\n</reasoning>\n<answer>\n72\n</answer>\n", "<reasoning>x</reasoning><answer>72</answer>"]
    rng = random.Random(0)
    most, seen = 0.0, set()
    for _ in range(150_000):
        at = rng.randrange(60)
        text = rng.choice(layouts)
        text = text[:at] + rng.choice(pieces) * rng.randrange(2) + text[at + rng.randrange(2) :]
        _, soft, strict, _, _ = scores = classic(text)
        seen.add((soft, strict))
        most = max(most, sum(scores))
    assert seen == {(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)}
    assert most == 3.5
    assert sum(right(W("x", "72"))) == 3.0  # all that can be had, and it can


@needs_gsm8k
def test_comma_in_the_gold():
    assert extract_hash_answer("#### 1,000") == "1,000"
    assert classic(W("x", "1000"), gold="1,000")[4] == 0.0
    assert right(W("x", "1000"), gold="1,000")[0] == right(W("x", "1,000"), gold="1000")[0] == 2.0
    unwinnable = []
    for rows in (gsm8k_rows("train"), gsm8k_rows("test")):
        golds = [extract_hash_answer(row["answer"]) for row in rows]
        texts = [chat(W("x", gold.replace(",", ""))) for gold in golds]
        unwinnable.append(correctness_reward_func([], texts, golds).count(0.0))
        assert correctness_reward(texts, golds) == [2.0] * len(rows)
    assert unwinnable == [79, 14]


@pytest.mark.parametrize("answer, theirs, ours", [("-10", 0, 0.25), ("1,000", 0, 0.25), ("²", 0.5, 0), ("７２", 0.5, 0.25)])
def test_integer_test(answer, theirs, ours):
    assert classic(W("x", answer))[3] == theirs
    assert right(W("x", answer))[3] == ours


@pytest.mark.parametrize(
    "answer",
    ["$72", "72.0", "72.", "72%", r"\boxed{72}", "$72$", "**72**", "+72", "72 apples", "072"],
)
def test_equal_values_written_otherwise(answer):
    assert classic(W("x", answer))[4] == 0.0
    assert right(W("x", answer)) == [2.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("answer", ["7 2", "72 or 73"])
def test_two_numbers(answer):
    assert classic(W("x", answer))[4] == 0.0
    assert right(W("x", answer)) == [0.0, 0.5, 0.25, 0.0]


def test_no_tag_at_all():
    assert classic("72") == [0.0, 0.0, 0.0, 0.5, 2.0]
    assert right("72") == [0.0, 0.0, 0.0, 0.0]


def test_73_answer_blocks():
    text = "<reasoning>\nx\n</reasoning>\n" + "".join(f"<answer>\n{guess}\n</answer>\n" for guess in range(73))
    assert classic(text)[4] == 2.0
    assert right(text) == [0.0, 0.0, 0.125, 0.0]


def test_first_block_right_second_wrong():
    text = W("x", "72") + "<answer>\n73\n</answer>\n"
    assert classic(text)[4] == 0.0
    assert right(text)[0] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "<reasoning>\n<answer>\n72\n</answer>\n</reasoning>\n",
        "<answer>\n72\n</answer>\n<reasoning>\nx\n</reasoning>\n",
    ],
)
def test_answer_inside_the_reasoning_or_before_it(text):
    assert classic(text)[4] == 2.0
    assert right(text) == [0.0, 0.0, 0.125, 0.0]


def test_stray_answer_tag_after_a_perfect_completion():
    text = W("x", "72") + "<answer>"
    assert classic(text)[4] == 0.0
    assert right(text) == [0.0, 0.0, 0.1875, 0.0]


def test_last_newline_missing():
    text = W("x" * (3048 - len(W("", "72")) + 1), "72").rstrip("\n")
    assert len(text) == 3048 and text.endswith("</answer>")
    assert classic(text)[0] == pytest.approx(-2.547)
    assert right(text) == [2.0, 0.5, 0.25, 0.25]


def test_classic_tags_need_their_newlines():
    tags = ["<reasoning>\n", "\n</reasoning>\n", "\n<answer>\n", "\n</answer>"]
    assert xmlcount_reward_func([chat(tag.strip()) for tag in tags]) == [0.0] * 4
    assert xmlcount_reward_func([chat(tag) for tag in tags]) == pytest.approx([0.125, 0.125, 0.115, 0.126])


def test_trailing_text_is_charged_twice():
    text = W("x", "72") + "x" * 4000
    assert classic(text)[0] == pytest.approx(-7.5)
    assert right(text) == [2.0, 0.0, 0.25, 0.25]


def test_right_outranks_wrong():
    winner, loser = W("x", "72") + "x" * 1000, W("x", "73")
    assert [sum(classic(winner)), sum(classic(loser))] == pytest.approx([1.0, 1.5])
    assert [sum(right(winner)), sum(right(loser))] == [2.5, 1.0]


@pytest.mark.parametrize("gold, answer", [("2", "12"), ("7", "-7"), ("72", " ".join(map(str, range(1000))))])
def test_containment(gold, answer):
    assert containment_reward_func([], [chat(W("x", answer))], [gold]) == [1.0]
    assert right(W("x", answer), gold)[0] == 0.0


@pytest.mark.parametrize("text", ["72", "<answer>72", W("x", "5") + "72", "72" + W("72", "5")])
def test_containment_looks_only_into_the_answer_block(text):
    assert containment_reward_func([], [chat(text)], ["72"]) == [0.0]


@needs_gsm8k
def test_a_list_of_numbers_wins_by_containment():
    golds = [extract_hash_answer(row["answer"]) for row in gsm8k_rows("train")]
    texts = [chat(W("x", " ".join(map(str, range(1000)))))] * len(golds)
    assert sum(containment_reward_func([], texts, golds)) == 6673
    assert correctness_reward(texts, golds) == [0.0] * 7473


def test_crlf_line_ends():
    text = W("x", "72").replace("\n", "\r\n")
    assert classic(text)[2] == 0.0
    assert right(text) == [2.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("nothing", ["", " \t", "\u2003"])
def test_empty_reasoning(nothing):
    assert classic(W(nothing, "72"))[2] == 0.5
    assert right(W(nothing, "72")) == [2.0, 0.0, 0.25, 0.25]
    assert right(W("x", nothing)) == [0.0, 0.0, 0.25, 0.0]


def test_completion_none():
    with pytest.raises(AttributeError):
        classic(None)
    assert right(None) == [0.0, 0.0, 0.0, 0.0]
    for func in SHAPING:
        assert func([None, [], chat(None), ""]) == [0.0] * 4


def test_gold_without_hashes():
    assert extract_hash_answer("The answer is 72") is None
    assert classic(W("x", "72"), gold=None)[4] == 0.0
    with pytest.raises(ValueError):
        gold_answer("The answer is 72")
    assert right(W("x", "72"), gold=None)[0] is None


def test_gold_as_an_int():
    assert classic(W("x", "72"), gold=72)[4] == 0.0
    assert right(W("x", "72"), gold=72)[0] == 2.0


@pytest.mark.parametrize("golds", [["72"], ["72"] * 3, []])
def test_lengths_that_differ(golds):
    texts = [chat(W("x", "72"))] * 2
    assert len(correctness_reward_func([], texts, golds)) == min(2, len(golds))
    with pytest.raises(ValueError):
        correctness_reward(texts, golds)


# What the table does not say.


@pytest.mark.parametrize(
    "text",
    [
        "x" + W("x", "72"),
        W("x", "72") + "x",
        W("x", "72").replace("\n<answer>", "x<answer>"),
        W("x <answer>", "72"),
        W("x", "7</reasoning>2"),
        W("x", "72") + W("x", "72"),
        W("x", "72").replace("reasoning", "answer"),
        W("x", "72").replace("<answer>", "<Answer>"),
    ],
)
def test_format_lost(text):
    assert format_reward([text]) == [0.0]


@pytest.mark.parametrize("text", [W("5 < 7 <<5+7=12>> <b>", "72"), f"\n\n {W('x', '72')}\n", W("x", "72").replace("\n", "")])
def test_format_kept(text):
    assert format_reward([text]) == [0.5]


@pytest.mark.parametrize(
    "text, score",
    [("", 0), (TAGS[0], 0.0625), (TAGS[2] + TAGS[3], 0.125), ("".join(TAGS), 0.25), ("".join(TAGS) * 2, 0)]
    + [("".join(reversed(TAGS)), 0.0625), (TAGS[2] + TAGS[3] + TAGS[0] + TAGS[1], 0.125)],
)
def test_partial_credit(text, score):
    assert tag_reward([text]) == [score]


def test_a_decimal_is_no_integer():
    assert right(W("x", "72.5"), gold="72.5") == [2.0, 0.5, 0.25, 0.0]


def test_an_unscorable_gold_costs_only_its_own_row():
    texts = [W("x", "72")] * 3
    assert correctness_reward(texts, ["72", "seventy-two", 72]) == [2.0, None, 2.0]


def test_truncated_completions_score_0():
    def call(func, golds):
        # The keyword arguments TRL passes.
        names = ["trainer_state", "log_extra", "log_metric"]
        columns = {"prompts": [chat("?")] * 5, "question": ["?"] * 5, "answer": golds} | dict.fromkeys(names)
        ids = [[5, 9], [9, 5], [5, 0, 0], [9], []]
        texts = [W("x", "72"), W("x", "72"), W("x", "72"), W("x", "73") + "x", ""]
        return zero_truncated(func, {0, 9})(completions=[chat(t) for t in texts], completion_ids=ids, **columns)

    assert call(correctness_reward, ["72"] * 5) == [2.0, 0.0, 2.0, 0.0, 0.0]
    assert call(format_reward, ["72"] * 5) == [0.5, 0.0, 0.5, 0.0, 0.0]
    assert call(correctness_reward, ["72", "?", "72", "72", "?"]) == [2.0, None, 2.0, 0.0, None]
    assert zero_truncated(correctness_reward, {0}).__name__ == "correctness_reward"
    with pytest.raises(ValueError):
        zero_truncated(format_reward, {0})(["x", "y"], [[0]])


def test_the_wrapped_reward_is_handed_all_that_the_trainer_gives():
    def reward(completions, completion_ids, prompts, **columns):
        return [float(len(ids)) for ids in completion_ids]

    columns = {"completions": ["a", "b", "c"], "completion_ids": [[5, 9], [5], []], "prompts": ["?"] * 3}
    assert zero_truncated(reward, [9])(**columns) == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("paid, expected", [
    ([2.0, -1.0, 2.0, -0.5], [2.0, -1.0, -1.0, -1.0]),  # cut off, right or wrong, never earns more than a wrong one
    ([2.0, 0.0, 2.0, -0.5], [2.0, 0.0, -0.5, -0.5]),
    ([-2.0, -1.0, 2.0, None], [-2.0, -1.0, -2.0, None]),
    ([None, 0.5, 0.5, 0.25], [None, 0.5, 0.0, 0.0]),
    ([None, float("-inf"), 1.0, float("nan")], [None, float("-inf"), float("-inf"), float("-inf")]),
])
def test_being_cut_off_never_pays_more_than_a_finished_completion(paid, expected):
    """The first two are finished, the other two are not."""
    columns = {"completions": [""] * 4, "completion_ids": [[1, 9], [1, 0, 0], [1], [9, 1]]}
    assert zero_truncated(lambda **given: paid, [9, 0])(**columns) == expected


class Judge:
    __name__ = "judge"

    async def __call__(self, completions, **columns):
        return correctness_reward(completions, **columns)


async def judged(completions, **columns):
    return correctness_reward(completions, **columns)


@pytest.mark.parametrize("reward", [judged, Judge()])
def test_an_async_reward_stays_one(reward):
    wrapped = zero_truncated(reward, [9])
    assert inspect.iscoroutinefunction(wrapped) and wrapped.__name__ == reward.__name__  # TRL asks for both
    columns = {"completions": [W("x", "72")] * 2, "completion_ids": [[9], [1]], "answer": ["72"] * 2}
    assert asyncio.run(wrapped(**columns)) == [2.0, 0.0]


@pytest.mark.parametrize("paid", [[], [1.0], [1.0] * 3])
def test_a_reward_of_the_wrong_length_is_an_error(paid):
    async def awaited(**columns):
        return paid

    columns = {"completions": ["x"] * 2, "completion_ids": [[9], [9]]}
    with pytest.raises(ValueError, match="zip"):
        zero_truncated(lambda **given: paid, [9])(**columns)
    with pytest.raises(ValueError, match="zip"):
        asyncio.run(zero_truncated(awaited, [9])(**columns))


class Tokenizer:
    """Words are tokens, `<…>` special ones; the template ends a turn with `end`."""

    words = ["<eos>", "<pad>", "<end>", "<other>", "?", "answered"]
    all_special_ids = [0, 1, 2, 3]

    def __init__(self, end="<end>\n", eos=0, pad=1):
        self.end, self.eos_token_id, self.pad_token_id = end, eos, pad

    def apply_chat_template(self, messages, tokenize):
        assert not tokenize and [message["role"] for message in messages] == ["user", "assistant"]
        return "".join(f"{message['content']} {self.end}" for message in messages)

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [self.words.index(word) for word in text.split()]}


@pytest.mark.parametrize("tokenizer, config, ends", [
    (Tokenizer(), 0, [0, 1, 2]), (Tokenizer(), [0, 3], [0, 1, 2, 3]), (Tokenizer(), (3, 0), [0, 1, 2, 3]), (Tokenizer(), None, [0, 1, 2]),
    (Tokenizer(end="<end> <other>"), 0, [0, 1, 2]), (Tokenizer(end=""), 0, [0, 1]), (Tokenizer(end="?"), 0, [0, 1]), (Tokenizer(end="<eos>"), 0, [0, 1]), (Tokenizer(pad=None), 0, [0, 2]),
])
def test_every_token_that_ends_a_turn_is_known(tokenizer, config, ends):
    assert end_tokens(tokenizer, SimpleNamespace(eos_token_id=config)) == ends
    columns = {"completions": [W("x", "72")] * 5, "completion_ids": [[5, end] for end in range(5)], "answer": ["72"] * 5}
    assert zero_truncated(correctness_reward, ends)(**columns) == [2.0 * (end in ends) for end in range(5)]


@pytest.mark.parametrize("content, text", [
    ([{"type": "text", "text": "7"}, {"type": "text", "text": "2"}], "72"), ([], ""), ([{"type": "image", "image": object()}], ""),
    ([{"type": "text", "text": None}], ""), ("72", "72"), (None, ""),
])
def test_a_message_may_come_in_parts(content, text):
    assert completion_text([{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]) == text
    parts = [{"type": "text", "text": part} for part in (W("x", "72")[:20], W("x", "72")[20:])]
    columns = {"completions": [[{"role": "assistant", "content": parts}]], "answer": ["72"]}
    assert [reward(**columns) for reward in (correctness_reward, *SHAPING)] == [[2.0], [0.5], [0.25], [0.25]]


@pytest.mark.parametrize("gold, answer", [(1e16, "10,000,000,000,000,000"), (0.00001, "0.00001"), (2.5, "2.50"), (-3.0, "-3"), (72, "７２元")])
def test_a_gold_may_be_a_float(gold, answer):
    assert correctness_reward([W("x", answer), W("x", "8")], [gold, gold]) == [2.0, 0.0]


FRAGMENTS = [*TAGS, "72", "73", "\n", " ", "x", "**72**", "1,000", "²", "\r\n", "\u2028", "\ud800", "\0"]
HOSTILE_TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=20).map("".join)
HOSTILE_COMPLETION = st.one_of(
    HOSTILE_TEXT, st.none(), st.just([]), HOSTILE_TEXT.map(chat), st.just(chat(None)), HOSTILE_TEXT.map(lambda t: W("x", t))
)


@given(st.lists(HOSTILE_COMPLETION, max_size=4), st.data())
def test_hostile_text_never_raises_and_stays_in_bounds(completions, data):
    golds = data.draw(st.lists(st.just("72"), min_size=len(completions), max_size=len(completions)))
    for func, highest in [(correctness_reward, 2.0), (format_reward, 0.5), (tag_reward, 0.25), (integer_reward, 0.25)]:
        rewards = func(completions=completions, answer=golds)
        assert type(rewards) is list and len(rewards) == len(completions)
        assert all(type(reward) is float and 0.0 <= reward <= highest for reward in rewards)


@given(HOSTILE_TEXT, HOSTILE_TEXT)
@example(W("x", "72") + "x" * 1000, W("x", "73"))
def test_right_always_outranks_wrong(one, other):
    for a, b in [(right(one), right(other)), (right(other), right(one))]:
        if a[0] > b[0]:
            assert sum(a) >= sum(b) + 1.0


@given(HOSTILE_TEXT, HOSTILE_TEXT)
def test_full_layout_earns_the_partial_credit_too(reasoning, answer):
    _, layout, tags, integer = right(W(reasoning, answer))
    if layout:
        assert tags == 0.25
    assert layout == 0.5 or any(tag in reasoning + answer for tag in TAGS) or not (reasoning.strip() and answer.strip())


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_only_the_equal_integer_is_right(gold, guess):
    texts = [W("x", f"{gold:,}"), W("x", f"{guess}")]
    assert correctness_reward(texts, [str(gold)] * 2) == [2.0, 2.0 * (gold == guess)]


PIECES = ["<", "<answer>", "</", "<reasoning></reasoning>", "1,", "1,111", "1", "-$", "**", "a", " ", "\n", "\u2003"]


@pytest.mark.parametrize("function", [correctness_reward, *SHAPING])
@pytest.mark.parametrize("piece", [*PIECES, "\\boxed{", "</reasoning><answer></answer>", "<reasoning>\n\n", "".join(TAGS)])
def test_200_000_characters_take_less_than_50_ms(function, piece):
    text = piece * (200_000 // len(piece))
    times = []
    for hostile in [text, W("x", text), W(text, "72"), W("x", "72") + text] * 3:
        start = time.thread_time()
        function(completions=[hostile], answer=["72"])
        times.append(time.thread_time() - start)
    assert max(min(times[i::4]) for i in range(4)) < 0.05


def test_the_rewards_import_no_heavy_package():
    code = "import sys, grpo_kit.rewards; print({'torch', 'unsloth', 'vllm', 'trl', 'numpy'} & set(sys.modules))"
    notebooks = Path(inspect.getfile(correctness_reward)).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=notebooks, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
