"""`make prices` without a training: what it keeps and skips; and the cell that stands in for TRL's kernel."""

import json
import re
from types import SimpleNamespace

import pytest

from grpo_kit.workshop import cells, prices

SOURCES = [source for _, source in cells.tagged(prices.CHAPTER, prices.TAG)]
KIND = {"code": "ab12", "model": "cd34"}
JOBS = [("layout-first", 1), ("right-first", 1), ("layout-first", 2)]


def run(price, seed, layout=50.0):
    return {"price": price, "seed": seed, "after": {"layout, sampled": layout + seed}}


def test_the_training_is_written_once_in_the_chapter():
    code = "\n".join(SOURCES)
    assert len(SOURCES) == 11 and len(re.findall(r"^def (train|apart|measure|shares|make_rows|new_training_args)\(", code, re.M)) == 6
    module = (prices.NOTEBOOKS / "grpo_kit/workshop/prices.py").read_text("utf-8")
    assert "GRPO" + "Config" not in module and "reward_funcs" not in module
    assert "import unsloth" not in code and "grpo_kit.model" not in code and "FastLanguageModel" not in code


def test_the_hash_sees_what_is_computed_and_nothing_else():
    code = 'def f(x):\n    """What it does."""\n    return x + 1'
    assert prices.code_hash([code]) == prices.code_hash(['def f(x):\n    """Other words."""\n    return (x +\n            1)  # why'])
    assert prices.code_hash([code]) != prices.code_hash([code.replace("1", "2")])


def test_every_training_runs_once_and_a_killed_or_changed_one_again(tmp_path):
    asked = []

    def one(price, seed):
        asked.append((price, seed))
        return run(price, seed)

    prices.train_left(JOBS, tmp_path, KIND, one)
    prices.train_left(JOBS, tmp_path, KIND, one)
    assert asked == JOBS and sorted(file.name for file in tmp_path.glob("*.json*")) == ["layout-first_1.json", "layout-first_2.json", "right-first_1.json"]
    (tmp_path / "right-first_1.json").unlink()  # killed before it was written
    prices.train_left(JOBS, tmp_path, KIND, one)
    assert asked == [*JOBS, ("right-first", 1)]
    assert prices.finished(tmp_path / "layout-first_1.json", KIND)["after"] == {"layout, sampled": 51.0}
    assert prices.finished(tmp_path / "layout-first_1.json", KIND | {"code": "other"}) is None
    prices.train_left(JOBS[:1], tmp_path, KIND | {"model": "other"}, one)
    assert asked[-1] == ("layout-first", 1) and len(asked) == 5


def test_a_failure_leaves_no_file_and_what_was_finished_before_it(tmp_path):
    def one(price, seed):
        if price == "right-first":
            raise RuntimeError("out of memory")
        return run(price, seed)

    with pytest.raises(RuntimeError, match="out of memory"):
        prices.train_left(JOBS, tmp_path, KIND, one)
    assert [file.name for file in tmp_path.glob("*.json*")] == ["layout-first_1.json"]
    prices.train_left(JOBS, tmp_path, KIND, run)  # the lock was given back
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_one_in_training_elsewhere_is_left_to_it(tmp_path, monkeypatch, capsys):
    from grpo_kit.training import resume

    def taken(folder):
        if folder.name == "right-first_1":
            raise RuntimeError("Another process is training there")

    monkeypatch.setattr(resume, "take_lock", taken)
    monkeypatch.setattr(resume, "free_lock", lambda folder: None)
    prices.train_left(JOBS, tmp_path, KIND, run)
    assert "right-first 1 is in training elsewhere" in capsys.readouterr().out and not (tmp_path / "right-first_1.json").exists()
    assert (tmp_path / "layout-first_2.json").exists()


def test_what_a_training_leaves_behind():
    import pandas as pd

    step = {"reward": 1.25, "frac_reward_zero_std": 0.5, "rewards/full_pattern/mean": 0.25, "rewards/lenient_accuracy/mean": 0.3, "rewards/apart/mean": 0.0}
    trainer = SimpleNamespace(state=SimpleNamespace(log_history=[step, step, {"train_runtime": 9.0}]))
    texts = ["<reasoning>\n<reasoning>", "a", "b", "<reasoning>", "c"]
    names = {"train": lambda price, seed, callbacks, report_to: trainer, "shares": lambda evaluations: {"lenient, greedy": 7.0},
             "measure": lambda: {"greedy": SimpleNamespace(rows=pd.DataFrame({"text": texts}))},
             "full_pattern": lambda texts: [float("<reasoning>" in text) for text in texts]}
    got = prices.record(names, "layout-first", 3407)
    assert got["curves"] == {"full_pattern": [25.0] * 2, "lenient_accuracy": [30.0] * 2, "apart": [0.0] * 2, "one_kind": [50.0] * 2, "reward": [1.25] * 2}
    assert got["paid"] == {"greedy": 40.0} and got["second reasoning"] == {"greedy": 20.0} and got["after"] == {"lenient, greedy": 7.0}
    assert (got["price"], got["seed"], got["replies"]) == ("layout-first", 3407, {"greedy": texts[:4]})


def test_groups_are_apart_where_the_price_lists_give_other_advantages():
    import torch

    rewards = re.search(r"^LAYOUT = .*?^PRICES = .*?$", "\n".join(SOURCES), re.S | re.M)[0]
    names = {"re": re, "torch": torch, "completion_text": str, "profile": SimpleNamespace(num_generations=4)}
    exec(rewards, names)
    exec(re.search(r"^def advantages.*?tolist\(\)$", "\n".join(SOURCES), re.S | re.M)[0], names)
    wrong, plain = "<reasoning>\n1\n</reasoning>\n<answer>\n1\n</answer>", "2"
    right, tag_only = wrong.replace("<answer>\n1", "<answer>\n2"), "<answer>\n2\n</answer>"
    groups = {"one kind": [plain] * 4, "ranked alike": [wrong, plain] * 2, "opposed": [tag_only, wrong] * 2, "three": [right, wrong, plain, plain]}
    got = names["apart"](completions=sum(groups.values(), []), answer=["2"] * 16)
    assert got == [0.0] * 8 + [1.0] * 8


def test_the_table_pairs_by_seed():
    layouts = {"layout-first": (10, 10), "even": (10, 30), "right-first": (30, 40)}
    runs = [run(price, seed, layouts[price][seed - 1]) for price in prices.LISTS for seed in (1, 2)]
    runs[0]["after"]["truncated, sampled"] = 1.0  # the others were counted without it
    text = prices.table(runs)
    assert text.splitlines()[0].split() == "layout, sampled layout-first 11.5 % even 21.5 % right-first 36.5 %".split()
    assert [line.split() for line in text.splitlines()[1:]] == [
        "even minus layout-first: +0.0 +20.0".split(), "right-first minus layout-first: +20.0 +30.0".split()]


def test_the_stored_result_is_whole_and_comes_from_these_cells():
    stored = json.loads(prices.RESULTS.read_text("utf-8"))
    assert stored["code"] == prices.code_hash(SOURCES), "the chapter's cells have changed since: run `make prices`"
    assert len(stored["seeds"]) == prices.SEEDS
    assert [(one["price"], one["seed"]) for one in stored["runs"]] == [(price, seed) for price in prices.LISTS for seed in stored["seeds"]]
    assert {len(curve) for one in stored["runs"] for curve in one["curves"].values()} == {25}
    assert {"machine", "date", "command", "versions", "model", "questions", "untrained"} <= stored.keys()
    assert all({"full_pattern", "lenient_accuracy", "reward"} <= one["curves"].keys() for one in stored["runs"])
    counted = [one for one in stored["runs"] if one["price"] != "right-first"]  # of right-first not all: the count came later
    assert all(one[name].keys() == {"sampled", "greedy"} for one in counted for name in ("paid", "second reasoning"))


def test_the_mended_recipe_is_stored_from_these_cells():
    stored = json.loads(prices.RESULTS.read_text("utf-8"))
    both = [source for _, source in cells.tagged(prices.CHAPTER, prices.TAG, prices.MENDED)]
    assert len(both) == len(SOURCES) + 1 and any("def exact_layout" in source for source in both)
    assert stored["mended code"] == prices.code_hash(both), "the chapter's cells have changed since: run `make prices`"
    assert [(one["price"], one["seed"]) for one in stored["mended"]] == [(prices.MENDED, seed) for seed in prices.MENDED_SEEDS]
    assert stored["prices"].keys() == {*prices.LISTS, prices.MENDED}
    assert [run["price"] for run in stored["stairs"]["runs"]] == ["stairs"] * 4 and "def opened" in stored["stairs"]["rewards"]
    assert all({"exact_layout", "right_in_layout"} <= one["curves"].keys() for one in stored["mended"])
    assert all({"no opening tag", "second reasoning"} <= one.keys() for one in stored["mended"])


def test_the_mended_recipe_pays_the_whole_and_nothing_less():
    from grpo_kit.rewards import completion_text, parse_number

    [source] = [source for _, source in cells.tagged(prices.CHAPTER, prices.MENDED)]
    names = {"re": re, "completion_text": completion_text, "parse_number": parse_number, "PRICES": {}}
    exec(source, names)
    right = "<reasoning>\n5 - 3 = 2\n</reasoning>\n<answer>\n2\n</answer>"
    whole = [right, right + "\n", right.replace("\n2\n", "\n 2.0 \n")]
    wrong = [right.replace("\n2\n", "\n12\n"), right.replace("\n2\n", "\n2 or 3\n")]
    broken = ["<reasoning>\n2", right + " Done.", right.replace("5 - 3", "</reasoning> 5 - 3"), right.replace("5 - 3 = 2", ""), "<reasoning>\n" + right,
              "Well: " + right, right.replace("<reasoning>\n", ""), right.replace("</answer>", ""), right.replace("\n2\n", "\n \n"), "2", ""]
    for text in [*whole, *wrong, *broken]:
        completions = [[{"role": "assistant", "content": text}]]
        assert names["exact_layout"](completions=completions, answer=["2"]) == [float(text not in broken)], text
        assert names["right_in_layout"](completions=completions, answer=["2"]) == [float(text in whole)], text
    assert len(names["PRICES"]["mended"]) == len(names["mended_funcs"]) and sum(names["PRICES"]["mended"]) == 7


def test_the_stand_in_for_the_kernel_gives_log_probabilities_and_their_gradients():
    import torch
    from torch.nn.functional import cross_entropy

    definition = re.search(r"^class PlainLogProbs.*?(?=^if )", "\n".join(SOURCES), re.S | re.M)[0]
    names = {"torch": torch}
    exec(definition, names)
    torch.manual_seed(0)
    hidden, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((7, 5), (11, 5), (11,)))
    targets, scale = torch.randint(11, (7,)), 1.5
    got, entropy, *rest = names["PlainLogProbs"].apply(hidden, weight, bias, targets, 0.7, 4, None, scale, ("log_probs", "entropy"))
    wanted = -cross_entropy(scale * (hidden @ weight.T + bias) / 0.7, targets, reduction="none")
    torch.testing.assert_close(got, wanted.float(), rtol=1e-5, atol=1e-5)
    push = torch.randn(7)
    pairs = zip(*(torch.autograd.grad(one.float() @ push, (hidden, weight, bias)) for one in (got, wanted)))
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)
    logits = scale * (hidden @ weight.T + bias) / 0.7
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy().float(), rtol=1e-5, atol=1e-5)
    assert rest == [None] * 3
    for asked in ({"softcap": 30.0}, {"outputs": ("log_probs", "is_top1")}):
        with pytest.raises(NotImplementedError, match="add here what you need"):
            names["PlainLogProbs"].apply(hidden, weight, bias, targets, 0.7, 4, **asked)
