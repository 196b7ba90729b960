"""The quickstart's shape, and its collapsed cell: what `make sync` writes now, whole, and nothing that a visible cell shows."""

import ast
import json
import sys

import nbformat
import pytest

from grpo_kit.workshop import sync

CELLS = [cell for cell in nbformat.read(sync.NOTEBOOK, 4).cells if cell.cell_type == "code"]
VISIBLE = [cell for cell in CELLS if not sync.collapsed(cell)]
HIDDEN = [cell for cell in CELLS if sync.collapsed(cell)]


def test_the_collapsed_cell_is_what_the_kit_says_today():
    assert len(HIDDEN) == 1
    assert HIDDEN[0].source == sync.generate(), "run `make sync`, then the notebook"


def test_it_is_collapsed_in_jupyterlab_and_on_colab():
    assert HIDDEN[0].metadata["jupyter"] == {"source_hidden": True} and HIDDEN[0].metadata["cellView"] == "form"
    assert HIDDEN[0].source.startswith("#@title ")


def test_what_a_reader_sees_is_short_and_the_model_answers_early():
    lengths = [len(cell.source.splitlines()) for cell in VISIBLE]
    assert len(lengths) <= 20 and sum(lengths) <= 220 and max(lengths) <= 15
    answers = [number for number, cell in enumerate(VISIBLE, start=1) if "fast_generate" in cell.source]
    assert answers[0] <= 5


def test_what_the_visible_cells_write_out_is_theirs_and_stands_in_no_second_place():
    written = {name for cell in VISIBLE for node in ast.parse(cell.source).body for name in sync.names_of(node)}
    assert {name for _, names in sync.SHOWN for name in names.split()} <= written
    assert not written & {name for _, names in [*sync.BEFORE, *sync.AFTER] for name in names.split()}


def test_everything_that_the_cells_read_is_there():
    """Each name is defined, imported or assigned by an earlier cell, or by a cell before the function that reads it is called."""
    known = set()
    for cell in CELLS:
        tree = ast.parse(cell.source)
        known |= {name for node in ast.walk(tree) for name in sync.names_of(node)}
        known |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        known |= {"SYSTEM_PROMPT", "format_reward", "correctness_reward"} if cell in HIDDEN else set()
        assert sync.free_names(tree) <= known


def packages(source):
    """The packages that a text imports anywhere."""
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {(getattr(node, "module", None) or node.names[0].name).partition(".")[0] for node in imported}


def test_the_packages_are_installed_before_anything_imports_them():
    above, _, below = HIDDEN[0].source.partition(f"\n{sync.INSTALL}\n")
    assert packages(above) - {"grpo_kit"} <= sys.stdlib_module_names
    assert "pandas" in packages(below)
    at_once = "\n".join(line for line in below.splitlines() if line.startswith(("import ", "from ")))  # others when their function is called
    assert not packages(at_once) & {"unsloth", "vllm", "trl", "transformers", "peft"}  # Unsloth is the first of them, and waits for the profile


def test_a_name_that_the_notebook_would_not_have_is_found():
    with pytest.raises(ValueError, match="grpo_kit.rewards.answers.parse_number reads plain_digits: add it"):
        sync.generate(before=[], after=[("grpo_kit.rewards.answers", "parse_number")], shown=[])
    with pytest.raises(KeyError, match="no_such_name"):
        sync.generate(after=[("grpo_kit.rewards.answers", "no_such_name")])


def test_a_definition_comes_with_its_comments_and_its_decorators():
    source = "import os\n\n# why\n@cache\ndef f(a):\n    return os.sep + a + B\n\n\n# both\nB, C = 1, 2  # inline\n"
    [(text, reads)] = sync.definitions(source, ["f"])
    assert text == "# why\n@cache\ndef f(a):\n    return os.sep + a + B" and reads == {"cache", "os", "B"}
    assert [text for text, _ in sync.definitions(source, ["C", "B"])] == ["# both\nB, C = 1, 2  # inline"] * 2


def test_imports_are_those_needed_merged_and_sorted():
    source = "import a.b\nimport c as d, e\nfrom f import x, y as z, unused\nfrom grpo_kit.rewards.answers import TAGS\nfrom .near import far"
    found = sync.imports(source, {"a", "d", "x", "z", "TAGS", "far"}) | sync.imports("from f import w", {"w"})
    assert sync.import_lines(found) == ["import a.b", "import c as d", "from f import w, x, y as z"]


def test_it_writes_the_cell_and_nothing_else(monkeypatch, tmp_path, capsys):
    file = tmp_path / "00_quickstart.ipynb"
    notebook = json.loads(sync.NOTEBOOK.read_text("utf-8"))
    [cell] = [cell for cell in notebook["cells"] if sync.collapsed(cell)]
    cell["source"] = ["old"]
    file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    monkeypatch.setattr(sync, "NOTEBOOK", file)
    sync.main()
    assert "the collapsed cell has" in capsys.readouterr().out
    written = json.loads(file.read_text("utf-8"))
    [now] = [cell for cell in written["cells"] if sync.collapsed(cell)]
    assert "".join(now["source"]) == sync.generate()
    assert [cell for cell in written["cells"] if not sync.collapsed(cell)] == [c for c in notebook["cells"] if not sync.collapsed(c)]
    sync.main()
    assert "up to date" in capsys.readouterr().out and [path.name for path in tmp_path.iterdir()] == [file.name]
