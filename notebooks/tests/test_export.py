"""Exports that are whole or absent, and GGUF files that say, cut and answer what the merged model does; the builder around them.

The embedded model is exported once, for all tests that look into the files; they need llama.cpp, which `make llama.cpp` builds.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import MethodType

import pytest

from grpo_kit.data.rows import SYSTEM_PROMPT
from grpo_kit.export import llama_build, merge
from grpo_kit.export.gguf import GGUF_METHODS, GGUFModel, check_methods, complete_tokenizer, save_gguf, tensor_types
from grpo_kit.export.merge import check_adapter, new_export
from grpo_kit.export.ollama import modelfile
from grpo_kit.machine.paths import short

NOTEBOOKS = Path(__file__).resolve().parents[1]
ADAPTER, BASE = NOTEBOOKS.parent / "grpo_saved_lora", NOTEBOOKS.parent / "data/tiny-model"
GO_TEMPLATE = "py-go-template==1.0.0"  # Go's own text/template, compiled for Python
WITHOUT_MODEL = ("llama.cpp is not built: run `make llama.cpp`", "a GPU machine exports another model")


@pytest.fixture(scope="module")
def loaded():
    """The embedded base with its adapter in 16-bit, and the tokenizer."""
    import torch

    if not llama_build.is_built():
        pytest.skip(WITHOUT_MODEL[0])
    if torch.accelerator.is_available():
        pytest.skip(WITHOUT_MODEL[1])
    from grpo_kit import FastLanguageModel

    here = os.getcwd()
    os.chdir(NOTEBOOKS)  # the adapter names its base relative to it
    yield FastLanguageModel.from_pretrained(str(ADAPTER), max_seq_length=384, load_in_4bit=False)
    os.chdir(here)


@pytest.fixture(scope="module")
def files(loaded, tmp_path_factory):
    with new_export(tmp_path_factory.mktemp("exports") / "gguf") as folder:
        save_gguf(*loaded, folder, GGUF_METHODS)
    folder = next(tmp_path_factory.getbasetemp().glob("exports*/gguf"))
    return {method: next(folder.glob(f"*.{method.upper()}.gguf")) for method in GGUF_METHODS}


@pytest.fixture(scope="module")
def questions(loaded):
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.machine.profile import PROFILES

    return make_dataset(PROFILES["embedded"], "test", loaded[1])


@pytest.fixture(scope="module")
def prompts(loaded, questions):
    return [loaded[1].apply_chat_template(row, tokenize=False, add_generation_prompt=True) for row in questions["prompt"]]


# --- what is in the files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, most, others", [
    ("f16", "F16", set()), ("q8_0", "Q8_0", set()), ("q5_k_m", "Q5_K", {"Q6_K"}), ("q4_k_m", "Q4_K", {"Q6_K"}),
    ("q2_k", "Q2_K", {"Q3_K", "Q6_K"})])
def test_the_types_are_the_named_ones(files, method, most, others):
    weights = {key: count for key, count in tensor_types(files[method]).items() if "norm" not in key[0]}
    assert {kept_as for _, kept_as in weights} == {most} | others
    assert sum(count for (_, kept_as), count in weights.items() if kept_as == most) > sum(weights.values()) / 2


def test_prompts_and_tokens_are_the_tokenizers(files, loaded, questions, prompts):
    wanted = [loaded[1](prompt, add_special_tokens=False).input_ids for prompt in prompts]
    for file in files.values():
        with GGUFModel(file, 384) as gguf:
            assert [gguf.tokenize(prompt) for prompt in prompts] == wanted
            assert list(map(gguf.template(), questions["prompt"])) == prompts


def test_without_the_completed_tokenizer_the_tokens_would_differ(loaded, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "copy", lambda *_: None)
    file = save_gguf(*loaded, tmp_path, ["f16"])["f16"]
    with GGUFModel(file, 384) as gguf:
        assert all(gguf.tokenize(prompt) != loaded[1](prompt, add_special_tokens=False).input_ids for prompt in prompts)


def unsloths_wrapper(tokenizer):
    """What Unsloth does to a tokenizer on a GPU when it loads it and again in each export (its module needs triton)."""

    def unsloth_tokenizer_save_pretrained(self, folder, **options):
        return self.original_save_pretrained(folder, **options)

    if tokenizer.save_pretrained.__name__ != "unsloth_tokenizer_save_pretrained":
        tokenizer.original_save_pretrained = tokenizer.save_pretrained
        tokenizer.save_pretrained = MethodType(unsloth_tokenizer_save_pretrained, tokenizer)


@pytest.mark.parametrize("wrapped_first", [False, True])
def test_a_tokenizer_that_unsloth_wraps_is_completed_and_left_as_it_was(tmp_path, wrapped_first):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for round_ in range(2):
        if wrapped_first:
            unsloths_wrapper(tokenizer)
        before = tokenizer.save_pretrained
        with complete_tokenizer(tokenizer):
            unsloths_wrapper(tokenizer)
            tokenizer.save_pretrained(tmp_path / f"inside {round_}")
        tokenizer.save_pretrained(tmp_path / f"after {round_}")
        inside, after = (json.loads((tmp_path / f"{when} {round_}/tokenizer_config.json").read_text("utf-8")) for when in ("inside", "after"))
        assert "added_tokens_decoder" in inside and "add_bos_token" in inside and "add_bos_token" not in after
        assert (tmp_path / f"inside {round_}/tokenizer.model").is_file() and tokenizer.save_pretrained == before


def test_gguf_dump_shows_types_template_and_token_ids(files, loaded):
    command = [sys.executable, "-m", "gguf.scripts.gguf_dump"]
    for method, file in files.items():
        done = subprocess.run([*command, file], capture_output=True, text=True, env={"PYTHONPATH": str(llama_build.places()[1])})
        assert done.returncode == 0, done.stderr
        assert re.search(rf"eos_token_id = {loaded[1].eos_token_id}\b", done.stdout)
        assert re.search(r"add_bos_token = False", done.stdout) and "im_start" in done.stdout
        assert f"| {method.upper().removesuffix('_M')} " in done.stdout


def test_f16_answers_as_the_merged_model_does(files, loaded, prompts):
    """The merged model's greedy replies come from transformers, in float32: a third program beside llama.cpp and vLLM."""
    import copy

    from vllm import SamplingParams

    model, tokenizer = loaded
    merged = copy.deepcopy(model).merge_and_unload().half().float().eval()
    some, tokenizer.padding_side = prompts[:100], "left"
    batch = tokenizer(some, return_tensors="pt", padding=True, add_special_tokens=False)
    wanted = merged.generate(**batch, max_new_tokens=96, do_sample=False)[:, batch.input_ids.shape[1]:].tolist()
    wanted = [ids[: ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids for ids in wanted]
    with GGUFModel(files["f16"], 384) as gguf:
        replies = gguf.fast_generate(some, SamplingParams(temperature=0.0, max_tokens=96))
    assert sum(reply.outputs[0].token_ids == ids for reply, ids in zip(replies, wanted)) >= 98
    assert {reply.outputs[0].finish_reason for reply in replies} == {"stop"}


def test_it_solves_a_problem_in_the_layout_through_llama_cpps_chat(files, questions):
    from grpo_kit.rewards.functions import correctness_reward, format_reward

    texts = []
    for method in ("q8_0", "q4_k_m"):
        with GGUFModel(files[method], 384) as gguf:
            for messages in questions["prompt"][:5]:
                reply = gguf.llama.create_chat_completion(messages, temperature=0.0, max_tokens=96)
                texts.append(reply["choices"][0]["message"]["content"])
    assert all(score > 0 for score in format_reward(texts))
    assert any(score > 0 for score in correctness_reward(texts, questions["answer"][:5] * 2))


def test_log_probs_of_f16_are_the_merged_models(files, loaded, prompts):
    import copy

    import torch
    from vllm import SamplingParams

    model, tokenizer = loaded
    merged = copy.deepcopy(model).merge_and_unload().half().float().eval()
    with GGUFModel(files["f16"], 384, scores=True) as gguf:
        [reply] = gguf.fast_generate(prompts[:1], SamplingParams(temperature=0.0, max_tokens=96))
        ids = reply.outputs[0].token_ids
        found = [gguf.log_probs(prompts[0], ids) for _ in range(2)]
    asked = tokenizer(prompts[0], add_special_tokens=False).input_ids
    with torch.no_grad():
        wanted = merged(torch.tensor([asked + ids])).logits[0].log_softmax(-1)[len(asked) - 1 : -1]
    assert found[0] == pytest.approx(wanted[range(len(ids)), ids].numpy(), abs=0.02)
    assert (found[0] == found[1]).all() and (found[0] <= 0).all()


def test_log_probs_are_taken_at_the_token_before():
    """On canned logits: row t says what follows token t."""
    from types import SimpleNamespace

    import numpy as np

    gguf = object.__new__(GGUFModel)
    scores = np.zeros((6, 4), np.float32)
    scores[2, 3] = scores[3, 1] = 50.0  # after the third token comes 3, then 1
    gguf.llama = SimpleNamespace(reset=lambda: None, eval=lambda tokens: None, scores=scores)
    gguf.tokenize = lambda prompt: [0, 0, 0]
    assert gguf.log_probs("abc", [3, 1]).tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert gguf.log_probs("abc", [1, 1])[0] == pytest.approx(-50.0)


def test_a_gguf_model_only_answers_greedily(files):
    from vllm import SamplingParams

    with GGUFModel(files["q8_0"], 384) as gguf, pytest.raises(ValueError, match="greedily"):
        gguf.fast_generate(["a"], SamplingParams(temperature=1.0))


# --- the Modelfile ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def go_template(tmp_path_factory):
    """The module go_template: an installed one, else fetched into a temporary folder."""
    if importlib.util.find_spec("go_template") is None:
        folder = tmp_path_factory.mktemp("go")
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--retries", "1", "--target", folder, GO_TEMPLATE]
        if subprocess.run(pip, capture_output=True).returncode:
            pytest.skip(f"{GO_TEMPLATE}, Go's template engine, is neither installed nor to be had from the package index")
        sys.path.append(str(folder))
    import go_template

    return go_template


def test_the_modelfiles_template_renders_the_tokenizers_prompt(go_template, questions, prompts, tmp_path):
    from transformers import AutoTokenizer

    text = modelfile("x.Q8_0.gguf", AutoTokenizer.from_pretrained(BASE), SYSTEM_PROMPT, 384, 96)
    template = tmp_path / "template"
    template.write_text(re.search(r'TEMPLATE """(.*?)"""', text, re.S)[1])
    for messages, prompt in zip(questions["prompt"][:50], prompts):
        capitals = [{key.capitalize(): value for key, value in message.items()} for message in messages]
        assert go_template.render(template, {"Messages": capitals}).decode() == prompt


def test_the_modelfile_names_file_prompt_stops_and_sizes():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    text = modelfile(Path("a/x.gguf"), tokenizer, SYSTEM_PROMPT, 384, 96)
    for line in ("FROM ./x.gguf", f'SYSTEM """{SYSTEM_PROMPT}"""', 'PARAMETER stop "<|im_end|>"', "PARAMETER num_ctx 384"):
        assert line in text
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(ValueError, match="not ChatML"):
        modelfile("x.gguf", tokenizer, SYSTEM_PROMPT, 384, 96)


@pytest.mark.parametrize("prompt", ['Say """hello"""', 'Reply with "yes"', '"' * 3, 'a""" PARAMETER num_ctx 1', 'x"'])
def test_a_system_prompt_that_a_modelfile_cannot_hold_is_refused(prompt):
    from transformers import AutoTokenizer

    with pytest.raises(ValueError, match="three quotation marks"):
        modelfile("x.gguf", AutoTokenizer.from_pretrained(BASE), prompt, 384, 96)


@pytest.mark.parametrize("prompt", ['"yes" or "no".', "'" * 3, "", 'one "\nand ""two'])
def test_a_modelfile_holds_other_quotation_marks(prompt):
    from transformers import AutoTokenizer

    assert f'SYSTEM """{prompt}"""' in modelfile("x.gguf", AutoTokenizer.from_pretrained(BASE), prompt, 384, 96)


class OfWords:
    """A tokenizer: its template writes `turns`, and its tokens are these words."""

    words = ["<eos>", "<pad>", "<|im_end|>", "<|eot|>", "[/INST]"]
    all_special_ids = [0, 1, 2, 3]

    def __init__(self, turns, opened, eos=0, pad=1):
        self.turns, self.opened, self.eos_token_id, self.pad_token_id = turns, opened, eos, pad

    def apply_chat_template(self, messages, tokenize, add_generation_prompt=False):
        assert not tokenize
        return "".join(self.turns.format(**message) for message in messages) + self.opened * add_generation_prompt

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [self.words.index(word) for word in text.split() if word in self.words]}

    def convert_ids_to_tokens(self, ids):
        return [self.words[one] for one in ids]


CHATML = ("<|im_start|>{role}\n{content}<|im_end|>\n", "<|im_start|>assistant\n")
LLAMA = ("<|start|>{role}\n\n{content} <|eot|>", "<|start|>assistant\n\n")


@pytest.mark.parametrize("tokenizer, config, stops", [
    (OfWords(*CHATML, eos=2, pad=0), None, ["<eos>", "<|im_end|>", "<|im_start|>"]),  # as Qwen's: its pad ends a text
    (OfWords(*CHATML, eos=2, pad=1), [2, 0], ["<eos>", "<pad>", "<|im_end|>", "<|im_start|>"]),  # with Unsloth's pad, the other by the model's config
    (OfWords(*CHATML, eos=2, pad=None), 2, ["<|im_end|>", "<|im_start|>"]),
    (OfWords(*LLAMA, pad=None), None, ["<eos>", "<|eot|>"]), (OfWords(*LLAMA, pad=None), [3, 2], ["<eos>", "<|im_end|>", "<|eot|>"])])
def test_the_modelfile_stops_at_every_token_that_ends_a_turn(tokenizer, config, stops):
    from types import SimpleNamespace

    text = modelfile("x.gguf", tokenizer, "S.", 384, 96, template="{{ .Prompt }}", generation_config=SimpleNamespace(eos_token_id=config))
    assert re.findall('PARAMETER stop "(.*)"', text) == stops and 'TEMPLATE """{{ .Prompt }}"""' in text


@pytest.mark.parametrize("name", ["a\nSYSTEM evil.gguf", "x.gguf\n", 'x".gguf', "..\\x.gguf", "x\0.gguf", "$(reboot).gguf", "`x`.gguf", ""])
def test_a_file_that_a_modelfile_cannot_name_is_refused(name):
    with pytest.raises(ValueError, match="^A Modelfile cannot name .*: call the file by letters") as caught:
        modelfile(f"a/{name}" if name else "", OfWords(*CHATML), "S.", 384, 96)
    assert "\n" not in str(caught.value)
    assert modelfile("a/模型 (2).Q8_0.gguf", OfWords(*CHATML), "S.", 384, 96).startswith("FROM ./模型 (2).Q8_0.gguf\n")


def test_a_template_or_a_token_that_a_modelfile_cannot_hold_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="write the template without them"):
        modelfile("x.gguf", OfWords(*LLAMA), "S.", 384, 96, template='{{ .Prompt }}"""\nSYSTEM evil')
    monkeypatch.setattr(OfWords, "words", ['<eos>"\nSYSTEM evil', "<pad>"])
    with pytest.raises(ValueError, match="^A Modelfile cannot stop at .*: take the tokenizer of the model's author.$"):
        modelfile("x.gguf", OfWords(*LLAMA), "S.", 384, 96, template="{{ .Prompt }}")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tmp_path):
    return Path(shutil.copytree(ADAPTER, tmp_path / "adapter"))


def change(file, old, new):
    file.write_text(file.read_text().replace(old, new))


def other_shapes(folder):
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: tensor[:, :-8].contiguous() for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize("spoil, sentence", [
    (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    (lambda folder: os.truncate(folder / "adapter_model.safetensors", 5000), "cut short, damaged"),
    (lambda folder: os.truncate(folder / "adapter_model.safetensors", 0), "cut short, damaged"),
    (lambda folder: change(folder / "adapter_config.json", "../data/tiny-model", "org/other"), "was made for org/other"),
    (other_shapes, "does not fit"),
])
def test_a_bad_adapter_costs_one_sentence(adapter, spoil, sentence):
    assert check_adapter(adapter, BASE) == 56
    spoil(adapter)
    with pytest.raises((FileNotFoundError, ValueError), match=sentence) as caught:
        check_adapter(adapter, BASE)
    assert "\n" not in str(caught.value)


def test_a_truncated_base_is_noticed(adapter, tmp_path):
    base = Path(shutil.copytree(BASE, tmp_path / "tiny-model"))
    os.truncate(base / "model.safetensors", 100_000)
    with pytest.raises(ValueError, match="model.safetensors is cut short"):
        check_adapter(adapter, base)


def test_a_models_4bit_copy_is_the_same_base(adapter, tmp_path):
    change(adapter / "adapter_config.json", "../data/tiny-model", "unsloth/Tiny-Model-unsloth-bnb-4bit")
    assert check_adapter(adapter, BASE) == 56


def test_an_unknown_quantisation_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="q9_x is no quantisation"):
        save_gguf(None, None, tmp_path, ["q8_0", "q9_x"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given, methods", [("q8_0", ["q8_0"]), (("f16", "q4_k_m"), ["f16", "q4_k_m"]), (["q2_k"], ["q2_k"])])
def test_one_method_may_be_named_without_a_list(given, methods):
    assert check_methods(given) == methods


@pytest.mark.parametrize("given", ["q8", ["q8_0", None], ["Q8_0"], [8], [], ""])
def test_a_method_that_is_none_is_named_whole(given):
    with pytest.raises(ValueError, match="^(q8|None|Q8_0|8|Nothing) is no quantisation"):
        check_methods(given)


@pytest.mark.parametrize("home, text, shown", [
    ("/", "saved /tmp/a/b.gguf", "saved /tmp/a/b.gguf"),
    ("/root", "saved /root/x/b.gguf.", "saved ~/x/b.gguf."),
    ("/root", "in /root, then '/root'", "in ~, then '~'"),
    ("/home/a", "/home/ab/c /mnt/home/a/c /home/a-b /home/a.old", "/home/ab/c /mnt/home/a/c /home/a-b /home/a.old"),
])
def test_the_home_folder_is_shown_as_a_tilde_and_nothing_else_is(monkeypatch, home, text, shown):
    monkeypatch.setenv("HOME", home)
    assert short(text) == shown
    assert short(Path(text)) == shown


@pytest.fixture
def older(tmp_path):
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "a.gguf").write_text("older")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_export_leaves_the_older_one_and_nothing_else(older, error):
    with pytest.raises(error), new_export(older, replace=True) as folder:
        (folder / "a.gguf").write_text("half")
        raise error
    assert contents(older.parent) == {"gguf/a.gguf": b"older"}


def test_a_whole_export_takes_the_older_ones_place(older):
    with new_export(older, replace=True) as folder:
        (folder / "b.gguf").write_text("new")
    assert contents(older.parent) == {"gguf/b.gguf": b"new"}


def test_an_export_through_a_link_lands_where_the_link_points(older, tmp_path):
    """A reader's way to a larger disk."""
    (tmp_path / "link").symlink_to(older)
    with new_export(tmp_path / "link", replace=True) as folder:
        (folder / "b.gguf").write_text("new")
        assert folder.parent.parent == older.parent
    assert (tmp_path / "link").is_symlink() and contents(older) == {"b.gguf": b"new"}
    (tmp_path / "empty").symlink_to(tmp_path / "disk/exports")
    with new_export(tmp_path / "empty") as folder:
        (folder / "c.gguf").write_text("new")
    assert contents(tmp_path / "disk") == {"exports/c.gguf": b"new"}


@pytest.mark.parametrize("circle", [1, 2])
def test_an_error_raised_from_itself_is_no_full_disk(tmp_path, circle):
    errors = [ValueError("one"), ValueError("two")][:circle]
    for error, cause in zip(errors, errors[1:] + errors[:1]):
        error.__cause__ = cause
    assert not merge.disk_full(errors[0], tmp_path)


def test_a_target_that_exists_is_refused(older, tmp_path):
    with pytest.raises(FileExistsError, match="gguf exists: .* replace=True"), new_export(older):
        pass
    other = tmp_path / "documents"
    other.mkdir()
    (other / "thesis.txt").write_text("the only copy")
    with pytest.raises(FileExistsError), new_export(other, replace=True):  # no export: never replaced
        pass
    assert contents(tmp_path) == {"gguf/a.gguf": b"older", "documents/thesis.txt": b"the only copy"}


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of some MB and gives its folder."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(megabytes):
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here: that takes root")
        return disk

    yield mount
    subprocess.run(["umount", disk], capture_output=True)


@pytest.mark.parametrize("megabytes", [5, 17, 26, 31])  # full while merging, converting, converting again, quantising
def test_a_full_disk_costs_one_sentence_and_leaves_nothing(loaded, small_disk, megabytes):
    disk = small_disk(megabytes)
    (disk / "gguf").mkdir()
    (disk / "gguf/a.gguf").write_text("older")
    with pytest.raises(OSError, match="has no room for this export") as caught:
        with new_export(disk / "gguf", replace=True) as folder:
            save_gguf(*loaded, folder, GGUF_METHODS)
    assert "\n" not in str(caught.value) and caught.value.errno == 28
    assert contents(disk) == {"gguf/a.gguf": b"older"}


# --- make chat, and the hub -------------------------------------------------------------------------------------------


def test_chat_answers_on_a_terminal(files, tmp_path):
    question = "Mia has 12 shells. She finds 30 more shells. How many shells does Mia have now?"
    code = f"from grpo_kit.workshop.chat import chat; chat({str(files['q8_0'])!r}, {SYSTEM_PROMPT!r}, 384, 96)"
    done = subprocess.run([sys.executable, "-c", code], input=f"{question}\n\n", text=True, capture_output=True, cwd=NOTEBOOKS)
    assert done.returncode == 0, done.stderr
    assert "<answer>\n42\n</answer>" in done.stdout


def test_chat_without_an_export_names_the_chapter(tmp_path):
    kit = tmp_path / "grpo_kit"
    shutil.copytree(NOTEBOOKS / "grpo_kit", kit)
    done = subprocess.run([sys.executable, "-m", "grpo_kit.workshop.chat"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    # The last line: what a library has to say about the reader's environment may stand before it.
    assert done.stderr.splitlines()[-1] == "make chat: there is no exported model yet: run notebooks/07_export.ipynb first."


PUBLISH = """
from grpo_kit import FastLanguageModel
from grpo_kit.export.hub import publish
model, tokenizer = FastLanguageModel.from_pretrained({adapter!r}, max_seq_length=384, load_in_4bit=False)
publish(model, tokenizer, "me/my-grpo", ["q8_0"], token="a-stand-in")
"""


def test_publish_pushes_both_repositories_privately(loaded, tmp_path):
    from hub_stand_in import UploadHub

    with UploadHub() as hub:
        network = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", PUBLISH.format(adapter=str(ADAPTER))]
        done = subprocess.run(command, cwd=NOTEBOOKS, env=os.environ | network, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.private == {"me/my-grpo": True, "me/my-grpo-GGUF": True}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model"} <= set(hub.repositories["me/my-grpo"])
    uploaded = hub.repositories["me/my-grpo-GGUF"]["tiny-model.Q8_0.gguf"]
    assert uploaded.startswith(b"GGUF") and len(uploaded) > 3_000_000


# --- the builder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty place for llama.cpp; returns the folder it and its neighbours would be in."""
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path / "home/llama.cpp"))
    return tmp_path / "home"


def left(home):
    return sorted(path.name for path in home.iterdir() if path.name != ".llama.cpp-build-lock")


def test_a_second_build_does_nothing(capsys, monkeypatch):
    if not llama_build.is_built():
        pytest.skip(WITHOUT_MODEL[0])
    monkeypatch.setattr(llama_build, "_build", lambda *_: pytest.fail("it built again"))
    llama_build.build_llama_cpp()
    assert capsys.readouterr().out.startswith("llama.cpp is built: ~/.unsloth/llama.cpp and ")


def test_unsloth_takes_the_build_as_its_own(loaded):
    from unsloth_zoo.llama_cpp import check_llama_cpp

    quantizer, converter = check_llama_cpp(str(llama_build.places()[0]))
    assert Path(quantizer).parent == Path(converter).parent == llama_build.places()[0]


@pytest.mark.parametrize("problem, sentence", [
    ("compiler", "needs a C.. compiler and there is none"),
    ("disk", "has 7 MB free"),
    ("network", "pip cannot fetch .*check the network"),
])
def test_what_cannot_be_built_costs_one_sentence_and_leaves_nothing(home, monkeypatch, problem, sentence):
    if problem == "compiler":
        monkeypatch.setattr(llama_build.shutil, "which", lambda name: None)
    elif problem == "disk":
        monkeypatch.setattr(llama_build.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 2, 7_000_000))
    else:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(llama_build.BuildError, match=sentence) as caught:
        llama_build.build_llama_cpp()
    assert "\n" not in str(caught.value) and left(home) == []


def fake_build(monkeypatch, compiled):
    """Stands in for pip and the compiler: the source is a few empty files, and `compiled` takes the place of `_compile`."""
    def run(command, failure, **options):
        if "download" in command:
            root = Path(command[command.index("--dest") + 1])
            for name in ["llama_cpp/x", *(f"vendor/llama.cpp/{folder}/x" for folder in [*llama_build.KEPT_FILES, "docs"])]:
                (root / "s" / name).parent.mkdir(parents=True, exist_ok=True)
                (root / "s" / name).touch()
            (root / "s/vendor/llama.cpp/gguf-py/gguf").mkdir()
            with tarfile.open(root / "source.tar.gz", "w:gz") as archive:
                archive.add(root / "s", "llama_cpp_python-0")
        else:
            Path(command[command.index("--target") + 1]).mkdir()

    def compile_(source, environment):
        assert not (source / "docs").exists()
        (source / "build/bin").mkdir(parents=True)
        (source / "build/bin/llama-quantize").write_text("#!/bin/sh\necho usage\n")
        (source / "build/bin/llama-quantize").chmod(0o755)
        compiled()

    monkeypatch.setattr(llama_build, "_run", run)
    monkeypatch.setattr(llama_build, "_compile", compile_)


def test_a_build_is_whole_or_absent(home, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    fake_build(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        llama_build.build_llama_cpp()
    assert left(home) == []
    (home / ".llama.cpp-building-killed").mkdir()
    fake_build(monkeypatch, lambda: None)
    llama_build.build_llama_cpp()
    assert left(home) == ["llama-cpp-python", "llama.cpp"]
    assert (home / "llama-cpp-python/llama_cpp/lib").is_dir()


def test_unsloths_own_llama_cpp_stays(home, monkeypatch):
    (home / "llama.cpp").mkdir(parents=True)
    (home / "llama.cpp/llama-quantize").write_text("#!/bin/sh\necho usage: Unsloth\n")
    (home / "llama.cpp/llama-quantize").chmod(0o755)
    (home / "llama.cpp/convert_hf_to_gguf.py").touch()
    fake_build(monkeypatch, lambda: None)
    llama_build.build_llama_cpp()
    assert sorted(path.name for path in (home / "llama.cpp").iterdir()) == ["convert_hf_to_gguf.py", "llama-quantize"]
    assert left(home) == ["llama-cpp-python", "llama.cpp"]


def test_what_is_not_built_is_named(home, monkeypatch):
    monkeypatch.setattr(llama_build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="run `make llama.cpp`"):
        llama_build.import_built("llama_cpp")
