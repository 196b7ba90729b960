"""What a training needs to survive a kill: whole checkpoints, a true log, a lock that frees itself."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from grpo_kit.training.resume import JsonLog, NoLastCheckpoint, only_one, read_log, whole_checkpoint


def checkpoint(folder, step, state):
    (folder / f"checkpoint-{step}").mkdir()
    if state is not None:
        (folder / f"checkpoint-{step}/trainer_state.json").write_text(state)


def test_the_last_whole_checkpoint_is_found_and_halves_are_deleted(tmp_path):
    checkpoint(tmp_path, 9, "{}")
    checkpoint(tmp_path, 10, "{}")
    checkpoint(tmp_path, 20, '{"global_st')
    checkpoint(tmp_path, 100, None)
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert whole_checkpoint(tmp_path / "nothing here") is None
    checkpoint(tmp_path, 10, "")
    assert whole_checkpoint(tmp_path) is None


def play(log, steps, start=0):
    """What a trainer with logging_steps=1 calls."""
    log.on_train_begin(None, SimpleNamespace(global_step=start), None)
    for step in steps:
        state = SimpleNamespace(global_step=step)
        log.on_step_end(None, state, None)
        log.on_log(None, state, None, logs={"reward": step / 10})
    log.on_log(None, state, None, logs={"train_runtime": 1.0})


def test_a_step_is_logged_once_however_often_the_training_was_killed(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLog(path, ask=lambda: [{"text": "two\nlines"}], every=2)
    play(log, range(1, 6))
    with open(path, "a") as file:
        file.write('{"step": 6, "rew')  # killed while it wrote
    assert [line["step"] for line in read_log(path)] == [0, 1, 2, 2, 3, 4, 4, 5]
    play(log, range(4, 8), start=3)  # goes on from a checkpoint at step 3
    lines = read_log(path)
    assert [line["step"] for line in lines if "reward" in line] == list(range(1, 8))
    assert [line["step"] for line in lines if "answers" in line] == [0, 2, 4, 6]
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("step, asked, saves", [(20, True, True), (20, False, False), (40, True, False)])
def test_only_the_last_step_is_not_saved(step, asked, saves):
    control = SimpleNamespace(should_save=asked)
    NoLastCheckpoint().on_step_end(None, SimpleNamespace(global_step=step, max_steps=40), control)
    assert control.should_save is saves


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []


def test_a_folder_is_held_by_one_process_and_freed_when_that_is_killed(tmp_path):
    holder = "import sys, time\nfrom grpo_kit.training.resume import only_one\nwith only_one(sys.argv[1]):\n print('held', flush=True)\n time.sleep(60)"
    notebooks = Path(__file__).parents[1]  # where `import grpo_kit` finds it
    process = subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdout=subprocess.PIPE, text=True, cwd=notebooks)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="Another process is training"), only_one(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with only_one(tmp_path):
        pass
