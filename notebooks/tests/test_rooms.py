"""The kit's rooms: who may import whom, how long a module may be, and what an import must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = Path(__file__).resolve().parents[1]
KIT = NOTEBOOKS / "grpo_kit"
MODULES = sorted(KIT.rglob("*.py"))
FILES = sorted([*NOTEBOOKS.glob("[0-9]*.ipynb"), *NOTEBOOKS.glob("zh/[0-9]*.ipynb")])
BELOW_ALL = {"machine", "model", "data", "rewards", "training", "measure", "sft", "export", "plots", "tools"}
MAY_IMPORT = {  # {room: the rooms it may import}; whatever is not here would be an arrow back up
    "grpo_kit": {"machine", "model"},
    "machine": set(),
    "model": {"machine"},
    "data": {"machine", "rewards"},  # a gold is a number
    "rewards": set(),
    "training": {"data", "rewards"},  # a log is rows in a file; what is printed on the way is scored
    "measure": {"rewards"},
    "sft": {"data"},
    "tools": {"data", "rewards", "measure"},
    "export": {"machine", "model", "rewards"},  # which tokens end a completion
    "plots": {"rewards", "training", "measure"},
    "workshop": BELOW_ALL,
}


def room(path):
    """The room of a kit's file: its first folder, its own name where it stands in none, "grpo_kit" for what prepares all."""
    first = path.relative_to(KIT).parts[0]
    return "grpo_kit" if first == "__init__.py" else first.removesuffix(".py")


def imported(source, package=()):
    """The rooms that a text imports, also inside functions; `package`: the parts of the package that it stands in."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            origin = [*above, *(node.module.split(".") if node.module else [])]
            names = [".".join([*origin, alias.name]) for alias in node.names]
        inside = [name.split(".")[1] for name in names if name.startswith("grpo_kit.")]
        rooms |= {"model" if name == "FastLanguageModel" else name for name in inside}
    return rooms


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(KIT)))
def test_arrows_run_downward_only(file):
    package = ("grpo_kit", *file.relative_to(KIT).parent.parts)
    assert imported(file.read_text("utf-8"), package) - MAY_IMPORT[room(file)] - {room(file)} == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(NOTEBOOKS)))
def test_chapters_import_rooms_and_not_the_workshop(file):
    cells = [cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    code = "\n".join(TransformerManager().transform_cell(cell) for cell in cells)
    assert imported(code) - BELOW_ALL == set()


def test_an_arrow_back_up_is_found_wherever_it_stands():
    hidden = "def f():\n    from ..workshop.bench import start\n    from . import gguf"
    assert imported(hidden, ("grpo_kit", "export")) == {"workshop", "export"}
    assert imported("import grpo_kit.plots\nfrom grpo_kit import FastLanguageModel, data") == {"plots", "model", "data"}


def test_no_module_is_longer_than_250_lines():
    lines = {str(file.relative_to(KIT)): len(file.read_text("utf-8").splitlines()) for file in MODULES}
    assert {name: count for name, count in lines.items() if count > 250} == {}


@pytest.mark.parametrize("file", [file for file in MODULES if file.name == "__init__.py" and file.parent != KIT],
                         ids=lambda file: file.parent.name)
def test_the_door_of_a_room_holds_its_docstring_and_names_only(file):
    tree = ast.parse(file.read_text("utf-8"))
    assert ast.get_docstring(tree) and all(isinstance(node, ast.ImportFrom) and node.level == 1 for node in tree.body[1:])


@pytest.mark.parametrize("package", ["grpo_kit", "grpo_kit.machine", "grpo_kit.rewards"])
def test_the_standard_library_is_enough_for(package):
    """-S hides every installed package, and torch, unsloth and vllm among them: chapters import these before they install."""
    code = f"import {package}, sys; print({{'torch', 'unsloth', 'vllm'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=NOTEBOOKS, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
