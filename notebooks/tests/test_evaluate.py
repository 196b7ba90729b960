"""The evaluation: hand-checkable scores, intervals against known values, the paired test against scipy."""

import json
import math
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from grpo_kit.measure.ask import as_templated, evaluate, evaluate_with_generate, own_seeds
from grpo_kit.measure.score import MEASURES, Evaluation, as_bools, lenient_accuracy, wilson_shares
from grpo_kit.measure.statistics import compare, majority_vote, over_seeds, paired_line, paired_test, pass_at_k

GOOD = "<reasoning>\n2 + 3 = 5\n</reasoning>\n<answer>\n5\n</answer>"
WRONG = GOOD.replace("5", "6")
BARE = "2 + 3 = 5"
CUT = "<reasoning>\n2 + 3 = 5, so she has 5"


class Tokenizer:
    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"[{message['role']}] {message['content']}\n" for message in messages) + "[assistant]"


class Model:
    """Answers with the given texts in order and keeps what it was asked."""

    def __init__(self, texts):
        self.texts, self.calls = texts, []

    def fast_generate(self, prompts, sampling_params=None, lora_request=None, use_tqdm=True):
        self.calls.append((prompts, sampling_params, lora_request))
        outputs = []
        for text in self.texts:
            reason = "length" if text == CUT else "stop"
            outputs.append(SimpleNamespace(text=text, token_ids=list(range(len(text))), finish_reason=reason))
        return [SimpleNamespace(outputs=[output]) for output in outputs]


class Words(Tokenizer):
    """Numbers words; before every text it puts BOS, 1, unless it is told not to, as Llama's and Gemma's do."""

    bos_token_id, eos_token_id, pad_token_id, all_special_ids, padding_side = 1, 2, 0, [0, 1, 2, 3], "right"
    adds = True

    def __call__(self, texts, add_special_tokens=True, padding=False, return_tensors=None):
        if isinstance(texts, str):
            return {"input_ids": [3] if texts == "<end>" else [4]}
        ids = [[1] * (self.adds and add_special_tokens) + [len(word) for word in text.split()] for text in texts]
        return {"input_ids": ids} if return_tensors is None else Batch(input_ids=ids)

    def apply_chat_template(self, messages, tokenize, add_generation_prompt=False):
        return "".join(f"{message['content']} <end>\n" for message in messages)

    def decode(self, ids, skip_special_tokens):
        return " ".join(str(token) for token in ids if token not in self.all_special_ids)


class Batch(dict):
    def __getitem__(self, name):
        return np.array(super().__getitem__(name))

    def to(self, device):
        return self


def questions(golds):
    system = {"role": "system", "content": "Think."}
    prompts = [[system, {"role": "user", "content": f"Question {i}"}] for i in range(len(golds))]
    return Dataset.from_dict({"prompt": prompts, "answer": golds})


def run(texts, golds=None, **options):
    return evaluate(Model(texts), questions(golds or ["5"] * len(texts)), Tokenizer(), SimpleNamespace(seed=None), **options)


def evaluation(bits):
    """An Evaluation whose four measures all equal `bits`."""
    rows = pd.DataFrame({name: np.array(bits, bool) for name in MEASURES})
    return Evaluation(rows.assign(prompt=[str(i) for i in range(len(bits))], text="", length=1))


def test_each_measure_on_four_completions():
    rows = run([GOOD, WRONG, BARE, CUT]).rows
    assert rows["layout"].tolist() == [True, True, False, False]
    assert rows["strict"].tolist() == [True, False, False, False]
    assert rows["lenient"].tolist() == [True, False, True, True]
    assert rows["truncated"].tolist() == [False, False, False, True]
    assert rows["length"].tolist() == [len(GOOD), len(WRONG), len(BARE), len(CUT)]
    assert rows["text"].tolist() == [GOOD, WRONG, BARE, CUT]


def test_the_model_is_asked_once_with_the_rendered_prompts_and_the_adapter():
    model, sampling_params, lora_request = Model([GOOD, GOOD]), SimpleNamespace(seed=None, top_k=3), object()
    evaluate(model, questions(["5", "5"]), Tokenizer(), sampling_params, lora_request=lora_request)
    prompts = [f"[system] Think.\n[user] Question {i}\n[assistant]" for i in range(2)]
    assert model.calls == [(prompts, [sampling_params] * 2, lora_request)]


def test_every_question_is_sampled_with_a_seed_of_its_own():
    sampling_params = SimpleNamespace(seed=7, temperature=1.0)
    assert [params.seed for params in own_seeds(sampling_params, 3)] == [7, 8, 9]
    assert {params.temperature for params in own_seeds(sampling_params, 3)} == {1.0}
    assert sampling_params.seed == 7


def test_the_base_model_is_asked_unless_an_adapter_is_given():
    model = Model([GOOD])
    evaluate(model, questions(["5"]), Tokenizer(), SimpleNamespace(seed=None))
    assert model.calls[0][2] is None


def test_an_engine_gets_the_tokens_of_the_template_and_no_second_bos():
    model, tokenizer = Model([GOOD, GOOD]), Words()
    rows = evaluate(model, questions(["5", "5"]), tokenizer, SimpleNamespace(seed=None)).rows
    text = "Think. <end>\nQuestion 0 <end>\n"
    assert model.calls[0][0][0] == {"prompt": text, "prompt_token_ids": [6, 5, 8, 1, 5]}
    assert rows["prompt"][0] == text
    for tokenizer.adds, tokenizer.bos_token_id in [(False, 1), (True, None)]:  # nothing is added, or nothing could be
        assert as_templated([text], tokenizer) == [text]


def test_a_completion_that_ends_in_any_of_the_end_tokens_is_finished():
    """Token 2 is the tokenizer's, 3 the template's, 7 and 8 the model's own; 9 ends nothing."""
    asked = {}

    def generate(input_ids, **options):
        asked.update(options)
        return np.concatenate([input_ids, [[5, end, 6, 6] for end in (2, 3, 7, 8, 9)]], axis=1)

    model = SimpleNamespace(generate=generate, device=None, training=False, eval=lambda: None, train=lambda mode: None,
                            generation_config=SimpleNamespace(eos_token_id=[7, 8], max_length=20),
                            get_output_embeddings=lambda: torch.nn.Linear(1, 1))
    rows = evaluate_with_generate(model, questions(["5"] * 5), Words(), max_new_tokens=4).rows
    assert asked["eos_token_id"] == [0, 2, 3, 7, 8] and asked["max_new_tokens"] == 4
    assert rows["truncated"].tolist() == [False] * 4 + [True] and rows["length"].tolist() == [2] * 4 + [4]


def test_a_reply_that_was_begun_is_asked_for_and_scored_with_its_beginning():
    asked, words = {}, Words()

    def generate(input_ids, **options):
        asked["ids"] = np.array(input_ids)
        return np.concatenate([input_ids, [[5, 2]]], axis=1)

    model = SimpleNamespace(generate=generate, device=None, training=False, eval=lambda: None, train=lambda mode: None,
                            generation_config=SimpleNamespace(eos_token_id=2, max_length=20),
                            get_output_embeddings=lambda: torch.nn.Linear(1, 1))
    plain = evaluate_with_generate(model, questions(["5"]), words, max_new_tokens=4).rows
    length = asked["ids"].shape[1]
    begun = evaluate_with_generate(model, questions(["5"]), words, max_new_tokens=4, begun=" Think.").rows
    assert asked["ids"].shape[1] == length + 1 and begun["text"][0] == " Think." + plain["text"][0] and begun["length"][0] == 2


@pytest.mark.parametrize("golds", [[5.0, 1e16], [5, 10**16]])
def test_golds_may_be_numbers(golds):
    texts = [GOOD, GOOD.replace("5", "10,000,000,000,000,000")]
    rows = run(texts, golds).rows
    assert rows["strict"].all() and rows["lenient"].all()


def test_each_completion_meets_its_own_gold():
    texts = [GOOD, GOOD.replace("5", "-3"), GOOD.replace("5", "1,000")]
    assert run(texts, ["5", "-3", "1000"]).rows["strict"].all()
    assert not run(texts, ["-3", "1000", "5"]).rows["strict"].any()


@pytest.mark.parametrize("golds", [["5", "five"], ["", "5"]])
def test_a_gold_that_is_no_number_is_refused_before_the_model_is_asked(golds):
    model = Model([GOOD, GOOD])
    with pytest.raises(ValueError, match="number as its gold"):
        evaluate(model, questions(golds), Tokenizer(), None)
    assert model.calls == []


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="Every question"):
        evaluate(Model([]), Dataset.from_dict({"prompt": [], "answer": []}), Tokenizer(), None)


def test_a_model_that_answers_fewer_questions_than_asked_is_an_error():
    with pytest.raises(ValueError):
        run([GOOD], ["5", "5"])


def test_lenient_accuracy_takes_strings_and_chat_messages():
    chat = [{"role": "assistant", "content": BARE}]
    assert lenient_accuracy([BARE, chat, "no digit", "no digit"], ["5", "5", "5", "none"]) == [1, 1, 0, 0]
    assert lenient_accuracy(["4", "5", "6"], ["5"] * 3) == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError):
        lenient_accuracy([BARE], ["5", "5"], prompts=["q"])


# Wilson 1927 by hand for 0 of 10: high = z²/(n + z²); 81 of 263 is Newcombe 1998, table I (method 3).
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18), (0, 10, 0.0, 27.75)],
)
def test_wilson_interval_equals_published_values(hits, n, low, high):
    summary = evaluation([True] * hits + [False] * (n - hits)).summary()
    for name in MEASURES:
        assert summary.loc[name].tolist() == pytest.approx([100 * hits / n, low, high], abs=0.0051)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_intervals_hold_the_share_and_stay_between_0_and_100(bits):
    summary = evaluation(bits).summary().loc[MEASURES]
    slack = 1e-9
    assert (summary["low"] <= summary["value"] + slack).all()
    assert (summary["value"] <= summary["high"] + slack).all()
    assert (summary["low"] >= -slack).all() and (summary["high"] <= 100 + slack).all()


def test_an_evaluation_prints_as_a_table():
    result = run([GOOD, BARE])
    assert "% of 2 questions" in str(result)
    assert [line.split() for line in str(result).splitlines()][3] == ["strict", "50.0", "9.5", "90.5"]
    assert str(result).splitlines()[-1].split() == ["mean", "tokens", f"{(len(GOOD) + len(BARE)) / 2:.1f}"]
    assert "nan" not in str(result).lower()


def test_paired_test_counts_by_hand():
    gained, lost, p = paired_test([0, 0, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0])
    assert (gained, lost) == (4, 1)
    assert p == pytest.approx(2 * (1 + 5) / 2**5)  # at most 1 of 5 changes one way, on either side


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_paired_test_is_scipys_binomial_test_and_symmetric(pairs):
    before, after = zip(*pairs, strict=True)
    gained, lost, p = paired_test(before, after)
    assert gained - lost == sum(after) - sum(before)
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1
    assert 0 <= p <= 1 and math.isclose(p, expected, rel_tol=1e-9)
    assert paired_test(after, before) == (lost, gained, p)


GAPS = [[], [True, None], [1.0, math.nan], [1, 2], ["True", "False"], pd.array([True, None], dtype="boolean"), [0.5, 1.0], [-1, 0]]


@pytest.mark.parametrize("values", GAPS)
def test_what_is_neither_true_nor_false_is_refused(values):
    with pytest.raises(ValueError, match="each of them True or False"):
        as_bools(values)
    with pytest.raises(ValueError, match="each of them True or False"):
        paired_test(values, values)
    with pytest.raises(ValueError, match="each of them True or False"):
        wilson_shares(pd.DataFrame({"hit": values}))
    with pytest.raises(ValueError, match="each of them True or False"):
        pass_at_k([values], 1)


@pytest.mark.parametrize("values", [[True, False], [1, 0], [1.0, 0.0], np.array([1, 0]), pd.Series([True, False]), (True, False)])
def test_bools_may_be_numbers(values):
    assert as_bools(values).tolist() == [True, False] and as_bools(values).dtype == bool


@pytest.mark.parametrize("before, after", [([1], [0, 0, 0]), ([1, 0], [1]), ([1, 0], [[1, 0], [1, 0]]), ([[1, 0]], [[1, 0]]), ([1] * 3, 1)])
def test_pairs_of_unlike_length_are_refused(before, after):
    for one, other in [(before, after), (after, before)]:
        with pytest.raises(ValueError, match="one answer a question"):
            paired_test(one, other)


def test_one_pair_is_no_evidence():
    assert paired_test([0], [1]) == (1, 0, 1.0) and paired_test([1], [1]) == (0, 0, 1.0)


@pytest.mark.parametrize("values", [[1.0, math.nan], [1.0, 2.0, math.inf], [math.nan] * 3])
def test_an_interval_over_seeds_needs_a_result_of_each(values):
    with pytest.raises(ValueError, match="leave it out"):
        over_seeds(values)


def test_an_evaluation_of_nothing_is_an_error_and_of_one_question_is_wide():
    with pytest.raises(ValueError, match="at least one row"):
        evaluation([]).summary()
    with pytest.raises(ValueError, match="at least one row"):
        compare(evaluation([]), evaluation([]))
    assert evaluation([1]).summary().loc["strict"].tolist() == pytest.approx([100, 20.65, 100], abs=0.01)
    gap = Evaluation(evaluation([1, 0]).rows.assign(length=[1.0, math.nan]))
    assert math.isnan(gap.summary().loc["mean tokens", "value"])


def test_a_paired_test_in_words():
    assert paired_line([0] * 4 + [1] * 3 + [0], [1] * 4 + [1, 0, 0, 0]) == "gained   4, lost   2, p = 0.688"
    assert paired_line([0] * 20, [1] * 20) == "gained  20, lost   0, p < 0.001"


def test_an_interval_over_three_seeds_is_the_textbook_s():
    mean, reach = over_seeds([8.0, 26.7, 18.2])
    assert mean == pytest.approx(52.9 / 3)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in (8.0, 26.7, 18.2)) / 2)
    assert reach == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-6)  # t for 97.5 % at two degrees of freedom
    with pytest.raises(ValueError, match="at least two"):
        over_seeds([8.0])


def test_compare_shows_both_runs_the_difference_and_p():
    table = compare(run([BARE, WRONG, CUT]), run([GOOD, GOOD, GOOD]))
    assert table.index.tolist() == [*MEASURES, "mean tokens"]
    assert table.loc["strict"].tolist() == ["0.0 % [0.0, 56.1]", "100.0 % [43.9, 100.0]", 100.0, 3, 0, "0.250"]
    assert table.loc["lenient", ["difference", "gained", "lost", "p"]].tolist() == [33.3, 1, 0, "1.000"]
    assert table.loc["truncated", ["difference", "gained", "lost", "p"]].tolist() == [-33.3, 0, 1, "1.000"]
    short, long = (len(BARE) + len(WRONG) + len(CUT)) / 3, len(GOOD)
    assert table.loc["mean tokens"].tolist() == [f"{short:.1f}", f"{long:.1f}", round(long - short, 1), "", "", ""]


def test_a_tiny_p_is_printed_as_less_than():
    assert compare(evaluation([0] * 11), evaluation([1] * 11)).loc["strict", "p"] == "<0.001"  # 2 / 2**11
    assert compare(evaluation([0] * 10), evaluation([1] * 10)).loc["strict", "p"] == "0.002"  # 2 / 2**10


@settings(max_examples=20)  # 30 ms each
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_compare_is_symmetric(pairs):
    before, after = (evaluation(bits) for bits in zip(*pairs, strict=True))
    there, back = compare(before, after), compare(after, before)
    assert there["before"].equals(back["after"]) and there["after"].equals(back["before"])
    assert (there["difference"] == -back["difference"]).all()
    assert there["gained"].equals(back["lost"].rename("gained")) and there["p"].equals(back["p"])


def test_compare_refuses_other_questions_and_other_sizes():
    before = evaluation([1, 0, 1])
    other = Evaluation(before.rows.assign(prompt=["a", "b", "c"]))
    for after in (other, evaluation([1, 0])):
        with pytest.raises(ValueError, match="^Not the same questions"):
            compare(before, after)


def test_a_saved_evaluation_holds_everything(tmp_path):
    result = run([GOOD, WRONG, BARE, CUT])
    path = tmp_path / "outputs" / "before.json"  # a folder that does not exist yet
    result.save(path)
    saved = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # NaN is not JSON
    assert saved["questions"] == 4
    assert saved["summary"]["strict"]["value"] == 25.0
    assert saved["summary"]["mean tokens"]["low"] is None
    pd.testing.assert_frame_equal(pd.DataFrame(saved["rows"]), result.rows)
    assert compare(result, Evaluation(pd.DataFrame(saved["rows"])))["difference"].eq(0).all()


@pytest.mark.parametrize("broken", ["json.dumps", "pathlib.Path.write_text", "pathlib.Path.replace"])
def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "before.json"
    run([GOOD]).save(path)
    old = path.read_bytes()

    def fail(*args, **options):
        if broken.endswith("write_text"):
            args[0].write_bytes(b'{"questions": ')  # half a file, then the disk is full
        raise OSError("no space left")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="no space left"):
        run([WRONG, WRONG]).save(path)
    assert path.read_bytes() == old


@pytest.mark.parametrize("n", [3, 200, 400, 1319])
@pytest.mark.parametrize("hit", [True, False])
def test_all_and_nothing_lie_in_their_own_interval(n, hit):
    """A plot's error bars must not be negative, not even by rounding."""
    table = evaluation([hit] * n).summary().loc[MEASURES]
    assert set(table["value"]) == {100.0 * hit}
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_choices_with_a_right_completion(right, data):
    k = data.draw(st.integers(1, len(right)))
    chosen = [any(choice) for choice in combinations(right, k)]
    assert pass_at_k([right], k) == pytest.approx([np.mean(chosen)])


def test_pass_at_k_takes_many_questions_and_many_completions():
    right = np.arange(1000) < np.array([[0], [1], [500], [1000]])
    assert pass_at_k(right, 1) == pytest.approx([0, 0.001, 0.5, 1])
    assert pass_at_k(right, 1000).tolist() == [0, 1, 1, 1]
    assert pass_at_k(right, 500)[1] == pytest.approx(0.5)


@pytest.mark.parametrize("n, k, c", [(2000, 1000, 1), (2000, 1000, 3), (5000, 4999, 1), (5000, 5000, 1), (3000, 1, 7), (1100, 1099, 1100), (4000, 3999, 2)])
def test_pass_at_k_is_exact_for_any_n_and_k(n, k, c):
    right = np.arange(n) < np.array([[c], [0], [n]])
    assert pass_at_k(right, k) == pytest.approx([1 - math.comb(n - c, k) / math.comb(n, k), 0, 1], abs=1e-12)


@pytest.mark.parametrize("k", [1.5, math.nan, -1, math.inf])
def test_k_is_a_whole_number(k):
    with pytest.raises(ValueError, match="from 1 to 2"):
        pass_at_k([[True, False]], k)
    with pytest.raises(ValueError, match="from 1 to 2"):
        majority_vote([[1, 2]], [1], k)


@pytest.mark.parametrize("right", [[True, False], [[True], [True, False]], [[[True]]]])
def test_pass_at_k_needs_as_many_completions_to_each_question(right):
    with pytest.raises(ValueError):
        pass_at_k(right, 1)


@pytest.mark.parametrize("answers, golds, draws", [([], [], 50), ([[1, 2]], [None], 50), ([[1, 2]], [math.nan], 50), ([["7"], ["7"]], ["7", math.nan], 50),
                                                    ([[1, 2]], [1], 0)])
def test_a_vote_on_nothing_is_an_error(answers, golds, draws):
    with pytest.raises(ValueError, match="at least one question"):
        majority_vote(answers, golds, 1, draws=draws)


def test_nan_does_not_vote():
    assert majority_vote([[math.nan, math.nan, 7]], [7], 3).tolist() == [1]


def test_pass_at_k_is_unbiased_where_the_naive_estimate_is_not():
    chance, n, k = 0.2, 5, 4
    right = np.random.default_rng(0).random((40_000, n)) < chance
    assert pass_at_k(right, k).mean() == pytest.approx(1 - (1 - chance) ** k, abs=0.01)
    assert (1 - (1 - right.mean(axis=1)) ** k).mean() < 1 - (1 - chance) ** k - 0.05


def test_a_vote_of_all_completions():
    answers = [[7, 7, 5], [5, 5, 7], [None, None, 7], [None, None, None], [7, 7, 7]]
    assert majority_vote(answers, [7] * 5, 3).tolist() == [1, 0, 1, 0, 1]


def test_a_vote_of_one_is_one_completion_and_two_votes_are_no_better():
    for k in (1, 2):  # two that agree say what one says, and of two that differ a lot takes one
        assert majority_vote([[7, 5, 6, 6]] * 200, [7] * 200, k).mean() == pytest.approx(1 / 4, abs=0.02)


def test_a_tie_is_a_fair_lot():
    assert majority_vote([[7, 5]] * 200, [7] * 200, 2).mean() == pytest.approx(0.5, abs=0.02)
    assert majority_vote([[5, 7]] * 200, [7] * 200, 2).mean() == pytest.approx(0.5, abs=0.02)


def test_a_vote_is_the_same_each_time():
    answers = [[1, 2, 3, 1, 2, 3]] * 5
    assert majority_vote(answers, [1] * 5, 4).tolist() == majority_vote(answers, [1] * 5, 4).tolist()
    assert majority_vote(answers, [1] * 5, 4).tolist() != majority_vote(answers, [1] * 5, 4, seed=1).tolist()


@pytest.mark.parametrize("k", [0, 3])
def test_more_completions_than_were_sampled_are_refused(k):
    with pytest.raises(ValueError, match="from 1 to 2"):
        pass_at_k([[True, False]], k)
    with pytest.raises(ValueError, match="from 1 to 2"):
        majority_vote([[1, 2]], [1], k)


def test_a_vote_needs_a_gold_for_each_question():
    with pytest.raises(ValueError):
        majority_vote([[1], [2]], [1], 1)


# --- to the letter ------------------------------------------------------------------------------------------------------

SENTENCES = {
    "A share needs at least one row, each of them True or False: look for gaps in the rows.": lambda: as_bools([]),
    "Pairs need one answer a question, before and after: these are (1,) and (3,).": lambda: paired_test([1], [0, 0, 0]),
    "1 training has no spread: an interval over seeds needs at least two.": lambda: over_seeds([8.0]),
    "A training without a result has no place in the mean of [1.0, nan]: leave it out, and say so.": lambda: over_seeds([1.0, math.nan]),
    "Not the same questions: evaluate both on one dataset, with one tokenizer.": lambda: compare(evaluation([1]), evaluation([1, 0])),
    "pass@3 needs a k from 1 to 2, the number of completions to each question.": lambda: pass_at_k([[1, 0]], 3),
    "A vote needs at least one question and one draw, and a gold for each question.": lambda: majority_vote([[1], [2]], [1, None], 1),
    "A vote of 3 needs a k from 1 to 2, the number of completions to each question.": lambda: majority_vote([[1, 2]], [1], 3),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_is_refused_is_told_in_these_words(sentence):
    with pytest.raises(ValueError) as raised:
        SENTENCES[sentence]()
    assert str(raised.value) == sentence


def test_two_trainings_have_an_interval():
    assert over_seeds([1.0, 3.0]) == (2.0, pytest.approx(12.7062, abs=1e-4))  # t for 97.5 % at one degree of freedom


def test_a_vote_takes_50_draws_from_seed_3407():
    answers, golds = [[1, 2, 3, 1, 2, 3]] * 40, [1] * 40
    assert majority_vote(answers, golds, 4).tolist() == majority_vote(answers, golds, 4, draws=50, seed=3407).tolist()
    assert all(majority_vote(answers, golds, 4).tolist() != majority_vote(answers, golds, 4, **other).tolist() for other in ({"seed": 3406}, {"seed": 3408}))
    assert majority_vote(answers, golds, 4, draws=1).max() == 1  # one draw is enough


def test_a_saved_evaluation_is_readable_and_lies_where_it_is_told(tmp_path, monkeypatch):
    temporary, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (temporary.append(self.name), replace(self, target)))
    result = Evaluation(run([GOOD]).rows.assign(text="七十二"))
    result.save(tmp_path / "a/b/before.json")
    assert (tmp_path / "a/b/before.json").read_bytes().decode().startswith('{\n "questions": 1,\n "summary": {\n  "layout": {')
    assert '"text": "七十二"' in (tmp_path / "a/b/before.json").read_bytes().decode()
    assert temporary == ["before.json.tmp"] and [file.name for file in (tmp_path / "a/b").iterdir()] == ["before.json"]
