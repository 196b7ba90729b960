"""The trainings that chapter 09 compares, without a training: which are planned, what is chosen on the way, and the loop's gradient."""

import json
import re

import pandas as pd
import pytest
import torch

from grpo_kit.workshop import cells, prefixes

SOURCES = [source for _, source in cells.tagged(prefixes.CHAPTER, prefixes.TAG)]


def test_what_trains_is_written_once_in_the_chapter():
    code = "\n".join(SOURCES)
    assert len(re.findall(r"^def (train_adapter|make_training_args|plain_prefix|add_gradient|train_by_grpo|roll_out)\(", code, re.M)) == 6
    module = (prefixes.NOTEBOOKS / "grpo_kit/workshop/prefixes.py").read_text("utf-8")
    assert "SFT" + "Config" not in module and "Ada" + "mW" not in module


def test_each_training_is_planned_once_and_after_what_it_needs():
    jobs = prefixes.jobs_of(240, 60, 20)
    assert len({json.dumps(job) for job in jobs}) == len(jobs) == 3 + 3 + 2 + 1 + 3 + 1 + 2 + 2
    kinds = [job["training"] for job in jobs]
    assert jobs[0]["seed"] == prefixes.SEED and jobs[0]["rows"] == 300  # the prefix that GRPO goes on from
    assert max(place for place, kind in enumerate(kinds) if kind == "rate, GRPO") < kinds.index("GRPO")
    text = next(place for place, job in enumerate(jobs) if job.get("start") == "text")
    assert max(place for place, kind in enumerate(kinds) if kind == "rate, text") < text and kinds[-4:-2] == ["GRPO, early prefix", "GRPO, small LoRA"]
    assert [job["adapter"] for job in jobs[-2:]] == 2 * ["small LoRA"] and {job["seed"] for job in jobs[-2:]} == {prefixes.SEED + 1, prefixes.SEED + 2}
    assert [job["rows"] for job in jobs if job.get("rows", 300) > 300] == [1920]  # a fresh row at each of 240 steps of eight


def test_what_was_run_late_is_stored_in_its_place():
    jobs = prefixes.jobs_of(240, 60, 20)
    lines = [job | {"cpu seconds": place} for place, job in enumerate(jobs)]
    assert prefixes.in_order(jobs, lines[::-1]) == lines and prefixes.in_order(jobs, lines[-1:]) == lines[-1:]


def test_the_best_trial_is_taken_and_none_is_an_error():
    lines = [{"training": "rate, GRPO", "part": part, "seen": {"reward": [9.0] * 4 + [reward] * 4}} for part, reward in ((20, 1.0), (5, 1.4), (2, 0.3))]
    assert prefixes.best(lines, "rate, GRPO", "part", lambda line: sum(line["seen"]["reward"][-4:])) == 5
    with pytest.raises(RuntimeError, match="No trial 'rate, text'"):
        prefixes.best(lines, "rate, text", "rate", len)


def test_a_score_counts_greedy_and_sampled_replies():
    def rows(right):
        return pd.DataFrame({"layout": [True, True, False], "lenient": right})

    names = {"asked": lambda model, data: rows([True, False, False]), "test_dataset": None, "tokenizer": None,
             "profile": type("Profile", (), {"max_completion_length": 8}),
             "evaluate_with_generate": lambda *given, batch_size: type("Evaluation", (), {"rows": rows([given[5] == 7] * 3)})}
    assert prefixes.score(names, None, [7, 8]) == {"greedy": [2, 1], "sampled": [[2, 3], [2, 0]], "right": "100"}


def test_the_loops_gradient_is_that_of_the_paid_replies():
    source = next(source for source in SOURCES if "def add_gradient" in source)
    weight = torch.zeros(8, 1, requires_grad=True)
    names = {"torch": torch, "REPLIES": 4, "AT_ONCE": 3, "log_probs": lambda policy, tokens, mask, length, by_mask: weight[tokens[:, 0]].expand(-1, 2)}
    exec(source, names)
    policy, tokens = type("Policy", (), {"device": "cpu"}), torch.arange(8)[:, None]
    counted = torch.ones(8, 2)
    counted[0, 1] = 0
    names["add_gradient"](policy, tokens, counted, counted, torch.tensor([[2.0, 0, 0, 0], [1, 1, 1, 1]]))
    advantage = (2 - 0.5) / (1.0 + 1e-4)
    expected = torch.tensor([-advantage, *[2 * 0.5 / (1.0 + 1e-4)] * 3, 0, 0, 0, 0]) / 15  # ascent for what was paid, by tokens
    assert torch.allclose(weight.grad[:, 0], expected, atol=1e-6)


def test_what_is_stored_was_planned_and_made_by_these_cells():
    stored = json.loads(prefixes.RESULTS.read_text("utf-8"))["profiles"]["embedded"].get("trainings")
    if not stored:
        pytest.skip("none is stored yet: python -m grpo_kit.workshop.prefixes makes them")
    jobs = prefixes.jobs_of(240, 60, 20)
    assert all(job.items() <= line.items() for job, line in zip(jobs, stored["lines"], strict=True))
    assert stored["code"] == prefixes.code_hash(SOURCES)
