"""What is trusted, and what leaks: no code of others is run, no pickle read, and a token appears in nothing that is written."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = Path(__file__).resolve().parents[1]
ROOT = NOTEBOOKS.parent
KIT = sorted((NOTEBOOKS / "grpo_kit").rglob("*.py"))
FILES = [*KIT, *sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted(NOTEBOOKS.glob("zh/[0-9]*.ipynb"))]
PICKLES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
# It reads the arguments of a call out of this repository's own notebook.
KNOWN = {"grpo_kit/workshop/controls.py": ["eval()", "compile()"],
         "grpo_kit/workshop/cells.py": ["exec()", "compile()"]}  # cells of our own chapters
TOKEN = "hf_" + "Planted0" * 4
SHAPES = re.compile(rb"hf_[A-Za-z0-9]{30,}|ms-[0-9a-f]{8}-[0-9a-f-]{27}|sk-[A-Za-z0-9]{32,}|gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}")


def code(file):
    """The Python of a module, or of a notebook's cells."""
    if file.suffix == ".py":
        return file.read_text("utf-8")
    cells = [cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    return "\n".join(TransformerManager().transform_cell(cell) for cell in cells)


def trusting(source):
    """What in a text runs or unpickles what may come from elsewhere."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [f"import {name}" for name in names if name.partition(".")[0] in PICKLES]
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        found += [f"{called}()"] if called in ("eval", "exec", "compile", "os.system", "os.popen") else []
        found += [called] if called.endswith(("read_pickle", "to_pickle")) else []
        found += [called] if called in ("torch.load", "torch.save") and keywords.get("weights_only") != "True" else []
        wrong = {"trust_remote_code": "False", "shell": "False", "allow_pickle": "False", "weights_only": "True", "safe_serialization": "True"}
        found += [f"{name}={keywords[name]}" for name, right in wrong.items() if keywords.get(name, right) != right]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(NOTEBOOKS)))
def test_nothing_of_others_is_run_or_unpickled(file):
    assert trusting(code(file)) == KNOWN.get(str(file.relative_to(NOTEBOOKS)), [])


@pytest.mark.parametrize("line, found", [
    ("import pickle", ["import pickle"]), ("from joblib import load", ["import joblib"]), ("eval(completion)", ["eval()"]),
    ("load(name, trust_remote_code=True)", ["trust_remote_code=True"]), ("load(name, trust_remote_code=profile.trust)", ["trust_remote_code=profile.trust"]),
    ("torch.load('x.pt')", ["torch.load"]), ("torch.load('x.pt', weights_only=True)", []), ("np.load(file, allow_pickle=True)", ["allow_pickle=True"]),
    ("run(text, shell=True)", ["shell=True"]), ("model.eval()", []), ("re.compile('x')", []), ("save(safe_serialization=False)", ["safe_serialization=False"])])
def test_the_search_finds_them(line, found):
    assert trusting(line) == found


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not in a clone")
def test_no_file_of_the_repository_holds_what_looks_like_a_token():
    listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    assert [file.name for file in files if file.is_file() and SHAPES.search(file.read_bytes())] == []
    assert SHAPES.search(f"token='{TOKEN}'".encode())


TRAINING = f"""
import json, os, sys
from grpo_kit import FastLanguageModel
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
model, tokenizer = FastLanguageModel.from_pretrained({str(ROOT / "data/tiny-model")!r}, 128, fast_inference=True, max_lora_rank=8)
model = FastLanguageModel.get_peft_model(model, r=8)
args = GRPOConfig(output_dir="checkpoints", max_steps=1, save_steps=1, per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
                  report_to="tensorboard", logging_steps=1, log_completions=False, use_vllm=True, vllm_mode="colocate")
prompts = [{{"prompt": [{{"role": "user", "content": "1 + 1?"}}], "answer": "2"}}] * 4
GRPOTrainer(model=model, processing_class=tokenizer, args=args, train_dataset=Dataset.from_list(prompts),
            reward_funcs=lambda completions, **columns: [float(len(str(one))) for one in completions]).train()
model.save_lora("adapter")
raise RuntimeError("the end")
"""


@pytest.mark.robust
@pytest.mark.table
def test_a_planted_token_is_in_nothing_that_a_training_writes_or_says(tmp_path):
    env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN, "MODELSCOPE_API_TOKEN": TOKEN,
                        "WANDB_API_KEY": TOKEN, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", TRAINING], env=env, cwd=tmp_path, capture_output=True, timeout=900)
    assert b"the end" in done.stderr, done.stderr[-3000:]
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"adapter_model.safetensors", "trainer_state.json"} <= {file.name for file in written}
    assert [str(file) for file in written if TOKEN.encode() in file.read_bytes()] == []
    assert TOKEN.encode() not in done.stdout + done.stderr


@pytest.mark.table
def test_a_planted_token_is_in_no_notebook_that_fails(tmp_path, record_property):
    cells = ["import grpo_kit\nfrom grpo_kit.data import read_rows", "read_rows('huggingface', 'train')"]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), tmp_path / "in.ipynb")
    env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_TOKEN": TOKEN, "HF_ENDPOINT": f"http://me:{TOKEN}@127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, *"-m grpo_kit.workshop.play --kernel python3 --no-progress-bar in.ipynb out.ipynb".split()]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    record_property("said", last := done.stderr.strip().splitlines()[-1])
    assert done.returncode == 1 and last.startswith("Cell 2 stopped: ConnectionError: http://127.0.0.1:9/datasets/openai/gsm8k/")
    assert TOKEN not in done.stdout + done.stderr + (tmp_path / "out.ipynb").read_text("utf-8")
