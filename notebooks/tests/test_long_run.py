"""What a training needs to survive a kill: whole checkpoints, a true log, a lock that frees itself."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from grpo_kit.training.resume import JsonLog, NoLastCheckpoint, Resumable, free_lock, only_one, read_log, save_trained, train_once, whole_checkpoint


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


class Trainer:
    """What `train_once` uses of a GRPOTrainer; `fails` at the first training, after a checkpoint."""

    def __init__(self, folder, fails=False):
        self.args, self.fails, self.callbacks, self.began = SimpleNamespace(output_dir=str(folder / "checkpoints"), max_steps=4), fails, [], []
        weight = torch.nn.Parameter(torch.zeros(3))
        frozen = torch.nn.Parameter(torch.zeros(5), requires_grad=False)
        self.model = SimpleNamespace(parameters=lambda: [weight, frozen], save_pretrained=lambda new: new.mkdir() or Path(new, "weights").write_text("whole"))
        self.processing_class = SimpleNamespace(save_pretrained=lambda new: Path(new, "tokenizer.json").write_text("{}"))
        self.optimizer = SimpleNamespace(state={weight: {"exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3), "plain": 1}})

    def add_callback(self, callback):
        self.callbacks.append(type(callback))

    def train(self, resume_from_checkpoint):
        self.began.append(resume_from_checkpoint)
        if self.fails:
            Path(self.args.output_dir).mkdir(exist_ok=True)
            checkpoint(Path(self.args.output_dir), 2, "{}")
            raise KeyboardInterrupt


def test_a_training_goes_on_from_its_checkpoint_and_a_finished_one_is_not_run_again(tmp_path, capsys):
    folder, killed = tmp_path / "one", Trainer(tmp_path / "one", fails=True)
    with pytest.raises(KeyboardInterrupt):
        train_once(lambda: killed, folder)
    assert killed.began == [None] and {NoLastCheckpoint, Resumable} <= set(killed.callbacks) and not (folder / "model").exists()
    free_lock(killed.args.output_dir)  # the process would have ended
    again = Trainer(folder)
    assert train_once(lambda: again, folder) == folder
    assert again.began == [str(folder / "checkpoints/checkpoint-2")] and not (folder / "checkpoints").exists()
    assert sorted(file.name for file in (folder / "model").iterdir()) == ["cost.json", "tokenizer.json", "weights"]
    train_once(lambda: pytest.fail("trained again"), folder)
    assert "one: starts\none: goes on from checkpoint-2\none: finished before" in capsys.readouterr().out


def test_what_a_training_cost_stands_beside_its_model_and_an_adapter_is_merged(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.model.merge_and_unload = lambda: SimpleNamespace(save_pretrained=lambda new: new.mkdir() or Path(new, "weights").write_text("merged"))
    save_trained(trainer, tmp_path / "model")
    assert json.loads((tmp_path / "model/cost.json").read_text()) == {"trained": 3, "optimizer_bytes": 24}
    assert (tmp_path / "model/weights").read_text() == "merged"
