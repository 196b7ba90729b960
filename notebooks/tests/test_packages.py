"""The check at the top of every chapter: what is missing is named, installed on a GPU machine, and nothing is done where all fits."""

import importlib.metadata
import subprocess
import sys
from types import ModuleType

import pytest

from grpo_kit.machine import packages

PYTEST = importlib.metadata.version("pytest")


def test_fits_compares_the_version_and_not_its_local_part(monkeypatch):
    assert packages.fits(f"pytest=={PYTEST}")
    assert not packages.fits("pytest==0.1") and not packages.fits("no-such-package==1.0")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert packages.fits("torch==2.13.0")


@pytest.fixture
def pip(monkeypatch):
    """A machine with a GPU and a pip that prints what it is told; gives the commands it got."""
    commands, popen = [], subprocess.Popen

    def start(command, **options):
        commands.append(command)
        return popen([sys.executable, "-c", pip.code], **options)

    pip = type("Pip", (list,), {"code": "print('Collecting one\\nDownloading one.whl\\nInstalling collected packages: one')"})()
    pip.commands = commands
    monkeypatch.setattr(packages, "nvidia_gpu", lambda: True)
    monkeypatch.setattr(packages.subprocess, "Popen", start)
    return pip


def requirements(monkeypatch, tmp_path, *lines):
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\n" + "".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(packages, "REQUIREMENTS", file)


def test_a_gpu_machine_installs_what_is_missing_and_only_that_and_shows_it(pip, monkeypatch, tmp_path, capsys):
    requirements(monkeypatch, tmp_path, f"pytest=={PYTEST}", "no-such-package==1.0")
    packages.install_missing()
    assert pip.commands == [[sys.executable, "-m", "pip", "install", "--progress-bar", "off", "no-such-package==1.0"]]
    assert capsys.readouterr().out == "Downloading one.whl\nInstalling collected packages: one\nThe packages are here.\n"
    requirements(monkeypatch, tmp_path, f"pytest=={PYTEST}")
    packages.install_missing()
    assert len(pip.commands) == 1 and capsys.readouterr().out == "The packages are here.\n"


def test_what_the_session_has_loaded_is_left_alone(pip, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "no_such_package", ModuleType("no_such_package"))
    requirements(monkeypatch, tmp_path, "no-such-package==1.0", "pytest==0.1")
    packages.install_missing()
    assert pip.commands == []


def test_a_replaced_package_asks_for_a_restart_and_the_second_time_goes_through(pip, monkeypatch, tmp_path):
    real, changed = importlib.metadata.version, {}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: changed.get(name) or real(name))
    requirements(monkeypatch, tmp_path, "no-such-package==1.0")
    start = packages.subprocess.Popen

    def replacing(command, **options):
        changed.update({"pluggy": "99.0", "no-such-package": "1.0", "nbval": "99.0"})  # pluggy is loaded, nbval is not
        return start(command, **options)

    monkeypatch.setattr(packages.subprocess, "Popen", replacing)
    monkeypatch.delitem(sys.modules, "nbval", raising=False)
    with pytest.raises(packages.Stop, match=r"has loaded \(pluggy\): restart the session and run all cells again"):
        packages.install_missing()
    packages.install_missing()
    assert len(pip.commands) == 1


@pytest.mark.parametrize("prints, says", [("'ERROR: no space left'", "ERROR: no space left"), ("", "no-such-package==1.0: ")])
def test_a_pip_that_fails_stops_with_its_last_words(pip, monkeypatch, tmp_path, prints, says):
    requirements(monkeypatch, tmp_path, "no-such-package==1.0")
    type(pip).code = f"print({prints}); raise SystemExit(1)"
    with pytest.raises(packages.Stop, match="^pip could not install no-such-package==1.0: ") as stopped:
        packages.install_missing()
    assert says in str(stopped.value) and "\n" not in str(stopped.value)


def test_without_a_gpu_and_without_a_setup_it_stops_with_one_sentence(monkeypatch):
    monkeypatch.setattr(packages, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None if name == "unsloth" else name)
    with pytest.raises(packages.Stop, match="run `make setup`") as stopped:
        packages.install_missing()
    assert stopped.value._render_traceback_() == [str(stopped.value)]


def test_the_requirements_it_reads_are_the_repositorys():
    assert "unsloth==" in packages.REQUIREMENTS.read_text()
