"""The trainings of chapter 08's other folds without a training: what is kept of one, what runs again, and that the stored ones are whole."""

import json
import re

import pytest

from grpo_kit.data import is_chinese, read_instructions
from grpo_kit.workshop import cells, folds

SOURCES = [source for _, source in cells.tagged(folds.CHAPTER, folds.TAG)]
NAMES = {"FOLD": 1, "best_step": 40, "last_step": 50, "training_loss": {5: 2.12344}, "validation_loss": {0: 2.5, 5: 2.0}, "weaker": 0.5,
         "losses": {0: 2.5, 0.5: 1.23456, 1: 1.1}, "test": [{"instruction": "Who?", "output": "I."}], "answers": {"trained": ["I."]},
         "opened": {"trained": ["Once"]}}


@pytest.fixture
def stored():
    return json.loads(folds.RESULTS.read_text("utf-8"))


def test_the_training_is_written_once_in_the_chapter():
    code, module = "\n".join(SOURCES), (folds.NOTEBOOKS / "grpo_kit/workshop/folds.py").read_text("utf-8")
    assert "SFTTrainer(" in code and code.count("trainer.train()") == 1 and "rescale_adapter_scale(model, strength)" in code
    assert "SFTConfig" not in module and "answer_all" not in module
    assert int(re.search(r", FOLDS = .*, (\d)$", code, re.M)[1]) == len(folds.FOLDS) + 1


def test_what_is_kept_of_a_fold():
    kept = folds.record(NAMES)
    assert kept["training_loss"] == {5: 2.1234} and kept["losses"] == {"0": 2.5, "0.5": 1.2346, "1": 1.1}
    assert kept["instructions"] == ["Who?"] and kept["answers"] == NAMES["answers"] and kept["opened"] == NAMES["opened"] and kept["fold"] == 1
    assert json.loads(json.dumps(kept))["best"] == 40


def test_each_fold_knows_its_number_and_the_cells_run_once(monkeypatch):
    ran = []
    monkeypatch.setenv("FOLD", "0")
    monkeypatch.setattr(folds.cells, "run", lambda chapter, tag: ran.append((tag, folds.os.environ["FOLD"])) or dict(NAMES))
    assert [folds.run(fold)["best"] for fold in folds.FOLDS] == [40, 40] and ran == [("folds", "1"), ("folds", "2")]


def test_the_stored_result_is_whole_and_comes_from_these_cells(stored):
    assert stored["code"] == folds.code_hash(SOURCES), "the chapter's cells have changed since: run python -m grpo_kit.workshop.folds"
    assert {"machine", "date", "command", "versions", "model"} <= stored.keys() and [fold["fold"] for fold in stored["folds"]] == folds.FOLDS
    ways = {"untouched", "prompted", "three shots", "trained", "weaker", "looked up"}
    for fold in stored["folds"]:
        assert fold["answers"].keys() == ways and {len(replies) for replies in fold["answers"].values()} == {len(fold["instructions"])}
        assert fold["validation_loss"][str(fold["best"])] == min(fold["validation_loss"].values())
        assert {name: len(texts) for name, texts in fold["opened"].items()} == {"trained": 16, "weaker": 16}


def test_no_row_is_tested_twice(stored):
    rows = {row["instruction"] for row in read_instructions("embedded") if not is_chinese(row["instruction"])}
    tested = [one for fold in stored["folds"] for one in fold["instructions"]]
    assert len(set(tested)) == len(tested) == 120 and set(tested) < rows
