"""The packages a chapter needs: checked, and on a GPU machine installed where they are missing (standard library only)."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"


class Stop(Exception):
    """An error that a notebook shows as one sentence, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def fits(requirement):
    """Whether the package is here in the pinned version."""
    name, version = requirement.split("==")
    try:
        return importlib.metadata.version(name).split("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


def install_missing():
    """With an NVIDIA GPU: pip installs what `requirements.txt` pins and is not here. Without: Stop if there was no set-up."""
    if shutil.which("nvidia-smi"):
        pinned = [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
        if missing := [requirement for requirement in pinned if not fits(requirement)]:
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    elif importlib.util.find_spec("unsloth") is None:
        raise Stop("The packages are not installed: run `make setup` in the repository, then open this notebook with `make lab`.")
    print("The packages are here.")
