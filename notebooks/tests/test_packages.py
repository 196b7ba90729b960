"""The check at the top of every chapter: what is missing is named, installed on a GPU machine, and nothing is done where all fits."""

import importlib.metadata
import subprocess
import sys

import pytest

from grpo_kit import packages

PYTEST = importlib.metadata.version("pytest")


def test_fits_compares_the_version_and_not_its_local_part(monkeypatch):
    assert packages.fits(f"pytest=={PYTEST}")
    assert not packages.fits("pytest==0.1") and not packages.fits("no-such-package==1.0")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert packages.fits("torch==2.13.0")


def test_a_gpu_machine_installs_what_is_missing_and_only_that(monkeypatch, tmp_path, capsys):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"# a comment\npytest=={PYTEST}\nno-such-package==1.0\n")
    commands = []
    monkeypatch.setattr(packages, "REQUIREMENTS", requirements)
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    packages.install_missing()
    assert commands == [[sys.executable, "-m", "pip", "install", "--quiet", "no-such-package==1.0"]]
    requirements.write_text(f"pytest=={PYTEST}\n")
    packages.install_missing()
    assert len(commands) == 1 and capsys.readouterr().out == "The packages are here.\n" * 2


def test_without_a_gpu_and_without_a_setup_it_stops_with_one_sentence(monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(packages.Stop, match="run `make setup`") as stopped:
        packages.install_missing()
    assert stopped.value._render_traceback_() == [str(stopped.value)]


def test_the_requirements_it_reads_are_the_repositorys():
    assert "unsloth==" in packages.REQUIREMENTS.read_text()
