"""Generated completions through every reward and the scorer: none raises, none leaves its bounds, right outranks wrong, none takes long."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpo_kit.measure.score import lenient_accuracy
from grpo_kit.rewards.answers import TAGS, extract_answer, last_number, parse_number
from grpo_kit.rewards.functions import correctness_reward, format_reward, integer_reward, tag_reward, zero_truncated

HIGHEST = {correctness_reward: 2.0, format_reward: 0.5, tag_reward: 0.25, integer_reward: 0.25, lenient_accuracy: 1.0}
RIGHT = "72 072 72.0 72.00 +72 $72 ¥72 72% 72元 72个苹果。 ７２ ￥７２ 72. **72** $72$ \\boxed{72} \\$72 72\\% 72km/h 72m² 72°C 72€".split()
WRONG = "73 -72 7.2 720 7,2 71,72 72,72 72/1 1e72 72e0 72² 7²2 72½ 7_2 72万 72k 72! 七十二 ٧٢ 7\\!2 72.0.0 \\frac{72}{1} [72] --72 ７,２".split()
RIGHT.append("72" + "\\text{}" * 27 + "\\textab{}")  # 200 characters, the most that are read
WRONG.append("72" + "\\text{}" * 27 + "\\textabc{}")
NOISE = [*TAGS, "<answer", "answer>", "</", "\n", "\r\n", " ", "\u2028", "\u3000", "\0", "\ud800", "\u202e", "é", "𝟕", "５", "。", "²", "½", "√", "√{"]
NOISE += ["1", "7", "2", "72", "1,", ",000", ".", "-", "−", "$", "$$", "%", "**", "{", "}", "{,}", "^{", "^", "\\", "\\text{", "\\boxed{", "\\frac{", "\\,"]
NOISE += ["e5", "E-", "x_", "/", ":", "k", "万", "元", "km/h", "####", "9" * 70, "a" * 70, "None", "nan", "inf", "1_0", "0x1F", "=", "<<7*2=14>>"]


def layout(reasoning, answer):
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


def near_miss(draw):
    """A completion that is nearly in the layout, or nearly right: a layout with a few pieces put in, cut out or doubled."""
    noise = "".join(draw.choices(NOISE, k=draw.randrange(6)))
    text = layout(draw.choice(["6 * 12 = 72", "x\ny", "", noise]), draw.choice([*RIGHT, *WRONG, noise]))
    for _ in range(draw.choice([0, 0, 1, 1, 2, 5])):
        start, end = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        if end - start > 12:
            end = start + draw.randrange(12)
        text = text[:start] + draw.choice(["", draw.choice(NOISE), text[start:end] * 2, "\n"]) + text[end:]
    return text


def judge(texts, ends=(0,)):
    """Every reward of every text, which are checked one by one; the finished ones are those of even places."""
    forms = [[text, [{"role": "assistant", "content": text}], [{"role": "assistant", "content": [{"type": "text", "text": text}]}]][place % 3]
             for place, text in enumerate(texts)]
    columns = {"completions": forms, "answer": ["72"] * len(texts), "completion_ids": [[1, place % 2] for place in range(len(texts))]}
    paid = {}
    for reward, highest in HIGHEST.items():
        paid[reward] = reward(**columns)
        assert len(paid[reward]) == len(texts) and all(type(one) is float and 0.0 <= one <= highest for one in paid[reward]), reward
        finished = zero_truncated(reward, ends)(**columns)
        assert finished == [0.0 if place % 2 else one for place, one in enumerate(paid[reward])]
    totals = [sum(paid[reward][place] for reward in HIGHEST if reward is not lenient_accuracy) for place in range(len(texts))]
    for text, correct, total, lenient in zip(texts, paid[correctness_reward], totals, paid[lenient_accuracy]):
        assert correct in (0.0, 2.0) and (total >= 2.0 if correct else total <= 1.0), text
        assert correct == 2.0 * (parse_number(extract_answer(text)) == 72) and lenient == (last_number(text) == 72), text
    return paid


def judge_near_misses(count):
    draw = random.Random(3407)
    right = 0
    for _ in range(count // 1000):
        right += sum(judge([near_miss(draw) for _ in range(1000)])[correctness_reward]) / 2
    assert 0.1 * count < right < 0.9 * count  # else nothing is tried


def test_near_misses():
    judge_near_misses(2000)


@pytest.mark.robust
def test_a_hundred_thousand_near_misses():
    judge_near_misses(100_000)


PIECES = st.lists(st.sampled_from([*NOISE, *RIGHT, *WRONG]) | st.text(max_size=8), max_size=12).map("".join)
TEXTS = st.lists(PIECES | st.builds(layout, PIECES, PIECES), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_any_text(texts):
    judge(texts)


@pytest.mark.robust
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_any_of_many_texts(texts):
    judge(texts)


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_is_right_however_it_is_written(answer):
    paid = judge([layout("6 * 12", answer)])
    assert [paid[reward] for reward in HIGHEST] == [[2.0], [0.5], [0.25], [0.25], [1.0]]


@pytest.mark.parametrize("answer", WRONG)
def test_a_wrong_answer_is_wrong_however_near_it_is(answer):
    assert parse_number(answer) != 72 and judge([layout("6 * 12", answer)])[correctness_reward] == [0.0]


@pytest.mark.parametrize("reward", HIGHEST)
@pytest.mark.parametrize("piece", NOISE + ["1 ", "1a", "a1", "1/", "1^", "-1", "1,111", "1{,}", "\\text{1", "\\text{1}", "．", "5万", "1\u2009", "]", "<>"])
def test_200_000_characters_take_less_than_50_ms(reward, piece):
    """In the thread's own seconds: other programs do not count."""
    text = piece * (200_000 // len(piece))
    times = {}
    for name, hostile in {"alone": text, "answer": layout("x", text), "reasoning": layout(text, "72"), "before": text + layout("x", "72")}.items():
        for _ in range(3):
            start = time.thread_time()
            reward(completions=[hostile], answer=["72"])
            times[name] = time.thread_time() - start
            if times[name] < 0.05:
                break
    assert max(times.values()) < 0.05, times
