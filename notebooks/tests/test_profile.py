"""What runs where: each kind of machine, through a stand-in torch, and every variable that overrides the choice."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from grpo_kit.machine.packages import Stop
from grpo_kit.machine.profile import GPU, PROFILES, choose_profile

VARIABLES = ["UNSLOTH_VLLM_STANDBY", "UNSLOTH_VLLM_NO_FLASHINFER", "VLLM_LOGGING_LEVEL"]
CARDS = {  # bytes of the first card, its compute capability
    "no GPU": (0, 0, 0), "T4": (15.64e9, 7, 5), "two T4": (15.64e9, 7, 5), "V100": (16.9e9, 7, 0), "L4": (23.6e9, 8, 9), "RTX 4090": (25.3e9, 8, 9),
    "A100 40": (42.3e9, 8, 0), "H100": (85.0e9, 9, 0), "an eighth of an H100": (10.5e9, 9, 0), "a half": (42.2e9, 9, 0), "laptop": (8.2e9, 8, 6),
    "RTX 3060": (12.5e9, 8, 6), "GTX 1660": (6.2e9, 7, 5), "small": (4.2e9, 7, 5),
}


@pytest.fixture
def on(monkeypatch):
    """A function that makes this process run on one of CARDS, with nothing set."""
    for name in [*VARIABLES, "GRPO_PROFILE", "GRPO_MODEL", "GRPO_DATA"]:
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back what the choice sets
        monkeypatch.delenv(name)

    def on(card):
        memory, major, minor = CARDS[card]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: memory > 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory, major=major, minor=minor))

    return on


@pytest.mark.parametrize("card, name", [
    ("no GPU", "embedded"), ("T4", "16gb"), ("two T4", "16gb"), ("V100", "16gb"), ("L4", "24gb"), ("RTX 4090", "24gb"),
    ("A100 40", "40gb"), ("H100", "80gb"), ("a half", "40gb"), ("an eighth of an H100", "8gb"), ("laptop", "8gb"), ("RTX 3060", "8gb"),
    ("GTX 1660", "6gb")])
def test_the_profile_of_a_machine(on, card, name):
    on(card)
    profile = choose_profile()
    assert (profile.name, profile.model, profile.data) == (name, PROFILES[name].model, PROFILES[name].data)
    assert profile.max_steps == (100 if 0 < CARDS[card][1] < 8 else PROFILES[name].max_steps)
    assert not profile.standby and 0 < profile.gpu_memory_utilization < 0.7
    assert [os.environ[variable] for variable in VARIABLES] == ["0", "1", "ERROR"]
    assert "GPU" in profile.reason


def test_without_a_gpu_a_call_or_a_variable_takes_the_real_small_model(on, monkeypatch):
    on("no GPU")
    profile = choose_profile(without_gpu="laptop", max_steps=3)
    assert (profile.name, profile.model, profile.data, profile.max_steps) == ("laptop", PROFILES["laptop"].model, "embedded", 3)
    assert profile.reason == "no GPU: a small real model and the word problems of the repository" and profile.splits == ("test", "held_out")
    monkeypatch.setenv("GRPO_MODEL", "elsewhere")
    assert choose_profile(without_gpu="laptop").model == "elsewhere"
    monkeypatch.setenv("GRPO_PROFILE", "embedded")
    assert choose_profile(without_gpu="laptop").name == "embedded"
    monkeypatch.setenv("GRPO_PROFILE", "laptop")
    assert choose_profile() == replace(PROFILES["laptop"], model="elsewhere", reason="GRPO_PROFILE=laptop")


def test_a_gpu_does_not_ask_what_would_run_without_one_but_a_wrong_name_is_refused_everywhere(on):
    on("T4")
    assert choose_profile(without_gpu="laptop") == choose_profile()
    for card in ("T4", "no GPU"):
        on(card)
        with pytest.raises(ValueError, match="without_gpu='16gb' is unknown; the profiles of machines without a GPU are embedded, laptop."):
            choose_profile(without_gpu="16gb")


@pytest.mark.parametrize("name", ["embedded", "laptop"])
def test_a_quickstart_alone_has_nothing_to_run_without_a_gpu(on, monkeypatch, name):
    on("no GPU")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Stop, match="run `make quickstart` in a clone"):
        choose_profile(without_gpu=name)


def test_the_laptops_steps_hold_whole_groups_and_its_lengths_fit():
    profile = PROFILES["laptop"]
    assert profile.per_device_train_batch_size * profile.gradient_accumulation_steps % profile.num_generations == 0
    assert profile.max_prompt_length + profile.max_completion_length <= profile.max_seq_length


def test_a_card_too_small_is_refused_unless_a_profile_is_named(on, monkeypatch):
    on("small")
    with pytest.raises(RuntimeError, match="has 4 GB and the smallest profile needs 6; set GRPO_PROFILE"):
        choose_profile()
    monkeypatch.setenv("GRPO_PROFILE", "embedded")
    assert choose_profile().name == "embedded"


def test_a_profile_with_standby_has_unsloth_switch_it_on(on, monkeypatch):
    on("H100")
    monkeypatch.setitem(PROFILES, "80gb", replace(PROFILES["80gb"], standby=True))
    assert choose_profile().standby and os.environ["UNSLOTH_VLLM_STANDBY"] == "1"


def test_a_field_named_in_the_call_is_changed_last(on, monkeypatch):
    on("T4")
    assert choose_profile(max_steps=150).max_steps == 150  # though 100 is what two hours should hold
    monkeypatch.setenv("GRPO_DATA", "modelscope")
    profile = choose_profile(data="huggingface", standby=True)
    assert profile == replace(choose_profile(), data="huggingface", standby=True)
    with pytest.raises(TypeError, match="max_step"):
        choose_profile(max_step=150)


@pytest.mark.parametrize("changes, complaint", [
    ({"num_generations": 3}, "num_generations=3 must be 2 or more and divide the 128 completions"), ({"num_generations": 1}, "must be 2 or more"),
    ({"per_device_train_batch_size": 5, "gradient_accumulation_steps": 3}, "divide the 15 completions"), ({"num_generations": 0}, "must be 2"),
    ({"max_completion_length": 300}, "together exceed max_seq_length"), ({"max_seq_length": 100}, "together exceed")])
def test_sizes_that_do_not_go_together_are_refused(on, changes, complaint):
    on("no GPU")
    with pytest.raises(ValueError, match=complaint):
        choose_profile(**changes)


def test_a_standby_named_in_the_call_is_switched_on(on):
    on("H100")
    assert choose_profile(standby=True).standby and os.environ["UNSLOTH_VLLM_STANDBY"] == "1"


@pytest.mark.parametrize("variable, value", zip(VARIABLES, ["1", "0", "INFO"]))
def test_what_a_reader_set_stays(on, monkeypatch, variable, value):
    on("T4")
    monkeypatch.setenv(variable, value)
    choose_profile()
    assert os.environ[variable] == value


def test_variables_that_are_empty_count_as_unset(on, monkeypatch):
    on("T4")
    for name in ("GRPO_PROFILE", "GRPO_MODEL", "GRPO_DATA"):
        monkeypatch.setenv(name, "")
    profile = choose_profile()
    assert (profile.name, profile.model, profile.data) == (GPU.name, GPU.model, GPU.data)


@pytest.mark.parametrize("name, value, complaint", [
    ("GRPO_PROFILE", "t5", "GRPO_PROFILE='t5' is unknown; the profiles are embedded, laptop, 6gb, 8gb, 16gb"), ("GRPO_DATA", "nowhere", "is neither a folder nor one of")])
def test_an_unknown_value_is_named(on, monkeypatch, name, value, complaint):
    on("no GPU")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=complaint):
        choose_profile()


def test_a_folder_of_problems_needs_no_held_out_ones(on, monkeypatch, tmp_path):
    on("no GPU")
    assert choose_profile().splits == ("test", "held_out")
    monkeypatch.setenv("GRPO_DATA", str(tmp_path))
    assert choose_profile().splits == ("test",)
    assert choose_profile(data="embedded").splits == ("test", "held_out")
    monkeypatch.delenv("GRPO_DATA")
    assert choose_profile(data="huggingface").splits == ("test",)
    with pytest.raises(ValueError, match="GRPO_DATA='nowhere'"):
        choose_profile(data="nowhere")


def test_no_notebook_sets_what_the_profile_sets():
    notebooks = Path(__file__).parents[1].glob("*.ipynb")
    kept = {"00_quickstart.ipynb"}  # which stands alone, and has the profile in its cells
    assert not [file.name for file in notebooks if file.name not in kept and "UNSLOTH_VLLM_STANDBY\\\"]" in file.read_text("utf-8")]


@pytest.mark.parametrize("value, says", [("0", "'0'"), ("0.5", "'0.5'"), ("much", "'much'"), ("-2", "'-2'")])
def test_a_cache_that_the_cpu_engine_cannot_have_is_named_before_it_starts(value, says):
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": value, "PYTHONPATH": str(Path(__file__).parents[1]), "UNSLOTH_FORCE_CPU": "1"}
    done = subprocess.run([sys.executable, "-c", "import grpo_kit.model.loader"], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ValueError: VLLM_CPU_KVCACHE_SPACE={says} is no whole number of GiB, 1 or more: unset it, or set one."
