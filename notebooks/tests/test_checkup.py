"""What chapter 01 asks: each answer where all is well, and each where something is not."""

import importlib.metadata
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from grpo_kit.machine import checkup
from grpo_kit.machine.profile import PROFILES

GPU = "Tesla T4, 15360, {}, {}\n"


def answering(monkeypatch, text):
    """A machine whose nvidia-smi says `text`."""
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: True)
    monkeypatch.setattr(checkup.subprocess, "run", lambda *args, **options: SimpleNamespace(stdout=text))


def machine(profile="16gb"):
    return {check.what: check for check in checkup.machine_rows(PROFILES[profile])}


@pytest.mark.parametrize("capability, driver, precision, red", [
    ("7.5", "580.82.07", "float16", set()), ("9.0", "610.1", "bfloat16", set()), ("12.0", "580.0", "bfloat16", set()),
    ("7.0", "580.82.07", "float16", {"GPU"}), ("7.5", "575.57.08", "float16", {"driver"})])
def test_a_gpu_is_enough_from_7_5_and_driver_580_on(monkeypatch, capability, driver, precision, red):
    answering(monkeypatch, GPU.format(capability, driver) * 2)  # two cards: the first counts
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    checks = machine()
    assert {what for what in ("GPU", "driver", "torch") if not checks[what].enough} == red
    assert checks["GPU"].found == f"Tesla T4, 16.1 GB, compute capability {capability}"
    assert checks["precision"].found.startswith(precision) and checks["precision"].enough


def test_a_card_must_hold_the_profile_and_torch_must_see_it(monkeypatch):
    answering(monkeypatch, GPU.format("7.5", "580.1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine("16gb")["GPU"].enough and not machine("24gb")["GPU"].enough
    assert not machine()["torch"].enough and "make setup" in str(machine()["torch"])


def test_without_a_gpu_the_cpu_must_have_avx2_and_six_gb_are_enough(monkeypatch):
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda path: SimpleNamespace(free=7e9))
    for flags, enough in {"fpu avx2 avx512f": True, "fpu sse4_2": False}.items():
        monkeypatch.setattr(checkup.Path, "read_text", lambda self: f"model name\t: A CPU\nflags\t: {flags}\n")
        checks = machine("embedded")
        assert checks["GPU"][:3] == ("GPU", "none", True) and checks["CPU"].enough is enough and checks["CPU"].found.startswith("A CPU, ")
        assert checks["free disk"][1:3] == ("7 GB", True)
        assert not machine("16gb")["GPU"].enough and not machine("16gb")["free disk"].enough  # such a profile needs a GPU and 25 GB
    answering(monkeypatch, GPU.format("7.5", "580.1"))
    assert machine("embedded")["free disk"][1:3] == ("7 GB", False)  # as the packages of a GPU do
    assert machine("embedded")["CPU"].enough  # and avx2 is not needed


def test_what_is_said_of_the_machine_are_the_rows_without_a_remedy():
    assert [what for what, found, enough in checkup.machine_checks()] == [check.what for check in checkup.machine_rows(PROFILES["embedded"])]


def test_a_row_shows_what_to_do_only_where_it_is_red():
    assert str(checkup.Check("GPU", "none", True, "buy one")) == "ok   GPU        none"
    assert str(checkup.Check("GPU", "none", False, "buy one")).split() == ["RED", "GPU", "none", "->", "buy", "one"]


def test_packages_that_are_missing_make_a_red_row(monkeypatch):
    assert checkup.package_check().enough and "trl 1." in checkup.package_check().found

    def missing():
        raise RuntimeError("run make setup: trl==1 should be here.")

    monkeypatch.setattr(checkup, "compare_pins", missing)
    assert checkup.package_check()[1:] == ("trl==1 should be here.", False, "make setup; on Colab restart the session")


def test_model_and_data_are_red_only_where_their_hub_is_silent(network, monkeypatch, tmp_path):
    there, _ = network
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda model, name: None)
    assert [check.enough for check in checkup.source_checks(PROFILES["embedded"])] == [True, True, True]
    silent = checkup.source_checks(PROFILES["16gb"])
    assert [check.enough for check in silent] == [False, False, True] and "does not answer" in silent[0].found
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda model, name: str(tmp_path / name))
    assert [check.enough for check in checkup.source_checks(PROFILES["16gb"])] == [True, False, True]
    there.add(constants.ENDPOINT)
    model, data, hubs = checkup.source_checks(PROFILES["16gb"])
    assert data.enough and "which answers" in data.found and constants.ENDPOINT in hubs.found


def test_the_bounds_are_those_that_the_packages_declare(monkeypatch):
    table = checkup.upper_bounds()
    assert list(table)[1].startswith("transformers ") and "unsloth wants" in list(table.values())[1]
    requires, changed = importlib.metadata.requires, ["trl<0.9", "transformers<99,>=5"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: changed if name == "unsloth" else requires(name))
    with pytest.raises(RuntimeError, match="run make setup: unsloth wants trl<0.9, and 1"):
        checkup.upper_bounds()
    changed[0] = 'trl<0.9; extra == "old"'  # an extra that nobody asked for
    assert "unsloth wants <99" in list(checkup.upper_bounds().values())[1]


def test_pins_are_compared_and_only_a_cpu_may_leave_some_out(monkeypatch, tmp_path):
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: False)
    file, pytest_here = tmp_path / "requirements.txt", f"pytest=={importlib.metadata.version('pytest')}"
    file.write_text(f"# pinned\n{pytest_here}\ntriton==0.0.1\n")
    assert checkup.compare_pins(file) == ([pytest_here], ["triton==0.0.1"])
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: True)
    with pytest.raises(RuntimeError, match="run make setup: triton==0.0.1 should be here"):
        checkup.compare_pins(file)
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: False)
    file.write_text("pytest==0.1\n")
    with pytest.raises(RuntimeError, match="pytest==0.1 should be here"):
        checkup.compare_pins(file)


def test_a_class_is_asked_beneath_what_unsloth_puts_around_it():
    library = type("Config", (), {"__module__": "trl.config", "__init__": lambda self, kept=1: None})
    around = type("UnslothConfig", (library,), {"__module__": "unsloth_compiled", "__init__": lambda self, **anything: None})
    patched = type("Config", (library,), {"__module__": "trl.config", "__init__": lambda self, **anything: None})  # bears the name
    for c in (library, around, patched):
        assert checkup.takes(c, "kept") and not checkup.takes(c, "gone")


@pytest.fixture
def network(monkeypatch):
    """A network of which only the addresses in the set answer; gives (the set, the addresses that were asked)."""
    there, asked = set(), []

    def answers(url):
        asked.append(url)
        return any(url.startswith(place) for place in there)

    monkeypatch.setattr(checkup, "_answers", answers)
    monkeypatch.setattr(checkup, "_pip_answers", lambda: True)
    return there, asked


def test_the_hub_that_is_configured_is_asked_for_the_profiles_model(network, monkeypatch):
    there, asked = network
    monkeypatch.setattr(constants, "ENDPOINT", "https://inside.example")
    there.add("https://inside.example/unsloth/Qwen2.5-3B-Instruct/")
    sources = checkup.ask_sources(PROFILES["16gb"])
    assert sources == {"a package index": (True, "packages"), "https://inside.example": (True, "model and data"),
                       checkup.MIRROR: (False, ""), checkup.MODELSCOPE: (False, "")}
    assert len(asked) == 3 and not any("huggingface.co" in url for url in asked)
    monkeypatch.setattr(constants, "ENDPOINT", checkup.MIRROR)  # set in time: one row, and it is the one that is used
    assert checkup.ask_sources(PROFILES["16gb"])[checkup.MIRROR] == (False, "model and data")


def test_what_lies_in_folders_is_fetched_from_nowhere(network, tmp_path):
    needed = {source for source, (_, what) in checkup.ask_sources(PROFILES["embedded"]).items() if what}
    assert needed == {"a package index"}
    profile = replace(PROFILES["16gb"], model=str(tmp_path), data="modelscope")
    assert checkup.ask_sources(profile)[checkup.MODELSCOPE] == (False, "data")


def test_a_source_that_never_answers_is_not_waited_for(network, monkeypatch):
    monkeypatch.setattr(checkup, "_answers", lambda url: time.sleep(8))
    start = time.perf_counter()
    assert not any(reached for source, (reached, _) in checkup.ask_sources(PROFILES["16gb"]).items() if source != "a package index")
    assert time.perf_counter() - start < 7


def test_a_dead_address_is_no_answer_and_no_error():
    assert checkup._answers("http://127.0.0.1:9/nothing") is False
