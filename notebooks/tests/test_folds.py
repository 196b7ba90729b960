"""Chapter 08's four trainings without a training: what is kept of one, what runs again, and that the stored ones are whole."""

import json
import re

import pytest

from grpo_kit.data import is_chinese, read_instructions
from grpo_kit.workshop import cells, folds

SOURCES = [source for tag in folds.TAGS for _, source in cells.tagged(folds.CHAPTER, tag)]
NAMES = {"best_step": 40, "last_step": 50, "training_loss": {5: 2.12345}, "validation_loss": {0: 2.5, 5: 2.0}, "weaker": 0.5,
         "losses": {0: 2.5, 0.5: 1.23456, 1: 1.1}, "test": [{"instruction": "Who?", "output": "I."}], "answers": {"trained": ["I."]},
         "said": {"trained": {"facts": ["Rome"], "open": ["Once"]}}}


@pytest.fixture
def stored():
    return json.loads(folds.RESULTS.read_text("utf-8"))


def test_the_training_is_written_once_in_the_chapter():
    code, module = "\n".join(SOURCES), (folds.NOTEBOOKS / "grpo_kit/workshop/folds.py").read_text("utf-8")
    assert "SFTTrainer(" in code and code.count("trainer.train()") == 1 and "rescale_adapter_scale(model, strength)" in code
    assert "SFTConfig" not in module and "answer_all" not in module
    assert int(re.search(r", FOLDS = .*, (\d)$", code, re.M)[1]) == folds.FOLDS


def test_what_is_kept_of_a_fold():
    kept = folds.record(NAMES)
    assert kept["training_loss"] == {5: 2.1234} and kept["losses"] == {"0": 2.5, "0.5": 1.2346, "1": 1.1}
    assert kept["instructions"] == ["Who?"] and kept["answers"] == NAMES["answers"] and kept["said"] == NAMES["said"]
    assert json.loads(json.dumps(kept))["best"] == 40


def test_only_the_first_fold_asks_the_untouched_model_and_each_knows_its_number(monkeypatch):
    ran = []

    def run(chapter, tag, names=None):
        ran.append((tag, folds.os.environ["FOLD"]))
        return dict(NAMES)

    monkeypatch.setenv("FOLD", "0")
    monkeypatch.setattr(folds.cells, "run", run)
    assert [folds.run(fold)["best"] for fold in range(2)] == [40, 40]
    assert ran == [("folds", "0"), ("untouched", "0"), ("folds", "1")]


def test_the_stored_result_is_whole_and_comes_from_these_cells(stored):
    assert stored["code"] == folds.code_hash(SOURCES), "the chapter's cells have changed since: run python -m grpo_kit.workshop.folds"
    assert {"machine", "date", "command", "versions", "model"} <= stored.keys() and len(stored["folds"]) == folds.FOLDS
    ways = {"untouched", "prompted", "three shots", "trained", "weaker", "looked up"}
    for fold in stored["folds"]:
        assert fold["answers"].keys() == ways and {len(replies) for replies in fold["answers"].values()} == {len(fold["instructions"])}
        assert fold["validation_loss"][str(fold["best"])] == min(fold["validation_loss"].values())
        assert {len(fold["said"][name]["facts"]) for name in ("trained", "weaker")} == {100}
    assert stored["folds"][0]["said"].keys() == {"untouched", "prompted", "trained", "weaker"}


def test_each_row_is_a_test_row_once(stored):
    rows = [row["instruction"] for row in read_instructions("embedded") if not is_chinese(row["instruction"])]
    assert sorted(one for fold in stored["folds"] for one in fold["instructions"]) == sorted(rows)
