"""A small training killed by signal 9 wherever it is, and what the same command makes of it; Ctrl-C; two runs in one folder.

Quick: a few instants. With --robust: 20, drawn by a seed. The adapter is at every instant the old or the new one, to the byte.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

if torch.accelerator.is_available():
    pytest.skip("on a GPU no two runs are the same to the byte", allow_module_level=True)

from grpo_kit.machine.packages import says_why
from grpo_kit.model.whole import put_in_place, save_whole, whole
from grpo_kit.training.resume import Resumable, only_one, whole_checkpoint

TESTS = Path(__file__).resolve().parent
SHIPPED = TESTS.parents[1] / "grpo_saved_lora"
KILLS = 20


class Processes:
    """Runs small trainings, each in a process of its own."""

    def __init__(self):
        self.parent = subprocess.Popen([sys.executable, TESTS / "small_training.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True, cwd=TESTS.parent,
                                       env=os.environ | {"GRPO_PROFILE": "embedded", "PYTHONPATH": str(TESTS.parent)})

    def run(self, folder, **job):
        """The exit status of one: 0, -9 where it was killed, 3 after an error, whose sentence is in the folder's file `error`."""
        self.parent.stdin.write(json.dumps(job | {"folder": str(folder)}) + "\n")
        self.parent.stdin.flush()
        answer = "the process is gone"
        for answer in self.parent.stdout:
            if answer.startswith("{"):  # the libraries print before it
                return json.loads(answer)["status"]
        raise AssertionError(answer)


@pytest.fixture(scope="module")
def processes():
    processes = Processes()
    yield processes
    processes.parent.stdin.close()
    processes.parent.wait()


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def rewards(lines):
    return [(line["step"], line["reward"], line["grad_norm"]) for line in lines if "reward" in line]


@pytest.fixture(scope="module")
def straight(processes, tmp_path_factory):
    """The folder of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    assert processes.run(folder) == 0, (folder / "output").read_text()[-3000:]
    return folder


@pytest.fixture
def begun(tmp_path):
    """A folder that holds an adapter of an earlier training, and a card."""
    shutil.copytree(SHIPPED, tmp_path / "run/adapter", ignore=shutil.ignore_patterns("*.png"))
    return tmp_path / "run"


def killed_and_resumed(processes, straight, folder, at, nth):
    old, new = contents(folder / "adapter"), contents(straight / "adapter")
    new |= {name: text for name, text in old.items() if name.endswith(".md")}  # cards stay
    assert processes.run(folder, at=at, nth=nth) == -9, (folder / "output").read_text()[-3000:]
    assert contents(folder / "adapter") in (old, new)
    assert not (folder / "export").exists() or contents(folder / "export") == contents(straight / "export")
    assert processes.run(folder) == 0, (folder / "output").read_text()[-3000:]
    assert (folder / "steps").read_text() == "6"
    assert contents(folder / "adapter") == new
    assert rewards(log_of(folder)) == rewards(log_of(straight))
    assert [line["step"] for line in log_of(folder)] == [line["step"] for line in log_of(straight)]
    assert {path.name for path in folder.iterdir()} == {path.name for path in straight.iterdir()}  # nothing half-made is left


@pytest.mark.parametrize("at, nth", [("state", 2), ("backward", 6), ("in place", 1)])
def test_killed_it_goes_on_and_ends_as_if_nothing_had_been(processes, straight, begun, at, nth):
    killed_and_resumed(processes, straight, begun, at, nth)


@pytest.mark.robust
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_an_instant_drawn_by_a_seed(processes, straight, begun, number):
    counts = json.loads((straight / "counts.json").read_text())
    instants = sorted(counts)
    at = instants[number % len(instants)]
    killed_and_resumed(processes, straight, begun, at, random.Random(number).randint(1, counts[at]))


def test_every_part_of_a_run_is_among_the_instants(straight):
    counts = json.loads((straight / "counts.json").read_text())
    assert {"rollout", "backward", "log", "optimiser", "state", "rotation", "weights", "in place", "adapter"} <= counts.keys()


def test_ctrl_c_ends_it_after_the_step_with_a_checkpoint_and_a_sentence(processes, straight, begun):
    assert processes.run(begun, at="backward", nth=3, signal=signal.SIGINT) == 3
    sentence = re.fullmatch("Interrupted: Interrupted after step ([23]) of 6, with a checkpoint in .*", (begun / "error").read_text())
    assert Path(whole_checkpoint(begun / "checkpoints")).name == f"checkpoint-{sentence[1]}"
    assert not (begun / "steps").exists()
    assert processes.run(begun) == 0
    assert rewards(log_of(begun)) == rewards(log_of(straight))


def test_other_settings_are_named_and_nothing_is_lost(processes, begun):
    assert processes.run(begun, at="backward", nth=6) == -9
    before = sorted(path.name for path in (begun / "checkpoints").iterdir())
    assert processes.run(begun, changes={"learning_rate": 0.01}) == 3
    sentence = (begun / "error").read_text()
    assert "learning_rate 0.0015 there, 0.01 here" in sentence and "delete that folder to start anew" in sentence and "\n" not in sentence
    assert sorted(path.name for path in (begun / "checkpoints").iterdir()) == before


# --- without a training -----------------------------------------------------------------------------------------------


def checkpoint(folder, name, state='{"global_step": 1}'):
    (folder / name).mkdir(parents=True)
    (folder / name / "trainer_state.json").write_text(state)
    return folder / name


def arguments(folder, max_steps=100):
    return SimpleNamespace(output_dir=str(folder), max_steps=max_steps, save_total_limit=1)


@pytest.mark.parametrize("name", ["checkpoint-best", "checkpoint-", "checkpoint-30 copy", "checkpoint-30 (1)", "checkpoint-3e1",
                                  "checkpoint-30.bak", "checkpoint--30", "checkpoint-٣٠", "old-checkpoint-30"])
def test_what_is_called_otherwise_is_no_checkpoint_and_stays(tmp_path, name):
    checkpoint(tmp_path, name)
    checkpoint(tmp_path, "checkpoint-20")
    (tmp_path / "checkpoint-40.zip").write_bytes(b"PK")
    (tmp_path / "checkpoint-50").write_text("a file")
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    assert {path.name for path in tmp_path.iterdir()} == {name, "checkpoint-20", "checkpoint-40.zip", "checkpoint-50"}


def whole_files(folder):
    with zipfile.ZipFile(folder / "optimizer.pt", "w") as archive:
        archive.writestr("data.pkl", "x" * 1000)
    save_file({"a": np.ones(100)}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("file", ["optimizer.pt", "adapter_model.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_checkpoint_with_a_file_cut_short_is_none(tmp_path, file, length):
    for step in (10, 20):
        whole_files(checkpoint(tmp_path, f"checkpoint-{step}"))
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    path = tmp_path / "checkpoint-20" / file
    os.truncate(path, min(length, path.stat().st_size - 1) if length >= 0 else path.stat().st_size - 1)
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("header", ["", "[]", "null", "1", '{"a": 1}', '{"a": {}}', '{"a": {"data_offsets": []}}', '{"a": {"data_offsets": ["x", "y"]}}'])
def test_a_checkpoint_whose_weights_are_not_described_is_none(tmp_path, header):
    for step in (10, 20):
        whole_files(checkpoint(tmp_path, f"checkpoint-{step}"))
    (tmp_path / "checkpoint-20/adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/out cannot be written .Not a directory.: train in another folder.") as raised:
        Resumable(arguments(tmp_path / "file/out"))
    assert says_why(raised.value, raised.tb)


def test_a_longer_trainings_checkpoint_is_passed_over_and_kept(tmp_path, capsys):
    for step in (20, 100, 400):
        checkpoint(tmp_path, f"checkpoint-{step}")
    Resumable(arguments(tmp_path))
    assert whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-20", "other-checkpoint-100", "other-checkpoint-400", "lock"}
    assert capsys.readouterr().out.count("is passed over") == 2


def test_the_rotation_takes_this_trainings_checkpoints_only(tmp_path):
    for name in ("checkpoint-best", "checkpoint-20 copy", "checkpoint-20", "checkpoint-40"):
        checkpoint(tmp_path, name)
    args, resumable = arguments(tmp_path), Resumable(arguments(tmp_path))
    control = SimpleNamespace(should_save=True, should_training_stop=False)
    resumable.on_step_end(args, SimpleNamespace(global_step=40, max_steps=100), control)
    assert args.save_total_limit is None  # or the trainer would delete all the others
    resumable.on_save(args, None, control)
    assert args.save_total_limit == 1
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-best", "checkpoint-20 copy", "checkpoint-40", "lock"}


def test_a_second_run_in_one_folder_is_refused_and_a_third_is_not(tmp_path):
    holder = ("import sys, time, types\nfrom grpo_kit.training.resume import Resumable\n"
              "held = Resumable(types.SimpleNamespace(output_dir=sys.argv[1], max_steps=9))\nprint('held', flush=True)\ntime.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdout=subprocess.PIPE, text=True, cwd=TESTS.parent)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="Another process is training in .*: wait until it has finished, or stop it"):
            Resumable(arguments(tmp_path))
    finally:
        process.kill()
        process.wait()
    Resumable(arguments(tmp_path))
    Resumable(arguments(tmp_path))  # the same cell once more
    with only_one(tmp_path):
        pass


def save(text):
    return lambda folder: [Path(folder, name).write_text(text) for name in ("adapter_config.json", "adapter_model.safetensors")]


def test_a_folder_is_replaced_in_one_instant_and_other_files_stay(tmp_path):
    save_whole(save("old"), tmp_path / "adapter")
    (tmp_path / "adapter/README.md").write_text("a card")
    (tmp_path / "link").symlink_to("adapter")
    save_whole(save("new"), tmp_path / "link")
    assert contents(tmp_path / "adapter") == {"adapter_config.json": b"new", "adapter_model.safetensors": b"new", "README.md": b"a card"}
    assert (tmp_path / "link").is_symlink() and {path.name for path in tmp_path.iterdir()} == {"adapter", "link"}


def test_where_names_cannot_be_exchanged_files_are_replaced_one_by_one(tmp_path, monkeypatch):
    save_whole(save("old"), tmp_path / "adapter")
    (tmp_path / "adapter/README.md").write_text("a card")
    monkeypatch.chdir(tmp_path / "adapter")  # this process stands in it
    save_whole(save("new"), ".")
    assert contents(tmp_path / "adapter") == {"adapter_config.json": b"new", "adapter_model.safetensors": b"new", "README.md": b"a card"}
    assert Path.cwd() == tmp_path / "adapter"


def test_what_a_killed_process_left_is_cleared_away_and_what_a_living_one_fills_is_not(tmp_path):
    (tmp_path / ".adapter-making-dead").mkdir()
    with whole(tmp_path / "adapter") as one:
        assert not (tmp_path / ".adapter-making-dead").exists()
        with whole(tmp_path / "adapter") as other:
            assert one.is_dir() and other.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    (tmp_path / "new").mkdir()
    put_in_place(tmp_path / "new", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()


def test_a_process_is_killed_when_it_is_time_and_one_that_ends_before_is_named(tmp_path):
    from grpo_kit.training.killed import killed

    seen = tmp_path / "seen"
    assert killed(f"import time; open({str(seen)!r}, 'w'); time.sleep(60)", when=seen.exists) == -9
    with pytest.raises(RuntimeError, match="ended by itself, with 3"):
        killed("raise SystemExit(3)", when=lambda: False)
