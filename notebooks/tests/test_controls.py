"""`make controls` without a training: what is run, kept, skipped and printed, on canned lines."""

import json
import subprocess
import sys

import pytest

from grpo_kit.machine.profile import PROFILES
from grpo_kit.workshop import controls

JOBS = [{"reward": reward, "seed": seed, "model": "ab12", "steps": 100} for reward, seed in [("full", 1), ("full", 2), ("random", 1)]]


def results(lenient):
    one = {"questions": 400, **dict.fromkeys(controls.FIGURES, 50.0), "lenient": lenient, "tokens": 20.0}
    return {"seconds": 3, "results": {"test": {"sampled": one, "greedy": one | {"lenient": lenient + 1}}}}


def test_every_job_runs_once_and_is_written_in_a_line_of_its_own(tmp_path, capsys):
    runs = controls.collect(tmp_path / "runs.jsonl", JOBS, lambda job: results(10.0 * job["seed"]), at_once=2)
    assert [(run["reward"], run["seed"]) for run in runs] == [("full", 1), ("full", 2), ("random", 1)]
    assert sorted((tmp_path / "runs.jsonl").read_text().splitlines()) == sorted(json.dumps(run) for run in runs)
    assert "3 of 3" in capsys.readouterr().out


def test_it_goes_on_where_it_was_killed(tmp_path):
    file, asked = tmp_path / "runs.jsonl", []
    old = JOBS[1] | {"model": "an earlier one"} | results(0.0)
    file.write_text(f"{json.dumps(JOBS[0] | results(10.0))}\n{json.dumps(old)}\n" + json.dumps(JOBS[1] | results(20.0))[:99])
    runs = controls.collect(file, JOBS, lambda job: asked.append((job["reward"], job["seed"])) or results(30.0))
    assert asked == [("full", 2), ("random", 1)]  # neither the finished one nor the half, and the earlier model's is not taken
    assert [run["results"]["test"]["sampled"]["lenient"] for run in runs] == [10.0, 30.0, 30.0]
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 4
    assert controls.collect(file, JOBS, None) == runs  # nothing is left to run


def test_what_is_finished_is_kept_where_another_fails(tmp_path):
    def run(job):
        if job["seed"] == 2:
            raise RuntimeError("full 2 ended with 1")
        return results(10.0)

    with pytest.raises(RuntimeError, match="full 2"):
        controls.collect(tmp_path / "runs.jsonl", JOBS, run)
    assert json.loads((tmp_path / "runs.jsonl").read_text().splitlines()[0])["seed"] == 1


def test_the_table_has_means_and_intervals_over_the_seeds():
    runs = [job | results(value) for job, value in zip(JOBS, (10.0, 20.0, 5.0), strict=True)]
    lines = controls.table(runs).splitlines()
    assert [line.split(",")[1].split()[0] for line in lines if line.startswith("test")] == ["sampled", "greedy"]
    assert [line.split()[:5] for line in lines[1:3]] == [["full", "(2)", "15.0", "±", "63.5"], ["random", "(1)", "5.0", "50.0", "50.0"]]
    assert lines[4].split()[2] == "16.0"


def test_an_unknown_reward_is_refused():
    with pytest.raises(ValueError, match="no reward 'lucky'.*random"):
        controls.rewards_for("lucky", 1, [0])
    command = [sys.executable, "-m", "grpo_kit.workshop.controls", "--reward", "lucky"]
    done = subprocess.run(command, cwd=controls.NOTEBOOKS, capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice: 'lucky'" in done.stderr


def test_the_coin_comes_from_the_seed_and_not_from_the_text():
    def tossed(seed, text):
        [coin], _ = controls.rewards_for("random", seed, [0])
        return [reward for _ in range(4) for reward in coin(completions=[text] * 50, completion_ids=[[7]] * 50)]

    assert tossed(1, "right") == tossed(1, "") != tossed(2, "right")
    assert set(tossed(1, "x")) == {0.0, 3.0} and 70 < tossed(1, "x").count(3.0) < 130


def test_the_layout_reward_pays_a_wrong_answer_as_a_right_one():
    text = "<reasoning>\n1 + 1 = 2\n</reasoning>\n<answer>\n2\n</answer>"

    def paid(reward, gold, text=text):
        functions, weights = controls.rewards_for(reward, 1, [0])
        earned = [function(completions=[text], answer=[gold], completion_ids=[[7, 0]])[0] for function in functions]
        return sum(weight * one for weight, one in zip(weights, earned, strict=True))

    assert {reward: (paid(reward, "2"), paid(reward, "3")) for reward in ("full", "even", "layout")} == {
        "full": (3.5, 1.5), "even": (3.0, 1.0), "layout": (1.5, 1.5)}
    opened_late = text.removeprefix("<reasoning>\n")
    assert paid("full", "2", opened_late) == paid("even", "2", opened_late) == 2.4375


def test_the_settings_are_the_quickstarts():
    profile = PROFILES["embedded"]
    settings = controls.quickstart_settings(profile)
    assert settings["learning_rate"] == profile.learning_rate and settings["max_steps"] == profile.max_steps
    assert settings["num_generations"] == profile.num_generations and settings["seed"] == controls.SEED
    assert settings["reward_weights"] == [*controls.rewards_for("full", 1, [0])[1], 0.0]


def test_another_model_has_another_fingerprint(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = controls.fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert len(first) == 12 and first != controls.fingerprint(tmp_path)
    assert controls.fingerprint("unsloth/Qwen2.5-3B-Instruct") == "unsloth/Qwen2.5-3B-Instruct"
