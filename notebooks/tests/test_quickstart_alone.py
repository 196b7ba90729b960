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
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
from hub_stand_in import Hub
from nbclient.client import CellExecutionError, NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks/00_quickstart.ipynb"
CELLS = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
PINS = dict(re.findall(r"([\w-]+)==([\d.]+)", "\n".join(CELLS)))
RIGHT = "<reasoning>\n2 + 1,000 = 1,002\n</reasoning>\n<answer>\n1,002\n</answer>"
ENDS = {  # machine: its card's bytes, its environment, and the profile or the error it ends with
    "T4": (15.8e9, {}, "16gb"),
    "ModelScope": (25.3e9, {"GRPO_DATA": "modelscope", "GRPO_MODEL": "", "GRPO_PROFILE": ""}, "24gb"),
    "another plugin": (85e9, {"OTHER": "vllm-bnb-plugin"}, "80gb"),
    "small card": (4e9, {}, "RuntimeError: This GPU has 4 GB"),
    "unknown profile": (15.8e9, {"GRPO_PROFILE": "big"}, "ValueError: GRPO_PROFILE='big' is unknown; the profiles are "),
    "old driver": (0, {}, "Stop: PyTorch sees no CUDA GPU here"),
    "no such data": (15.8e9, {"GRPO_DATA": "/nonexistent"}, "ValueError: GRPO_DATA='/nonexistent' is neither a folder nor one "),
}


class Tokenizer:
    eos_token_id, pad_token_id = 2, 0
    all_special_ids = [0, 2]

    def __call__(self, text, **_):
        return {"input_ids": text.split()}

    def apply_chat_template(self, messages, **_):
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class Model:
    """With an adapter its completions keep the layout and are right; without one they do neither."""

    print_trainable_parameters = print

    def __init__(self):
        self.peft_config = {"default": SimpleNamespace(base_model_name_or_path="unsloth/Qwen2.5-3B-Instruct", auto_mapping=None)}

    def save_lora(self, folder):
        Path(folder, "adapter_model.safetensors").write_bytes(b"weights")
        Path(folder, "adapter_config.json").write_text(json.dumps(vars(self.peft_config["default"])))

    def load_lora(self, folder):
        return Path(folder, "adapter_model.safetensors").read_bytes()

    def fast_generate(self, prompts, sampling_params, lora_request=None, use_tqdm=True):
        assert not isinstance(sampling_params, list) or len(sampling_params) == len(prompts)
        output = SimpleNamespace(text=RIGHT if lora_request else "3", token_ids=[5, 2], finish_reason="stop")
        return [SimpleNamespace(outputs=[output]) for _ in prompts]

    generation_config = SimpleNamespace(eos_token_id=2)


class Trainer:
    """Asks every reward function as TRL does, about one finished completion and the same cut off."""

    def __init__(self, model, processing_class, reward_funcs, args, train_dataset, callbacks):
        assert len(args.reward_weights) == len(reward_funcs)
        assert args.per_device_train_batch_size * args.gradient_accumulation_steps % args.num_generations == 0
        self.reward_funcs, self.args, self.rows, self.callbacks = reward_funcs, args, train_dataset[:2], callbacks
        self.state = SimpleNamespace(log_history=[], max_steps=args.max_steps, is_world_process_zero=True, global_step=0)

    def remove_callback(self, callback):
        pass

    def train(self, resume_from_checkpoint=None):
        self.resumed = resume_from_checkpoint
        completions = [[{"role": "assistant", "content": RIGHT}]] * 2
        columns = {**self.rows, "prompts": self.rows["prompt"], "completion_ids": [[5, 2], [5, 5]], "trainer_state": self.state}
        for step in range(1, self.args.max_steps + 1):
            logs = {"reward": 1.0, "reward_std": 0.5, "completions/mean_length": 2.0, "step_time": 0.1}
            for func in self.reward_funcs:
                logs[f"rewards/{func.__name__}/mean"] = sum(func(completions=completions, **columns)) / 2
            self.state.global_step = step
            self.state.log_history.append({**logs, "step": self.state.global_step})
            for callback in self.callbacks:
                callback.on_log(self.args, self.state, None, logs=logs)


def machine_with_gpu():
    """Runs the notebook's cells on each machine of `ENDS`; the last line printed says in JSON what happened."""
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from transformers import PrinterCallback, trainer_utils  # noqa: F401  later it would look for CUDA's libraries

    pip, touched, environment, ends = [], set(), dict(os.environ), {}
    version, popen = importlib.metadata.version, subprocess.Popen
    importlib.metadata.version = lambda name: "0.1" if name == os.environ.get("OTHER") else PINS.get(name) or version(name)

    def start(command, **options):
        if "pip" in command:
            pip.append(command[1:])
            command = [sys.executable, "-c", "print('Downloading one')"]
        return popen(command, **options)

    subprocess.Popen = start
    sampling = lambda **given: SimpleNamespace(**{"seed": None} | given)
    loader = SimpleNamespace(from_pretrained=lambda **_: (Model(), Tokenizer()), get_peft_model=lambda model, **_: model)
    for name, given in {"unsloth": {"FastLanguageModel": loader}, "vllm": {"SamplingParams": sampling},
                        "trl": {"GRPOConfig": SimpleNamespace, "GRPOTrainer": Trainer}}.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(given, __spec__=ModuleSpec(name, None))

    def record(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)):
            touched.add((os.path.abspath(os.fsdecode(args[0])), args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) > 0))

    sys.addaudithook(record)
    for step in (20, 40):  # what a killed training left to the first machine: one checkpoint whole, one cut off
        Path(f"grpo_checkpoints/checkpoint-{step}").mkdir(parents=True)
    Path("grpo_checkpoints/checkpoint-20/trainer_state.json").write_text("{}")
    for machine, (memory, settings, _) in ENDS.items():
        os.environ.clear()
        os.environ.update(environment, **settings)
        card = SimpleNamespace(total_memory=memory, major=8 if memory > 16e9 else 7, minor=5)
        torch.cuda.is_available = lambda memory=memory: memory > 0
        torch.cuda.get_device_properties = lambda _, card=card: card
        shell, error, left = InteractiveShell(), None, CELLS[:]
        while left and error is None:
            result = shell.run_cell(left.pop(0))
            error = result.error_before_exec or result.error_in_exec
        ends[machine] = {"end": f"{type(error).__name__}: {error}"}
        if error is None:
            names, ends[machine]["end"] = shell.user_ns, shell.user_ns["profile"].name
            ends[machine]["standby"] = os.environ["UNSLOTH_VLLM_STANDBY"]
            runs = [names[run]["test", way] for way in ("sampled", "greedy") for run in ("before", "after")]
            ends[machine]["strict"] = [run.summary().loc["strict", "value"] for run in runs]
            ends[machine]["log"] = names["trainer"].state.log_history[-1]
            ends[machine]["resumed"] = names["trainer"].resumed
            ends[machine]["saved"] = json.loads(Path("grpo_saved_lora/adapter_config.json").read_text())["auto_mapping"]["grpo_kit"]
    print(json.dumps({**ends, "pip": pip, "touched": sorted(touched), "kit": "grpo_kit" in sys.modules}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the machine with a GPU did with a folder that holds the notebook and no more."""
    folder, around = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("around")
    shutil.copy(NOTEBOOK, folder)
    (around / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-1)'\n")
    (around / "nvidia-smi").chmod(0o755)
    rows = [{"question": f"Mia has {n} shells and finds 1,000.", "answer": "2 + 1,000 = 1,002\n#### 1,002"} for n in range(20)]
    with Hub({"train": rows, "test": rows}) as hub:
        env = {"PATH": str(around), "HOME": str(around), "TMPDIR": str(around), "MPLBACKEND": "agg",
               "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url}
        done = subprocess.run([sys.executable, "-B", __file__], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"folder": str(folder), "around": str(around)}


@pytest.mark.parametrize("machine", [machine for machine, (*_, end) in ENDS.items() if ":" not in end])
def test_with_a_gpu_every_cell_runs(ran, machine):
    assert ran[machine]["end"] == ENDS[machine][2]
    assert ran[machine]["standby"] == "0"
    assert ran[machine]["strict"] == [0.0, 100.0] * 2  # sampled, greedy
    assert ran[machine]["log"]["rewards/correctness_reward/mean"] == 1.0  # 2.0, and 0.0 for the one cut off
    assert ran[machine]["log"]["rewards/lenient_accuracy/mean"] == 1.0  # only watched: the one cut off counts


def test_a_training_goes_on_from_the_last_whole_checkpoint_and_clears_up(ran):
    resumed = {machine: ran[machine]["resumed"] for machine in ENDS if "resumed" in ran[machine]}
    assert resumed == {"T4": "grpo_checkpoints/checkpoint-20", "ModelScope": None, "another plugin": None}


def test_the_saved_adapter_says_what_it_was_trained_on(ran):
    assert [path.name for path in Path(ran["folder"]).glob("*grpo_saved_lora*")] == ["grpo_saved_lora"]
    saved = ran["ModelScope"]["saved"]
    assert (saved["base"], saved["profile"], saved["data"], saved["seed"]) == ("qwen2.5-3b-instruct", "24gb", "modelscope", 3407)
    assert saved["versions"]["unsloth"] == PINS["unsloth"]


def test_with_a_gpu_the_file_is_all_it_reads(ran):
    touched = [(path, writes) for path, writes in ran["touched"] if not path.startswith((ran["around"], "/dev/"))]
    assert [path for path, writes in touched if writes and not path.startswith(ran["folder"])] == []
    assert [path for path, _ in touched if path.startswith(f"{ROOT}/") and not path.startswith(f"{sys.prefix}/")] == []
    assert not ran["kit"]
    # On the machine with another; the stand-ins of this process count as loaded, and are left alone.
    assert ran["pip"] == [["-m", "pip", "install", "--progress-bar", "off", f"vllm-bnb-plugin=={PINS['vllm-bnb-plugin']}"]]
    code = "\n".join(CELLS)  # Unsloth changes vLLM and TRL when it is imported, and reads its own setting then
    assert code.index('"UNSLOTH_VLLM_STANDBY"') < code.index("from unsloth") < min(code.index("from vllm"), code.index("from trl"))


@pytest.mark.parametrize("machine", [machine for machine, (*_, end) in ENDS.items() if ":" in end])
def test_a_wrong_setting_ends_in_one_sentence(ran, machine):
    assert ran[machine]["end"].startswith(ENDS[machine][2]) and "\n" not in ran[machine]["end"]


def test_without_a_gpu_one_sentence_and_no_traceback(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    with pytest.raises(CellExecutionError):
        client.execute(env={"PATH": str(tmp_path), "HOME": str(tmp_path)})
    (error,) = [output for cell in notebook.cells for output in cell.outputs]
    assert error in notebook.cells[1].outputs and error.traceback == [error.evalue]
    assert "\n" not in error.evalue and "`make quickstart`" in error.evalue


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    machine_with_gpu()
