"""A training that may be killed at any instant and goes on when it is started again: checkpoints, settings, log, lock."""

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainerCallback

from grpo_kit.data.instructions import write_jsonl
from .progress import Watcher

HELD = {}  # folder: its lock, an open file, of the folders that this process holds
# Of a trainer's arguments: those that do not change what is learned.
INCIDENTAL = re.compile("(output_dir|run_name|project|debug|ddp_|dataloader_|disable_tqdm|do_|eval_|hub_|push_|log|local_rank|num_completions_to_"
                        "|report_to|resume_|restore_|save_|skip_memory|trackio|vllm_(gpu|group|server|enable|max_model)|gradient_checkpointing|use_cpu)")


def take_lock(folder):
    """Takes `folder` for this process until `free_lock`, or until the process ends, in whatever way.

    RuntimeError if another process has it, OSError where it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "w")
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): train in another folder.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        HELD[folder.resolve()] = file
    except BlockingIOError:
        own = HELD.get(folder.resolve())
        mine = own is not None and os.path.sameopenfile(own.fileno(), file.fileno())
        file.close()
        if not mine:
            raise RuntimeError(f"Another process is training in {folder}: wait until it has finished, or stop it.") from None


def free_lock(folder):
    """Gives back what `take_lock` took."""
    if file := HELD.pop(Path(folder).resolve(), None):
        file.close()


@contextmanager
def only_one(folder):
    """Holds `folder` for this process while the block runs; RuntimeError if another process holds it.

    The operating system lets go of it when the process ends, in whatever way it ends.
    """
    take_lock(folder)
    try:
        yield
    finally:
        free_lock(folder)


def checkpoints(folder):
    """[(step, path)] of the checkpoints in `folder` by their steps; a folder called otherwise, or a file, is none."""
    named = [(re.fullmatch("checkpoint-([0-9]+)", path.name), path) for path in Path(folder).glob("checkpoint-*") if path.is_dir()]
    return sorted((int(name[1]), path) for name, path in named if name)


def ends_early(file):
    """Whether a file of a checkpoint ends too early: torch's are zip archives, whose table of contents comes last.

    An error, whichever, for a safetensors file whose header is none.
    """
    if file.suffix in (".pt", ".pth"):
        return not zipfile.is_zipfile(file)
    if file.suffix == ".safetensors":  # the length of its header, the header, and the tensors where that says
        with open(file, "rb") as opened:
            header = json.loads(opened.read(min(int.from_bytes(opened.read(8), "little"), file.stat().st_size)))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            return opened.tell() + max(ends, default=0) != file.stat().st_size
    return False


def whole_checkpoint(folder):
    """The last checkpoint in `folder` that was written to its end, as a str, or None; halves are deleted."""
    for _, checkpoint in reversed(checkpoints(folder)):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())  # the trainer writes it last
            if not any(map(ends_early, checkpoint.iterdir())):
                return str(checkpoint)
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):  # a header may hold anything
            pass
        shutil.rmtree(checkpoint)
    return None


def training_settings(args, model):
    """What makes a training this one: arguments, adapter, and what `sign` noted of base, profile and data; a dict for JSON."""
    found = {name: value for name, value in args.to_dict().items() if not INCIDENTAL.match(name)}
    if adapter := getattr(model, "peft_config", {}).get("default"):
        noted = (adapter.auto_mapping or {}).get("grpo_kit", {})
        found |= {f"adapter's {name}": getattr(adapter, name) for name in ("r", "lora_alpha", "lora_dropout", "use_rslora")}
        targets = adapter.target_modules  # a set, or a pattern
        found |= {"target_modules": targets if isinstance(targets, str) else sorted(targets)}
        found |= {name: noted.get(name) for name in ("base", "weights", "profile", "data")}
    return json.loads(json.dumps(found, default=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value))))


class Interrupted(KeyboardInterrupt):
    """A training that was stopped in good order; a notebook shows its one sentence, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


class Resumable(Watcher):
    """Lets a training be interrupted at any instant, and go on when the same command is given again: pass it in `callbacks`.

    It holds the folder of the checkpoints for this process, notes the settings in each checkpoint and compares them, and leaves
    out the checkpoint after the last step, from which a trainer would train a step too many. Ctrl-C, or Jupyter's stop, ends the
    training after the step that it is in, with a checkpoint (a second one at once): Interrupted. ValueError where a checkpoint
    was written with other settings, RuntimeError where another process trains in the folder.
    """

    def __init__(self, args):
        take_lock(args.output_dir)
        self.stopped, self.before, self.limit = False, None, None
        for step, path in checkpoints(args.output_dir):
            if 0 < args.max_steps <= step:  # a longer training's, or a finished one's
                path.rename(path.with_name(f"other-{path.name}"))
                print(f"{path} is no checkpoint of a training of {args.max_steps} steps: it is passed over, and now called other-{path.name}.")

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        here, there = training_settings(args, model), state.stateful_callbacks.get("settings", {})
        differ = [f"{name} {there[name]!r} there, {here[name]!r} here" for name in sorted(here.keys() & there.keys()) if here[name] != there[name]]
        if differ:
            free_lock(args.output_dir)
            raise ValueError(f"The checkpoint in {args.output_dir} was written with other settings ({'; '.join(differ[:5])}): "
                             "set them as they were, or delete that folder to start anew.")
        state.stateful_callbacks["settings"] = here  # the trainer writes it with its state
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self.before = signal.signal(signal.SIGINT, self.stop)

    def stop(self, *signalled):
        self.stopped = True
        signal.signal(signal.SIGINT, self.before)  # the second time at once

    def on_step_end(self, args, state, control, **kwargs):
        last = state.global_step >= state.max_steps
        control.should_training_stop |= self.stopped
        control.should_save = (control.should_save or self.stopped) and not last
        if control.should_save:  # the trainer would delete whatever begins with "checkpoint-"
            self.limit, args.save_total_limit = args.save_total_limit, None

    def on_save(self, args, state, control, **kwargs):
        args.save_total_limit = self.limit or args.save_total_limit
        for _, path in checkpoints(args.output_dir)[: -self.limit] if self.limit else []:
            shutil.rmtree(path)

    def on_train_end(self, args, state, control, **kwargs):
        free_lock(args.output_dir)
        if self.before and not self.stopped:
            signal.signal(signal.SIGINT, self.before)
        if self.stopped and state.global_step < state.max_steps:
            raise Interrupted(f"Interrupted after step {state.global_step} of {state.max_steps}, with a checkpoint in {args.output_dir}: "
                              "run the same again and it goes on from there.")


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


def save_trained(trainer, folder):
    """Writes a trainer's model, an adapter merged into it, and its tokenizer to `folder`, whole or not at all; cost.json says what was trained."""
    model, states = trainer.model, trainer.optimizer.state.values()
    cost = {"trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "optimizer_bytes": sum(value.nbytes for state in states for value in state.values() if hasattr(value, "nbytes"))}
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    temporary = Path(f"{folder}.part")
    model.save_pretrained(temporary)
    trainer.processing_class.save_pretrained(temporary)
    (temporary / "cost.json").write_text(json.dumps(cost))
    temporary.rename(folder)


def train_once(new_trainer, folder):
    """Trains what `new_trainer()` makes, from its last whole checkpoint if there is one, and saves it as `folder`/model; returns `folder`.

    One whose model is there is not run again. RuntimeError where another process has the folder.
    """
    folder = Path(folder)
    with only_one(folder):
        if (folder / "model").is_dir():
            print(f"{folder.name}: finished before, its log is read. To train it again, delete that folder in {folder.parent}.")
            return folder
        trainer = new_trainer()
        for callback in (NoLastCheckpoint(), Resumable(trainer.args)):
            trainer.add_callback(callback)
        checkpoint = whole_checkpoint(trainer.args.output_dir)
        print(f"{folder.name}: {'goes on from ' + Path(checkpoint).name if checkpoint else 'starts'}", flush=True)
        # It would warn that the checkpoint lacks lm_head: that is the embedding, stored once.
        logging.getLogger("transformers.trainer").addFilter(lambda record: "['lm_head.weight']" not in record.getMessage())
        trainer.train(resume_from_checkpoint=checkpoint)
        save_trained(trainer, folder / "model")
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    return folder
