"""`make evidence` without its trainings: what it asks for, what it keeps, what it prints."""

import json
import os
import sys

import pytest
import torch

from grpo_kit.workshop import evidence, gpu_check

MEASURES = {"prompt": "q", "layout": True, "truncated": False, "length": 4}


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """A machine with a GPU whose notebooks only write what they evaluated; gives the models they ran with."""
    ran = []

    def run_notebook(source, executed, folder, save):
        ran.append(os.environ["GRPO_MODEL"])
        assert source.name == "00_quickstart.ipynb" and folder == source.parents[1] / "outputs"
        failed = {3: "ValueError: no"} if "broken" in os.environ["GRPO_MODEL"] else {}
        save({"cells": 9, "run": 9, "seconds": 600.0, "errors": failed})
        for when, right in (("before", [False, False, True, False]), ("after", [True, True, True, False])):
            rows = [MEASURES | {"prompt": str(n), "strict": hit, "lenient": hit} for n, hit in enumerate(right)]
            (folder / "grpo_evaluation").mkdir(parents=True, exist_ok=True)
            (folder / f"grpo_evaluation/test_{when}.json").write_text(json.dumps({"rows": rows}))

    for name in ("GRPO_MODEL", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(evidence, "run_notebook", run_notebook)
    monkeypatch.setattr(evidence, "OUT", tmp_path / "outputs")
    monkeypatch.setattr(gpu_check, "OUT", tmp_path / "outputs")
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    monkeypatch.setattr(evidence, "machine", lambda: {"gpu": "A Card!"})
    monkeypatch.setattr(evidence.metadata, "version", lambda name: "1.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return ran


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["evidence", *arguments])
    evidence.main()


def test_both_models_and_the_published_figures_beside_them(ran, monkeypatch, tmp_path, capsys):
    call(monkeypatch)
    assert ran == evidence.MODELS
    report = json.loads((tmp_path / "notebooks/results/evidence_a_card.json").read_text())
    strict = report["models"][evidence.MODELS[1]]["before and after"]["test"]["strict"]
    assert strict["before"].startswith("25.0 %") and strict["after"].startswith("75.0 %") and strict["gained"] == 2
    said = capsys.readouterr().out
    assert said.startswith("By the steps measured on an H100") and "published: 56.3 -> 86.1 %" in said
    assert "strict" in said and "+50.0, p 0.500" in said


def test_a_finished_model_is_kept_and_one_that_failed_is_tried_again(ran, monkeypatch, tmp_path, capsys):
    call(monkeypatch, "--models", "some/model", "broken/model")
    call(monkeypatch, "--models", "some/model", "broken/model")
    assert ran == ["some/model", "broken/model", "broken/model"]
    said = capsys.readouterr().out
    assert "some/model is in notebooks/results/evidence_a_card.json already" in said and "cell 3: ValueError: no" in said


def test_a_folder_is_one_from_here_and_a_copy_is_kept_so_that_its_training_goes_on(ran, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    kept = tmp_path / "outputs/copy-mine/outputs/grpo_checkpoints/checkpoint-20"
    kept.mkdir(parents=True)
    call(monkeypatch, "--models", "mine")
    assert ran == [str(tmp_path / "mine")] and kept.exists()
    assert "mine goes on where it stopped" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_stops_with_one_sentence(monkeypatch):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch)
    assert "PyTorch sees none here" in str(stop.value) and "\n" not in str(stop.value)
