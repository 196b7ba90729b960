"""The packages a chapter needs: checked, and on a GPU machine installed where they are missing (standard library only)."""

import dis
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[3] / "requirements.txt"


class Stop(Exception):
    """An error that a notebook shows as one sentence, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def says_why(error, trace):
    """Whether this package, or a notebook's cell, raised the error itself: then its words say what is wrong.

    Not so where something broke without a `raise`, in an assertion, or in another package.
    """
    while trace.tb_next:
        trace = trace.tb_next
    ours = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("grpo_kit", "__main__")
    raised = trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return ours and raised and not isinstance(error, AssertionError)


def show_error(shell, kind, error, trace, tb_offset=None):
    """IPython's handler of errors: one that `says_why` is shown as its words alone, any other as always. `%tb` shows all."""
    short = says_why(error, trace) and not hasattr(error, "_render_traceback_")
    if short:
        error._render_traceback_ = lambda: [f"{kind.__name__}: {error}"]
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    if short:
        del error._render_traceback_


def short_errors():
    """In a notebook: errors are shown by `show_error` from here on."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        shell.set_custom_exc((Exception,), show_error)


def fits(requirement):
    """Whether the package is here in the pinned version."""
    name, version = requirement.split("==")
    try:
        return importlib.metadata.version(name).split("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


def nvidia_gpu():
    """Whether nvidia-smi lists a GPU. One that is here and fails (a driver missing or half updated) counts as none."""
    command = shutil.which("nvidia-smi")
    try:
        listed = command and subprocess.run([command, "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(listed and listed.returncode == 0 and re.search("^GPU [0-9]", listed.stdout, re.MULTILINE))


def install(pinned):
    """pip installs those of `pinned` that are not here, and none that this session has loaded (as Colab does pandas).

    It shows what pip does. Stop where pip fails, or replaced something loaded: the session would go on with the old one.
    """
    needed = [line for line in pinned if not fits(line) and line.split("==")[0].replace("-", "_") not in sys.modules]
    if not needed:
        return
    owners = importlib.metadata.packages_distributions()
    loaded = {name: importlib.metadata.version(name) for module in owners.keys() & sys.modules.keys() for name in owners[module]}
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", *needed]
    pip, said = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), ""
    for line in pip.stdout:
        said = line.strip() or said
        if said.startswith(("Downloading", "Building", "Installing")):
            print(said[:100], flush=True)
    if pip.wait():
        raise Stop(f"pip could not install {' '.join(needed)}: {said}")
    if replaced := sorted(name for name, version in loaded.items() if not fits(f"{name}=={version.split('+')[0]}")):
        raise Stop(f"pip replaced what this session has loaded ({', '.join(replaced)}): restart the session and run all cells again.")


def provide(pinned):
    """With an NVIDIA GPU: pip installs those of `pinned` that are not here. Without: Stop if repository or set-up is missing."""
    if nvidia_gpu():
        install(pinned)
    elif importlib.util.find_spec("grpo_kit") is None:
        raise Stop("This machine has no GPU and this notebook stands alone: clone its repository and run `make quickstart` there.")
    elif importlib.util.find_spec("unsloth") is None:
        raise Stop("The packages are not installed: run `make setup` in the repository, then open this notebook with `make lab`.")
    else:
        import grpo_kit  # noqa: F401  before torch: a busy neighbour then costs a training no more than the core that it takes
    print("The packages are here.")


def install_missing():
    """`provide` what `requirements.txt` pins: the first cell of every chapter."""
    provide([line for line in REQUIREMENTS.read_text().splitlines() if "==" in line])
