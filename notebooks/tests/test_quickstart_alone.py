"""The quickstart as one file in an empty folder: without a GPU it ends in one sentence, with one it needs nothing else.

Run as a script, this file is the machine with a GPU: stand-ins for what only such a machine has, and the cells.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from hub_stand_in import Hub
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
NAME = "00_quickstart.ipynb"
CELLS = [cell.source for cell in nbformat.read(ROOT / "notebooks" / NAME, 4).cells if cell.cell_type == "code"]
PINS = dict(re.findall(r"([\w-]+)==([\d.]+)", "\n".join(CELLS)))
RIGHT = "<reasoning>\n2 + 1,000 = 1,002\n</reasoning>\n<answer>\n1,002\n</answer>"
T4 = 15_828_320_256  # bytes
SCENARIOS = {  # the card's memory and the environment, and how the run ends
    "T4": (T4, {}, None),
    "24 GB": (25.3e9, {}, None),
    "80 GB": (85e9, {}, None),
    "small card": (8e9, {}, "RuntimeError: This GPU has 8 GB"),
    "unknown profile": (T4, {"GRPO_PROFILE": "big"}, "ValueError: GRPO_PROFILE='big' is unknown; the profiles are embedded, 16gb, "),
    "no such data": (T4, {"GRPO_DATA": "/nonexistent"}, "ValueError: The data source '/nonexistent' is neither a folder nor one of "),
}


class Tokenizer:
    eos_token_id, pad_token_id = 2, 0

    def __call__(self, text, **_):
        return {"input_ids": text.split()}

    def apply_chat_template(self, messages, **_):
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class Model:
    """With an adapter its completions keep the layout and are right; without one they do neither."""

    def print_trainable_parameters(self):
        print("trainable params: 1")

    def save_lora(self, folder):
        os.makedirs(folder, exist_ok=True)
        Path(folder, "adapter_model.safetensors").write_bytes(b"weights")

    def load_lora(self, folder):
        return Path(folder, "adapter_model.safetensors").read_bytes()

    def fast_generate(self, prompts, sampling_params, lora_request=None, use_tqdm=True):
        output = SimpleNamespace(text=RIGHT if lora_request else "3", token_ids=[5, 2], finish_reason="stop")
        return [SimpleNamespace(outputs=[output]) for _ in prompts]


class Trainer:
    """Asks every reward function as TRL does, about one finished completion and the same cut off."""

    def __init__(self, model, processing_class, reward_funcs, args, train_dataset, callbacks):
        assert len(args.reward_weights) == len(reward_funcs)
        assert args.per_device_train_batch_size * args.gradient_accumulation_steps % args.num_generations == 0
        self.reward_funcs, self.args, self.rows, self.callbacks = reward_funcs, args, train_dataset[:2], callbacks
        self.state = SimpleNamespace(log_history=[], max_steps=args.max_steps, is_world_process_zero=True)

    def remove_callback(self, callback):
        pass

    def train(self, resume_from_checkpoint=None):
        completions = [[{"role": "assistant", "content": RIGHT}]] * 2
        columns = {**self.rows, "prompts": self.rows["prompt"], "completion_ids": [[5, 2], [5, 5]]}
        for self.state.global_step in range(1, self.args.max_steps + 1):
            logs = {"reward": 1.0, "completions/mean_length": 2.0, "step_time": 0.1}
            for func in self.reward_funcs:
                logs[f"rewards/{func.__name__}/mean"] = sum(func(completions=completions, **columns)) / 2
            self.state.log_history.append({**logs, "step": self.state.global_step})
            for callback in self.callbacks:
                callback.on_log(self.args, self.state, None, logs=logs)


def stand_in(module, imports, **names):
    """Puts a module that has `names` in place; `imports` gets each that is imported, and whether standby was set."""

    def give(name):
        if name not in names:
            raise AttributeError(name)
        imports.append(f"{name}, standby {os.environ.get('UNSLOTH_VLLM_STANDBY')}")
        return names[name]

    sys.modules[module] = types.ModuleType(module)
    vars(sys.modules[module]).update(__getattr__=give, __spec__=ModuleSpec(module, None))


def machine_with_gpu():
    """Runs the notebook's cells once for each of `SCENARIOS`; the last line printed says in JSON what happened."""
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from transformers import PrinterCallback, trainer_utils  # noqa: F401  later it would look for CUDA's libraries

    imports, commands, touched, environment, ends = [], [], set(), dict(os.environ), {}
    loader = SimpleNamespace(from_pretrained=lambda **_: (Model(), Tokenizer()), get_peft_model=lambda model, **_: model)
    stand_in("unsloth", imports, FastLanguageModel=loader)
    stand_in("vllm", imports, SamplingParams=SimpleNamespace)
    stand_in("trl", imports, GRPOConfig=SimpleNamespace, GRPOTrainer=Trainer)
    version, run = importlib.metadata.version, subprocess.run
    importlib.metadata.version = lambda name: PINS.get(name) or version(name)
    subprocess.run = lambda command, *_, **options: commands.append(command) if "pip" in command else run(command, **options)
    torch.cuda.is_available = lambda: True

    def record(event, args):
        if event in ("open", "os.mkdir", "os.remove", "os.rename") and isinstance(args[0], (str, bytes)):
            writes = event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            touched.add((os.path.abspath(os.fsdecode(args[event == "os.rename"])), bool(writes)))

    sys.addaudithook(record)
    for name, (memory, settings, _) in SCENARIOS.items():
        os.environ.clear()
        os.environ.update(environment, **settings)
        torch.cuda.get_device_properties = lambda _, memory=memory: SimpleNamespace(total_memory=memory)
        shell, error, left = InteractiveShell(), None, CELLS[:]
        while left and error is None:
            result = shell.run_cell(left.pop(0))
            error = result.error_before_exec or result.error_in_exec
        ends[name] = {"left": len(left), "error": error and f"{type(error).__name__}: {error}"}
        if error is None:
            ends[name] |= {"profile": shell.user_ns["profile"].name, "last log": shell.user_ns["trainer"].state.log_history[-1],
                           "strict": list(shell.user_ns["results"].loc[("test", "strict"), :])}
    kit = [module for module in sys.modules if module.startswith("grpo_kit")]
    print(json.dumps({"ends": ends, "imports": imports, "commands": commands, "touched": sorted(touched), "kit": kit}))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What the machine with a GPU printed, and the folder it was given: the notebook and no more."""
    folder, around = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("machine")
    shutil.copy(ROOT / "notebooks" / NAME, folder)
    (around / "nvidia-smi").write_text("#!/bin/sh\n")
    (around / "nvidia-smi").chmod(0o755)
    rows = [{"question": f"Mia has {n} shells. She finds 1,000 more.", "answer": "2 + 1,000 = 1,002\n#### 1,002"} for n in range(20)]
    environment = {"PATH": str(around), "HOME": str(around), "TMPDIR": str(around), "MPLBACKEND": "agg", "PYTHONDONTWRITEBYTECODE": "1"}
    with Hub({"train": rows, "test": rows}) as hub:
        done = subprocess.run([sys.executable, __file__], cwd=folder, env={**environment, "HF_ENDPOINT": hub.url},
                              capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "given": (str(folder), str(around)), "printed": done.stdout}


@pytest.mark.parametrize("name, profile", [("T4", "16gb"), ("24 GB", "24gb"), ("80 GB", "80gb")])
def test_with_a_gpu_every_cell_runs(report, name, profile):
    end = report["ends"][name]
    assert (end["left"], end["error"], end.get("profile")) == (0, None, profile)
    before, after, difference, gained, lost, p = end["strict"]
    assert before.startswith("0.0 %") and after.startswith("100.0 %") and (difference, gained, lost, p) == (100, 20, 0, "<0.001")
    logs = {key: value for key, value in end["last log"].items() if key.startswith("rewards/")}
    assert logs["rewards/correctness_reward/mean"] == 1.0  # 2.0, and 0.0 for the one cut off
    assert logs["rewards/lenient_accuracy/mean"] == 1.0  # only watched, so also of the one cut off


def test_with_a_gpu_the_file_is_all_it_reads(report):
    assert all(end["error"] is None or SCENARIOS[name][2] for name, end in report["ends"].items())
    assert report["kit"] == [] and report["commands"] == []
    assert report["imports"][0] == "FastLanguageModel, standby 1"  # unsloth before trl and vllm, and told in time
    paths = [(path, writes) for path, writes in report["touched"] if not path.startswith((*report["given"], "/dev/"))]
    assert [path for path, _ in paths if path.startswith(f"{ROOT}/") and not path.startswith(f"{sys.prefix}/")] == []
    assert [path for path, writes in paths if writes] == []
    assert any(path.startswith(report["given"][0]) and writes for path, writes in report["touched"])


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario[2]])
def test_a_wrong_setting_ends_in_one_sentence(report, name):
    end = report["ends"][name]
    assert end["left"] > 0 and end["error"].startswith(SCENARIOS[name][2]) and "\n" not in end["error"]


def test_without_a_gpu_one_sentence_and_no_traceback(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    with pytest.raises(CellExecutionError):
        client.execute(env={"PATH": str(tmp_path), "HOME": str(tmp_path)})
    ran = [cell for cell in notebook.cells if cell.get("execution_count")]
    (error,) = [output for cell in ran for output in cell.outputs]
    assert len(ran) <= 3
    assert error.traceback == [error.evalue] and "\n" not in error.evalue and "`make quickstart`" in error.evalue


def install_cells(monkeypatch, installed, gpu, modules):
    """Runs the cells up to the installing one on a machine that has these packages; gives the pip commands."""
    commands, names = [], {}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed[name])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in modules or None)
    monkeypatch.setattr(shutil, "which", lambda name: gpu)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    for cell in CELLS[: next(number for number, cell in enumerate(CELLS) if '"pip"' in cell) + 1]:
        exec(cell, names)
    return commands


def test_only_what_does_not_fit_is_installed(monkeypatch):
    installed = dict(PINS)
    assert install_cells(monkeypatch, installed, True, []) == []
    right, installed["trl"], installed["torch"] = installed["trl"], "0.1", installed["torch"] + "+cu130"
    (command,) = install_cells(monkeypatch, installed, True, [])
    assert [word for word in command if "==" in word] == [f"trl=={right}"]
    with pytest.raises(Exception, match="`make setup`.*`make lab`"):
        install_cells(monkeypatch, {}, False, ["grpo_kit"])


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    machine_with_gpu()
