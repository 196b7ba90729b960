"""Whose adapter it is: two bases under one name, the names of caches, adapters with something missing, and what stands in a config."""

import json
import shutil
import time
from pathlib import Path

import pytest

import grpo_kit.model.loader  # noqa: F401  Unsloth, before transformers
import torch
from safetensors.torch import load_file, save_file

from grpo_kit.machine.profile import PROFILES
from grpo_kit.model import identity
from grpo_kit.model.identity import check_adapter, check_base, fingerprint, plain_name, sign

ROOT = Path(__file__).resolve().parents[2]
ADAPTER, BASE = ROOT / "grpo_saved_lora", ROOT / "data/tiny-model"


@pytest.fixture
def adapter(tmp_path):
    return Path(shutil.copytree(ADAPTER, tmp_path / "adapter"))


def settings(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def edit(folder, **changes):
    (folder / "adapter_config.json").write_text(json.dumps(settings(folder) | changes))


def edit_tensors(folder, change, name="adapter_model.safetensors"):
    save_file(change(load_file(folder / name)), folder / name, {"format": "pt"})


def copy_of_the_base(folder, change=lambda tensors: tensors, **config):
    base = Path(shutil.copytree(BASE, folder))
    edit_tensors(base, change, "model.safetensors")
    (base / "config.json").write_text(json.dumps(json.loads((base / "config.json").read_text()) | config))
    return base


def changed(name, factor):
    return lambda tensors: tensors | {name: tensors[name] * factor}


# --- with a fingerprint -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, config, sentence", [
    (changed("model.layers.0.self_attn.q_proj.weight", 1.02), {}, "has the weights"),
    (changed("model.layers.3.mlp.down_proj.weight", 0.9), {}, "has the weights"),
    (changed("model.norm.weight", 1.1), {}, "has the weights"),
    (lambda tensors: tensors, {"rms_norm_eps": 1e-5}, "rms_norm_eps 1e-06, and .* has 1e-05"),
    (lambda tensors: tensors, {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}, "rope_parameters"),
])
def test_two_bases_of_one_name_are_told_apart(tmp_path, change, config, sentence):
    other = copy_of_the_base(tmp_path / "elsewhere/tiny-model", change, **config)
    with pytest.raises(ValueError, match=sentence) as caught:
        check_adapter(ADAPTER, other)
    assert "../data/tiny-model" in str(caught.value) and str(other) in str(caught.value) and "\n" not in str(caught.value)


def test_the_same_base_is_known_under_another_name_in_other_shards_and_in_wider_floats(tmp_path):
    moved = copy_of_the_base(tmp_path / "renamed", lambda tensors: {name: tensor.float() for name, tensor in tensors.items()})
    tensors = load_file(moved / "model.safetensors")
    (moved / "model.safetensors").unlink()
    for part in (0, 1):
        names = [name for number, name in enumerate(tensors) if number % 2 == part]
        save_file({name: tensors[name] for name in names}, moved / f"model-0000{part + 1}-of-00002.safetensors", {"format": "pt"})
    assert fingerprint(moved) == fingerprint(BASE)
    assert check_adapter(ADAPTER, moved) == 56


def test_a_4bit_copy_is_compared_by_what_it_keeps(tmp_path, capsys):
    """It is told apart from a base whose embeddings differ, and its packed projections are nobody's fault."""
    def pack(tensors):
        return {name: tensor if "norm" in name or "embed" in name else tensor.to(torch.uint8) for name, tensor in tensors.items()}

    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    copy = fingerprint(copy_of_the_base(tmp_path / "tiny-model-bnb-4bit", pack, **quantised))
    assert copy["quantised"] and copy["weights"] != fingerprint(BASE)["weights"] and copy["kept"] == fingerprint(BASE)["kept"]
    config = {"base_model_name_or_path": "unsloth/tiny-model-bnb-4bit", "auto_mapping": {"grpo_kit": {"base": "tiny-model", **copy}}}
    check_base(config, BASE, "The adapter in x")
    assert "by norms and embeddings" in capsys.readouterr().out
    other = copy_of_the_base(tmp_path / "tiny-model", changed("model.embed_tokens.weight", 1.1))
    with pytest.raises(ValueError, match="load the model it was trained on"):
        check_base(config, other, "The adapter in y")


def test_what_is_signed_is_what_was_trained_on_and_peft_saves_it(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    sign(model, PROFILES["embedded"], seed=5)
    model.save_pretrained(tmp_path)
    noted = settings(tmp_path)["auto_mapping"]["grpo_kit"]
    assert noted["base"] == "tiny-model" and noted["weights"] == fingerprint(BASE)["weights"]
    assert (noted["profile"], noted["data"], noted["seed"]) == ("embedded", "embedded", 5)
    assert noted["versions"].keys() == {"kit", *identity.LIBRARIES}
    assert check_adapter(tmp_path, BASE) == 8


def test_the_shipped_adapter_is_signed():
    noted = settings(ADAPTER)["auto_mapping"]["grpo_kit"]
    assert noted["weights"] == fingerprint(BASE)["weights"] and noted["profile"] == noted["data"] == "embedded" and noted["seed"] == 3407


@pytest.mark.parametrize("mapping", [
    None, 7, "text", {}, {"grpo_kit": None}, {"grpo_kit": []}, {"grpo_kit": {"base": "tiny-model", "config": 3}},
    {"grpo_kit": {"base": "another", "config": {}, "weights": "0"}}])
def test_what_cannot_be_read_as_a_fingerprint_is_none(adapter, mapping, capsys):
    """The last: somebody changed the base's name by hand, or copied the note from another adapter."""
    edit(adapter, auto_mapping=mapping)
    assert check_adapter(adapter, BASE) == 56
    assert "by name and shapes: it does not say what it was trained on" in capsys.readouterr().out


# --- without one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one, other", [
    ("Qwen/Qwen2.5-3B-Instruct", "/home/a/.cache/huggingface/hub/models--Qwen--Qwen2.5-3B-Instruct/snapshots/aa8e72537993ba99e69dfaafa59ed015b17504d1"),
    ("unsloth/Qwen2.5-3B-Instruct", "/mnt/workspace/.cache/modelscope/hub/models/Qwen/Qwen2___5-3B-Instruct"),
    ("Qwen/Qwen2.5-3B-Instruct", "/root/.cache/modelscope/hub/Qwen/Qwen2___5-3B-Instruct/"),
    ("Qwen/Qwen2.5-3B-Instruct", "/root/.cache/modelscope/models/Qwen--Qwen2.5-3B-Instruct/snapshots/master"),
    ("meta-llama/Llama-3.2-1B", "unsloth/llama-3.2-1b-unsloth-bnb-4bit"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "models/SmolLM2-135M-Instruct"),
    ("unsloth/Qwen2.5-3B-Instruct-bnb-4bit", "hub/models--unsloth--Qwen2.5-3B-Instruct/snapshots/0/"),
])
def test_one_model_has_one_name_in_every_cache(one, other):
    assert plain_name(one) == plain_name(other)


@pytest.mark.parametrize("one, other", [
    ("Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-3B"),
    ("Qwen/Qwen2.5-3B-Instruct", "hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/0"),
    ("a/snapshots/0", "b/snapshots/0"),
    ("my--model", "model"),
])
def test_two_models_have_two(one, other):
    assert plain_name(one) != plain_name(other)


def test_an_adapter_from_elsewhere_is_known_by_its_name(adapter, tmp_path, capsys):
    edit(adapter, auto_mapping=None, base_model_name_or_path=str(tmp_path / "models--org--tiny-model/snapshots/0123"))
    assert check_adapter(adapter, BASE) == 56
    assert capsys.readouterr().out.count("\n") == 1
    edit(adapter, base_model_name_or_path="org/tiny-model-2")
    with pytest.raises(ValueError, match="was made for org/tiny-model-2, not for"):
        check_adapter(adapter, BASE)


Q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize("change, sentence", [
    (lambda tensors: {name: tensor for name, tensor in tensors.items() if name != Q.format(2, "B")}, "incomplete, 1 of 56"),
    (lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in (Q.format(0, "A"), Q.format(0, "B"))}, "incomplete, 2 of 56"),
    (lambda tensors: {name: tensor for name, tensor in tensors.items() if ".layers.1." in name}, "incomplete, 42 of 56"),
    (lambda tensors: {name: tensor for name, tensor in tensors.items() if "mlp" not in name}, "incomplete, 24 of 56"),
    (lambda tensors: {}, "incomplete, 56 of 56"),
    (lambda tensors: tensors | {Q.format(4, "A"): torch.ones(16, 256)}, "does not fit"),
    (lambda tensors: tensors | {Q.format(1, "A"): torch.ones(8, 256)}, "does not fit"),
    (lambda tensors: tensors | {Q.format(1, "A"): torch.full((16, 256), float("nan"))}, "not finite"),
    (lambda tensors: tensors | {Q.format(3, "B"): torch.full((256, 16), float("-inf"))}, "not finite"),
])
@pytest.mark.parametrize("signed", [True, False])
def test_a_matrix_that_is_missing_or_wrong_is_named(adapter, change, sentence, signed):
    edit_tensors(adapter, change)
    if not signed:
        edit(adapter, auto_mapping=None)
    with pytest.raises(ValueError, match=sentence) as caught:
        check_adapter(adapter, BASE)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_some_layers_only_is_whole_where_its_config_says_so(adapter):
    edit_tensors(adapter, lambda tensors: {name: tensor for name, tensor in tensors.items() if ".layers.1." in name})
    edit(adapter, layers_to_transform=[1])
    assert check_adapter(adapter, BASE) == 14


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 10**5, '{"peft_type": "IA3"}', "\x00", '{"peft_type": "LORA", "r": "many"}',
                                  '{"peft_type": "LORA", "r": 8, "target_modules": ["nothing_like_it"]}'])
def test_a_config_that_is_none_costs_one_sentence(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError) as caught:
        check_adapter(adapter, BASE)
    assert "\n" not in str(caught.value) and str(adapter) in str(caught.value)


HOSTILE = {  # what stands in the config, and words
    "a rank of a billion": ({"r": 10**9}, "does not fit"), "a rank of 1e30": ({"r": 1e30}, "does not fit"), "a negative rank": ({"r": -1}, "does not fit"),
    "targets by a pattern that never ends": ({"target_modules": "(([a-z_.0-9])+.)+[A-Z]([a-z])+$"}, "a pattern that never ends"),
    "ranks by a pattern that never ends": ({"rank_pattern": {"(.*.*)*x": 4}}, "a pattern that never ends"),
    "a pattern that is none": ({"target_modules": "("}, "does not fit"), "a package to be imported": ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "does not fit"),
    "a base at the root": ({"base_model_name_or_path": "/etc"}, "was made for /etc"), "a base with a path": ({"base_model_name_or_path": "../../../etc"}, "was made for ../../../etc"),
    "settings of another type": ({"runtime_config": {"ephemeral_gpu_offload": True}}, "does not fit"),
    "a token that the model lacks": ({"trainable_token_indices": [10**9]}, "incomplete"),
}


@pytest.mark.table
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_adapter_costs_one_sentence(adapter, record_property, case):
    changes, words = HOSTILE[case]
    edit(adapter, **changes)
    began = time.process_time()
    with pytest.raises(ValueError) as caught:
        check_adapter(adapter, BASE)
    record_property("said", sentence := str(caught.value))
    assert time.process_time() - began < 10 and words in sentence and "\n" not in sentence and len(sentence) < 500


@pytest.mark.parametrize("changes", [{"init_lora_weights": "pissa_niter_100000"}, {"init_lora_weights": "eva"}, {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}}])
def test_what_an_adapter_asks_to_be_computed_or_imported_is_not(adapter, changes):
    edit(adapter, **changes)
    began = time.process_time()
    assert check_adapter(adapter, BASE) == 56 and time.process_time() - began < 5


def test_an_adapter_whose_base_is_not_here_says_which(adapter):
    edit(adapter, base_model_name_or_path="/nowhere/tiny-model", auto_mapping=None)
    with pytest.raises(FileNotFoundError, match="/nowhere/tiny-model is neither"):
        check_adapter(adapter)


def test_what_is_merged_is_checked_before(adapter, monkeypatch):
    """On a CPU; `from_pretrained` of an adapter is how every export begins."""
    if torch.accelerator.is_available():
        pytest.skip("on a GPU the class is Unsloth's own")
    from grpo_kit import FastLanguageModel

    edit(adapter, base_model_name_or_path=str(BASE))
    edit_tensors(adapter, lambda tensors: dict(list(tensors.items())[1:]))
    with pytest.raises(ValueError, match="incomplete"):
        FastLanguageModel.from_pretrained(str(adapter), load_in_4bit=False)
