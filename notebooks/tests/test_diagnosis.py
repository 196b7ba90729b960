"""Canned logs: each fault is named, a healthy training is left in peace."""

import math

import pytest
import torch

from grpo_kit.training.diagnosis import FINDINGS, diagnose, put_back, trained_tensors

HEALTHY = {"reward": 1.0, "learning_rate": 1e-3, "grad_norm": 0.1, "frac_reward_zero_std": 0.3,
           "completions/clipped_ratio": 0.0, "kl": 0.05, "entropy": 0.2}


def found(history, *tensors):
    return list(diagnose(history, *tensors)["finding"])


def history(steps=8, **change):
    return [HEALTHY | change for _ in range(steps)] + [{"train_runtime": 1.0}]


def test_a_healthy_training_has_no_findings():
    table = diagnose(history())
    assert table.empty and list(table.columns) == ["finding", "evidence", "what to do"]


@pytest.mark.parametrize("metric, value, finding", [
    ("learning_rate", 0.0, "learning rate zero"), ("completions/clipped_ratio", 1.0, "completions cut off"),
    ("frac_reward_zero_std", 1.0, "no spread in the rewards"), ("entropy", 0.0, "entropy collapsed"),
    ("kl", 7.0, "KL running away"), ("grad_norm", 0.0, "gradient zero"),
])
def test_each_fault_is_named(metric, value, finding):
    for bad in (value, math.nan, None):
        table = diagnose(history(**{metric: bad}))
        assert list(table["finding"]) == [finding] and metric in table["evidence"][0]


def test_every_finding_is_reachable_and_causes_come_first():
    ill = {metric: math.nan for _, metric, *_ in FINDINGS}
    assert found(history(**ill)) == [finding for finding, *_ in FINDINGS]


def test_the_end_counts_and_not_the_start():
    assert found(history(6, kl=9.0)[:-1] + history(2)) == []  # came back
    assert found(history(6)[:-1] + history(2, kl=9.0)) == ["KL running away"]
    warm_up = [HEALTHY | {"learning_rate": 0.0}, HEALTHY]  # the first step of a warm-up
    assert found(warm_up) == []


def test_a_single_overflow_is_no_finding():
    overflow = [HEALTHY | {"grad_norm": math.nan}]  # half precision's loss scaler skips such a step
    assert found(history()[:-1] + overflow) == found(overflow + history()) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_found_in_whatever_is_logged(bad):
    for metric in ("loss", "reward", "grad_norm", "kl", "entropy", "completions/mean_length", "rewards/format_reward/std"):
        log = [HEALTHY] * 30 + [HEALTHY | {metric: bad}] * 9 + [HEALTHY]
        table = diagnose(log)
        assert any(metric in evidence for evidence in table["evidence"]), metric
    table = diagnose([HEALTHY] * 30 + [HEALTHY | dict.fromkeys(["kl", "grad_norm", "entropy"], math.nan)] * 9 + [HEALTHY])
    assert list(table["finding"]) == ["NaN or infinity in the log"]
    assert table["evidence"][0] == "grad_norm in 9 steps, kl in 9 steps, entropy in 9 steps"
    assert found([HEALTHY, HEALTHY | {"loss": bad}] + [HEALTHY] * 30) == ["NaN or infinity in the log"]  # at the start, too
    assert found(history()[:-1] + [{"train_loss": bad}]) == ["NaN or infinity in the log"]
    assert found(history(grad_norm=bad)) == ["gradient zero" if bad != math.inf else "NaN or infinity in the log"]


def test_a_metric_that_is_not_logged_is_passed_over():
    assert found([{"reward": 1.0}] * 2) == []


def test_a_reward_that_fell_is_named_in_a_log_long_enough_to_tell():
    name = "rewards/format_reward/mean"
    fell = [HEALTHY | {name: 0.1}] * 10 + [HEALTHY | {name: 0.04}] * 10
    table = diagnose(fell)
    assert list(table["finding"]) == ["rewards fell"]
    assert "first quarter to last: format_reward from 0.1 to 0.04" in table["evidence"][0]
    assert found(fell[::-1]) == found(fell[5:15]) == []  # it rose; and ten steps are too few


def test_too_short_a_log_is_an_error():
    with pytest.raises(ValueError, match="fewer than two steps"):
        diagnose([HEALTHY, {"train_runtime": 1.0}])


def test_an_adapter_that_never_changed():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    before = trained_tensors(model)
    assert list(before) == ["weight"]
    assert found(history(), before, trained_tensors(model)) == ["the adapter never changed"]
    model(torch.ones(2)).sum().backward()
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert found(history(), before, trained_tensors(model)) == []
    put_back(model, before)
    assert torch.equal(model.weight, before["weight"]) and model.weight.grad is None
    for bad in (math.nan, math.inf):
        with torch.no_grad():
            model.weight[1, 1] = bad
        table = diagnose(history(), before, trained_tensors(model))
        assert list(table["finding"]) == ["NaN or infinity in the adapter"] and "1 of 1 tensors, the first: weight" in table["evidence"][0]
    put_back(model, before)
    assert before["weight"].data_ptr() != model.weight.data_ptr()
