"""What chapter 14 stands on: who failed, where a step's time went, what fits, how long a step takes; and verl's side."""

import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from transformers import Qwen2Config

from grpo_kit.data.parquet import write_parquet
from grpo_kit.machine.memory import count_parameters, frozen_bytes
from grpo_kit.machine.profile import PROFILES
from grpo_kit.machine.sharding import choose, engine_bytes, least_cards, training_bytes
from grpo_kit.machine.step_time import CARDS
from grpo_kit.machine.workers import Worker, calibrate, gpu_worker
from grpo_kit.plots.scaling import WAY_COLORS, WAYS_TO_SHARE, plot_choice, plot_ways
from grpo_kit.rewards.verl import compute_score
from grpo_kit.training import launch
from grpo_kit.workshop import scale
from grpo_kit.workshop.scale_hosts import watch

ROOT_CAUSE = """
Traceback (most recent call last):
  File "x.py", line 3, in <module>
ValueError: no such thing
Root Cause (first observed failure):
[0]:
  time      : 2026-11-27_15:00:00
  host      : vm
  rank      : 1 (local_rank: 1)
  exitcode  : {} (pid: 4711)
"""
RIGHT = "<reasoning>\n2 + 3 = 5\n</reasoning>\n<answer>\n5\n</answer>"
SMALL = Qwen2Config(vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)


def diary(folder, rank, steps):
    (folder / f"rank_{rank}.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, steps + 1)))


def test_a_killed_rank_is_named_with_what_is_left(tmp_path):
    diary(tmp_path, 1, 3)
    assert "begins anew" in launch.failure(ROOT_CAUSE.format(-9), tmp_path)
    (tmp_path / "checkpoint-2").mkdir()
    sentence = launch.failure(ROOT_CAUSE.format(-9), tmp_path)
    assert sentence == ("Rank 1 (process 4711) was ended by signal 9 after step 3, and the launcher ended the others: "
                        "the same command goes on from the checkpoint of step 2.")


def test_an_error_in_a_rank_and_in_the_launcher_are_said(tmp_path):
    assert "Rank 1 (process 4711) failed: ValueError: no such thing after step 0" in launch.failure(ROOT_CAUSE.format(1), tmp_path)
    assert launch.failure("accelerate: error: unknown\n", tmp_path).endswith("accelerate: error: unknown")


def test_a_launcher_that_fails_is_a_sentence(tmp_path):
    process = launch.start([launch.sys.executable, "-c", "print('nothing here'); exit(3)"], tmp_path / "log")
    with pytest.raises(launch.LaunchFailed, match="nothing here"):
        launch.wait_for(process, tmp_path / "log", tmp_path)


def test_a_step_is_split_without_a_rest():
    parts = [["rollouts", 10.0, 14.0, 3.9], ["others' rollouts", 14.0, 15.5, 0.0], ["gradients", 17.0, 18.6, 0.0], ["gradients", 18.0, 18.5, 0.0]]
    assert launch.split({"seconds": 10.0, "parts": parts}) == pytest.approx((4.0, 3.9, 2.1))
    assert launch.split({"seconds": 5.0, "parts": [["rollouts", 0.0, 2.0, 2.0]]}) == (2.0, 3.0, 0)
    assert launch.work({"cpu": 7.0, "parts": parts}) == pytest.approx((3.9, 3.1))


def test_the_line_through_two_sizes_is_found():
    worker = calibrate([(24, 1.0 + 0.1 * 24, 0.5 + 0.2 * 24), (48, 1.0 + 0.1 * 48, 0.5 + 0.2 * 48)], joining=0.3)
    assert worker.writing == pytest.approx((1.0, 0.1)) and worker.training == pytest.approx((0.5, 0.2))
    assert worker.together(48, 1) == pytest.approx(1.0 + 4.8 + 0.5 + 9.6)
    assert worker.together(48, 2) == pytest.approx(1.0 + 2.4 + 0.5 + 4.8 + 0.3)
    with pytest.raises(ValueError, match="two sizes"):
        calibrate([(24, 1.0, 1.0), (24, 1.1, 1.0)])


def test_working_at_once_is_the_longer_of_the_two():
    worker = Worker(writing=(2.0, 0.1), training=(1.0, 0.2), joining=0.5)
    assert worker.apart(40, 2, 2) == pytest.approx(2 + 2 + 1 + 4 + 0.5)
    assert worker.one_step_off(40, 2, 2) == pytest.approx(5 + 0.5)
    writers, seconds = worker.best(worker.one_step_off, 40, 8)
    assert seconds == min(worker.one_step_off(40, n, 8 - n) for n in range(1, 8)) and 1 <= writers < 8
    assert worker.nearly_best(worker.one_step_off, 40, 8, share=0) == (writers, writers)
    assert worker.nearly_best(worker.one_step_off, 40, 8, share=9) == (1, 7)
    least, most = worker.nearly_best(worker.one_step_off, 40, 8, share=0.3)
    times = [worker.one_step_off(40, n, 8 - n) <= 1.3 * seconds for n in range(1, 8)]
    assert [n for n, fine in enumerate(times, 1) if fine] == list(range(least, most + 1))


def test_a_gpu_on_paper_writes_slower_with_more_and_longer_completions():
    worker = gpu_worker(SMALL, CARDS["H100"], prompt=100, length=200)
    longer = gpu_worker(SMALL, CARDS["H100"], prompt=100, length=400)
    assert longer.writes(8) > worker.writes(8) > worker.writes(1) and longer.trains(8) > worker.trains(8) and worker.joining > 0


def test_shares_and_cards_make_room():
    profile, count = PROFILES["80gb"], count_parameters(SMALL)
    whole, halves = (training_bytes(SMALL, profile, count, True, shares) for shares in (1, 2))
    assert whole["weights, moments"] == 12 * (count["linear"] + count["rest"]) and halves["weights, moments"] == whole["weights, moments"] / 2
    assert whole["gradients"] == 4 * (count["linear"] + count["rest"]) and halves["gradients"] == whole["gradients"] / 2
    assert training_bytes(SMALL, profile, count, True)["fetched layers"] == 0 < training_bytes(SMALL, profile, count, True, 2)["fetched layers"]


def served_weights(config):
    return frozen_bytes(count_parameters(config), "16-bit")


def test_what_to_take_follows_the_memory():
    seven = Qwen2Config(vocab_size=151936, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4)
    profile = replace(PROFILES["80gb"], per_device_train_batch_size=8, gradient_accumulation_steps=4, standby=True)
    assert [choose(seven, profile, memory, cards, everything=True)[0] for memory, cards in [(24e9, 4), (80e9, 8), (160e9, 8)]] == ["does not fit", "FSDP", "DDP"]
    assert [choose(seven, profile, memory, cards)[0] for memory, cards in [(24e9, 1), (24e9, 3), (24e9, 4), (80e9, 1)]] == ["QLoRA", "disaggregated", "FSDP + TP", "DDP"]
    long = replace(profile, max_prompt_length=256, max_completion_length=1024)
    assert [choose(seven, long, 80e9, cards, everything=True).batch for cards in (2, 3)] == [4, 8]  # a smaller batch fits fewer GPUs
    assert [choose(seven, long, 80e9, 2, everything=True, gradients_stay=stay).way for stay in (False, True)] == ["FSDP", "does not fit"]
    freed, kept = (choose(seven, long, 80e9, 3, everything=True, gradients_stay=stay) for stay in (False, True))
    assert sum(kept.writing.values()) - sum(freed.writing.values()) == pytest.approx(kept.training["gradients"])
    halves, whole = choose(seven, profile, 24e9, 4), choose(seven, profile, 80e9, 4)
    assert halves.split == 2 and whole.split == 1  # of an engine only its weights are cut: each card's completions still need their cache
    assert halves.writing["engine"] - served_weights(seven) / 2 == pytest.approx(engine_bytes(seven, profile, count_parameters(seven, profile.lora_rank)) - served_weights(seven))
    served = choose(seven, profile, 24e9, 3)
    assert served.served == 1 and "engine" in served.writing and "engine" not in served.training
    for memory, cards in [(80e9, 1), (80e9, 2), (80e9, 4), (160e9, 8)]:
        found = choose(seven, profile, memory, cards, everything=True)
        most = max(sum(found.training.values()), sum(found.writing.values()))
        assert (most <= 0.9 * memory) == (found.way != "does not fit")


def test_the_least_number_of_gpus_is_the_first_that_fits():
    seven = Qwen2Config(vocab_size=151936, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4)
    profile = replace(PROFILES["80gb"], per_device_train_batch_size=8, gradient_accumulation_steps=4, standby=True)
    cards, found = least_cards(seven, profile, 80e9, everything=True)
    assert cards > 1 and found == choose(seven, profile, 80e9, cards, everything=True)
    assert choose(seven, profile, 80e9, cards - 1, everything=True).way == "does not fit"
    assert least_cards(seven, profile, 24e9, everything=True, most=2) is None
    assert least_cards(SMALL, profile, 24e9) == (1, choose(SMALL, profile, 24e9, 1))


def test_the_least_number_of_gpus_of_a_row_stands_before_it_in_the_colour_of_its_way():
    rows = {"1B": (["does not fit", "DDP", "FSDP"], (3, "disaggregated")), "2B": (["FSDP", "DDP", "DDP"], (1, "FSDP")), "3B": (["does not fit"] * 3, None)}
    for axis in plot_choice(dict.fromkeys("abcd", rows), [1, 4, 8]).axes:
        assert [(text.get_text(), *text.get_position()) for text in axis.texts if text.get_text() != "–"] == [("3", 0, 0), ("1", 0, 1), ("none", 0, 2)]
        assert [list(WAY_COLORS)[way] for way in axis.images[0].get_array()[:, 0]] == ["disaggregated", "FSDP", "does not fit"]
        assert sum(text.get_text() == "–" for text in axis.texts) == 4


def test_a_finished_run_is_run_again_with_other_settings(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(scale, "FOLDER", tmp_path)
    monkeypatch.setattr(scale, "launched", lambda name, processes, **settings: asked.append((name, processes, settings)))
    for steps in (3, 3, 4):
        scale.run("some", 2, max_steps=steps)
    assert asked == [("some", 2, {"max_steps": 3}), ("some", 2, {"max_steps": 4})]


def test_what_a_rank_holds_is_read_from_its_first_line(monkeypatch):
    def run(name, processes, **settings):
        assert (processes == 2) == (settings.get("machines") == scale.SHARES)
        first = 10 if processes == 1 or "false" in settings["accelerator_config"] else 5
        return {0: [{"holds": 100 // processes, "gradients": [first, 5, 0][-processes - 1 :]}], 1: []}

    monkeypatch.setattr(scale, "run", run)
    found = scale.held()
    assert found["weights"] == 50 and found["one process"] == {"weights": 100, "gradients after the batch": 5}
    assert [value for name, value in found.items() if name.startswith("gradients")] == [10, 0, 5]


def test_threads_and_processes_are_compared_on_the_same_number_of_completions(monkeypatch):
    asked = []

    def run(name, processes, **settings):
        asked.append(processes * settings["per_device_train_batch_size"])
        return {rank: [{"seconds": 9.0}, *[{"seconds": settings["threads"] + rank}] * 3] for rank in range(processes)}

    monkeypatch.setattr(scale, "run", run)
    assert scale.threads() == {"1 process x 1 thread": 1.0, "1 process x 2 threads": 2.0, "2 processes x 1 thread": 1.5} and asked == [24] * 3


def test_the_states_are_held_exactly_as_often_as_the_way_says():
    for name, (gpus, _) in WAYS_TO_SHARE.items():
        times = {quarter: sum(quarter in states for states, _ in gpus) for quarter in "0123"}
        assert set(times.values()) == {{"DDP": 4}.get(name, 1)}
        assert all(sum(quarter in engine for _, engine in gpus) > 0 for quarter in "0123")
    assert [axis.get_title().strip() or axis.get_title(loc="left").strip() for axis in plot_ways().axes[:5]] == list(WAYS_TO_SHARE)


def test_each_process_is_watched_until_it_ends():
    left = [iter([True, False]), iter([False]), iter(lambda: True, None)]
    assert watch([lambda runs=runs: next(runs) for runs in left], limit=0.3).keys() == {"rank 0", "rank 1"}


def test_the_file_suits_trl_and_verl(tmp_path):
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "2 + 3?"}], "answer": "5", "question": "2 + 3?", "solution": "#### 5"}])
    file = write_parquet(rows, "embedded", "train", tmp_path)
    [row] = load_dataset(str(tmp_path))["train"]
    assert file.name == "train.parquet" and [path.name for path in tmp_path.iterdir()] == [file.name]
    assert row["prompt"] == [{"role": "user", "content": "2 + 3?"}] and row["answer"] == row["reward_model"]["ground_truth"] == "5"
    assert row["data_source"] == "embedded" and row["extra_info"] == {"split": "train", "index": 0}


def test_verls_score_is_the_weighted_sum():
    score = compute_score(data_source="embedded", solution_str=RIGHT, ground_truth="5", extra_info={"index": 0, "num_turns": 2})
    assert score == {"score": 3.5, "correctness_reward": 2.0, "format_reward": 0.5, "tag_reward": 0.25, "integer_reward": 0.25}
    assert compute_score("embedded", "The answer is 5.", "5")["score"] == 0.0
    with pytest.raises(ValueError, match="'five' of a problem of embedded is no number"):
        compute_score("embedded", RIGHT, "five")


def test_the_distance_of_gradients_is_relative():
    one = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}
    other = {"a": np.array([3.0, 0.5]), "b": np.array([4.0])}
    assert scale.distance(one, one) == 0 and scale.distance(other, one) == pytest.approx(0.1)


def test_the_first_step_of_a_timed_run_is_not_counted():
    def line(step, seconds):
        return {"step": step, "seconds": seconds, "cpu": seconds / 2, "longest": 8 + step, "parts": [["rollouts", 0.0, 1.0, 0.5], ["others' rollouts", 1.0, 1.5, 0.0]]}

    lines = {rank: [line(step, 9.0 if step == 1 else 3.0) for step in range(1, 12)] for rank in (0, 1)}
    found = scale.timing({"2 x 12": lines})
    assert found["timing"]["2 x 12"] == [{0: [1.0, 1.5, 0.5], 1: [1.0, 1.5, 0.5]}] * 10
    assert found["work"] == {"2 x 12": [0.5, 1.0]} and found["longest"] == {"2 x 12": 14.5}  # of steps 2 to 11


def test_what_was_measured_is_printed(capsys):
    loss = {"loss": -0.41, "difference of the loss": 0.0, "difference of the gradient": 1e-7}
    results = {"equality": {"one process": dict.fromkeys(scale.LOSSES, loss)},
               "timing": {"2 x 24": [{0: [1.0, 2.0, 0.5], 1: [1.2, 2.0, 0.3]}]}}
    table = scale.table(results)
    assert "-0.410000  1.0e-07" in table and "1.10      2.00      0.40      3.50" in table
