"""A training that may be killed at any moment and goes on when it is started again: checkpoints, log, lock."""

import fcntl
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainerCallback

from grpo_kit.data.instructions import write_jsonl


@contextmanager
def only_one(folder):
    """Holds `folder` for this process while the block runs; RuntimeError if another process holds it.

    The operating system lets go of it when the process ends, in whatever way it ends.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"Another process is training in {folder}: wait until it has finished, or stop it.") from None
        yield


def whole_checkpoint(folder):
    """The last checkpoint in `folder` that was written to its end, as a str, or None; halves are deleted."""
    checkpoints = sorted(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in reversed(checkpoints):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())  # the trainer writes it last
            return str(checkpoint)
        except (FileNotFoundError, ValueError):
            shutil.rmtree(checkpoint)
    return None


def read_log(path):
    """The lines of a `JsonLog` as dicts; a last line without its end, from a killed process, is left out."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


class JsonLog(TrainerCallback):
    """Writes a training to a file while it runs: a line of JSON a step, and every few steps what `ask()` returns."""

    def __init__(self, path, ask, every):
        self.path, self.ask, self.every = Path(path), ask, every

    def write(self, **line):
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_begin(self, args, state, control, **kwargs):
        # Steps after the checkpoint that this training goes on from will be trained, and logged, again.
        kept = [line for line in read_log(self.path) if line["step"] <= state.global_step]
        write_jsonl(kept, self.path)
        if not kept:
            self.write(step=0, answers=self.ask())

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0:
            self.write(step=state.global_step, answers=self.ask())

    def on_log(self, args, state, control, logs, **kwargs):
        if "reward" in logs:  # not the summary at the end
            self.write(step=state.global_step, **{name: float(value) for name, value in logs.items()})


class NoLastCheckpoint(TrainerCallback):
    """Leaves out the checkpoint after the last step: a trainer that resumes from that one trains a step too many."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = control.should_save and state.global_step < state.max_steps
