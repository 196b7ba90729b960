"""Every notebook: its stored form, and its code against the kit, the pinned packages and the libraries' signatures."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = Path(__file__).resolve().parents[1]
QUICKSTART = NOTEBOOKS / "00_quickstart.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
LEAKS = {
    "a machine's path": r"(?<![\w.~-])/(work|root|home|tmp)/",
    "a token": r"\b(hf_\w{20,}|gh[ps]_\w{30,}|sk-[\w-]{20,}|ms-[0-9a-f]{8}-[0-9a-f-]{20,})",
    "a package index": r"index-url|find-links|/simple\b|pythonhosted\.org|Looking in (indexes|links)|//(10|192\.168)\.\d",
}


@cache
def code(file):
    """The notebook's code as one Python text, its magics made into calls."""
    cells = [cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    return "\n".join(TransformerManager().transform_cell(source) for source in cells)


def cell_faults(cell):
    tags, outputs = cell.metadata.get("tags", []), cell.get("outputs", [])
    yield not outputs and "nbval-check-output" in tags, "tagged nbval-check-output, without an output"
    yield "raises-exception" not in tags and any(o.output_type == "error" for o in outputs), "an error"
    yield any(o.get("name") == "stderr" for o in outputs), "stderr"
    yield any(WIDGET in o.get("data", {}) for o in outputs), "a widget, which shows nothing without its kernel"
    yield cell.cell_type == "code" and len(cell.source.splitlines()) > 25, "over 25 lines"
    shown = [cell.source, *(o.get("text", "") for o in outputs), *(line for o in outputs for line in o.get("traceback", []))]
    shown += [str(data) for o in outputs for kind, data in o.get("data", {}).items() if not kind.startswith("image/")]
    plain = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(shown))  # without a traceback's colours
    yield from ((re.search(leak, plain), what) for what, leak in LEAKS.items())


def faults(notebook):
    """What is wrong with a stored notebook, a sentence each."""
    cells, opening, closing = notebook.cells, notebook.cells[0].source, notebook.cells[-1].source
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    whole = {
        f"not one run from top to bottom in a fresh kernel: {counts}": counts == list(range(1, len(counts) + 1)),
        "no cell is tagged nbval-check-output": any("nbval-check-output" in c.metadata.get("tags", []) for c in cells),
        "no title, or not what you will have": re.match(r"# .+\n.*what you will have", opening, re.S | re.I),
        "no table of hardware and time": re.search(r"\|.*GPU.*\b(second|minute|hour)s?\b", opening, re.S),
        "no summary and exercises": re.search(r"## Summary.*can go wrong.*Exercises.*\n1\. .*\n2\. ", closing, re.S),
        "2 MB or more": len(nbformat.writes(notebook)) < 2_000_000,
        "a machine's path in the metadata": not re.search(LEAKS["a machine's path"], str(notebook.metadata)),
    }
    found = [f"cell {number}: {what}" for number, cell in enumerate(cells) for fault, what in cell_faults(cell) if fault]
    return found + [what for what, fine in whole.items() if not fine]


@pytest.mark.parametrize("cell, change, fault", [
    (2, {"execution_count": None}, "not one run from top to bottom"),
    (1, {"outputs": []}, "cell 1: tagged"),
    (1, {"metadata": {}}, "no cell is tagged"),
    (2, {"outputs": [new_output("error", ename="E", evalue="e", traceback=["e"])]}, "cell 2: an error"),
    (2, {"outputs": [new_output("stream", name="stderr", text="W")]}, "cell 2: stderr"),
    (2, {"outputs": [new_output("display_data", data={WIDGET: {}})]}, "cell 2: a widget"),
    (2, {"outputs": [new_output("display_data", data={"text/html": "<td>/tmp/x"})]}, "cell 2: a machine's path"),
    (2, {"source": "Path('/root/x')"}, "cell 2: a machine's path"),
    (2, {"source": f"token='hf_{'a1' * 15}'"}, "cell 2: a token"),
    (2, {"outputs": [new_output("stream", text="Looking in indexes: https://mirror")]}, "cell 2: a package index"),
    (2, {"source": "1\n" * 26}, "cell 2: over 25 lines"),
    (2, {"source": "#" * 2_000_000}, "2 MB"),
    (0, {"source": "A title, what you will have; | a GPU | 5 minutes"}, "no title"),
    (0, {"source": "# A title\n\nWhat you will have: | a GPU |"}, "no table of hardware and time"),
    (3, {"source": "## Summary\n\nThat was it."}, "no summary"),
])
def test_each_fault_of_the_stored_form_is_found(cell, change, fault):
    opening = "# A title\n\n**What you will have**: it.\n\n| a GPU | 5 minutes |\n|---|---|\n"
    closing = "## Summary\n\n**What can go wrong**\n\n**Exercises**\n\n1. One.\n2. Two."
    tagged = new_code_cell("1", execution_count=1, metadata={"tags": ["nbval-check-output"]}, outputs=[new_output("stream")])
    cells = [new_markdown_cell(opening), tagged, new_code_cell("2", execution_count=2), new_markdown_cell(closing)]
    assert faults(new_notebook(cells=cells)) == []
    cells[cell].update(change)
    assert any(sentence.startswith(fault) for sentence in faults(new_notebook(cells=cells)))


DIFFERENT = {
    "FOLDER": "a notebook has no __file__, so it names the folder from where it stands",
    "PACKAGES": "the packages to install, and in grpo_kit.bench those whose versions it prints",
}


def definitions(source):
    """[(name, AST without docstrings)] of the functions, classes and CONSTANTS that a text defines."""
    found = []
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        for inner in ast.walk(node):
            if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner):
                del inner.body[0]
        name = getattr(node, "name", getattr(target, "id", ""))
        found += [(name, ast.dump(node))] if hasattr(node, "name") or name.isupper() else []
    return found


def drifted(source):
    """The names that `source` and the kit define differently."""
    kit = [pair for file in (NOTEBOOKS / "grpo_kit").glob("*.py") for pair in definitions(file.read_text("utf-8"))]
    shared = {name for name, _ in kit} - set(DIFFERENT)
    return [pair[0] for pair in definitions(source) if pair[0] in shared and pair not in kit]


# Unsloth's GPU classes need a GPU to be imported, so the signatures are read from the sources.
TAKEN_BY = {
    "FastLanguageModel.from_pretrained": ["unsloth/models/loader.py FastLanguageModel from_pretrained"],
    "FastLanguageModel.get_peft_model": ["unsloth/models/llama.py FastLlamaModel get_peft_model"],
    "GRPOConfig": ["trl/trainer/grpo_config.py GRPOConfig", "trl/trainer/base_config.py _BaseConfig",
                   "transformers/training_args.py TrainingArguments"],
    "GRPOTrainer": ["trl/trainer/grpo_trainer.py GRPOTrainer __init__"],
    "SamplingParams": ["vllm/sampling_params.py SamplingParams"],
    "fast_generate": ["vllm/entrypoints/llm.py LLM generate"],
}


@cache
def taken_by(call):
    """The parameters of the functions, or the fields of the classes, behind `call`."""
    names = {None}  # what ** passes
    for place in TAKEN_BY[call]:
        path, *inside = place.split()
        package, _, file = path.partition("/")
        node = ast.parse((Path(importlib.util.find_spec(package).origin).parent / file).read_text("utf-8"))
        for name in inside:
            node = next(child for child in node.body if getattr(child, "name", None) == name)
        arguments = [*node.args.args, *node.args.kwonlyargs] if isinstance(node, ast.FunctionDef) else []
        names |= {a.arg for a in arguments} | {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
    return names


def unknown(source):
    """The keywords that `source` passes to the calls of `TAKEN_BY` and that they do not take."""
    calls = [(ast.unparse(node.func), node.keywords) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [f"{call} takes no {keyword.arg}" for name, keywords in calls for call in TAKEN_BY
            if f".{name}".endswith(f".{call}") for keyword in keywords if keyword.arg not in taken_by(call)]


@pytest.mark.parametrize("file", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda file: file.name)
@pytest.mark.parametrize("check", [faults, drifted, unknown])
def test_notebook(file, check):
    assert check(nbformat.read(file, 4) if check is faults else code(file)) == []


def test_a_drifted_definition_is_found():
    source = (NOTEBOOKS / "grpo_kit/rewards.py").read_text("utf-8")
    assert drifted(source) == drifted(re.sub(r'""".*?"""', '"""Other words."""  # and a comment', source, flags=re.S)) == []
    assert drifted(source.replace("2.0 *", "1.0 *")) == ["correctness_reward"]
    assert drifted("PROFILES = {}\nprofile = 1\nFOLDER = 2") == ["PROFILES"]
    assert {"Profile", "make_dataset", "evaluate", "compare", *DIFFERENT} <= {name for name, _ in definitions(code(QUICKSTART))}


@pytest.mark.parametrize("call", TAKEN_BY)
def test_an_unknown_keyword_is_named(call):
    renamed, count = re.subn(rf"({re.escape(call)}\([^()]*?)\w+=", r"\1renamed=", code(QUICKSTART), count=1)
    assert count == 1 and f"{call} takes no renamed" in unknown(renamed)


def test_the_install_cell_pins_what_requirements_txt_pins():
    lines = set((NOTEBOOKS.parent / "requirements.txt").read_text().splitlines())
    packages = set(re.search(r'PACKAGES = """(.*?)"""', code(QUICKSTART), re.S)[1].split())
    imported = {line for line in lines if re.search(rf"^ *(import|from) {re.escape(line.split('==')[0])}\b", code(QUICKSTART), re.M)}
    assert (packages - lines, imported - packages) == (set(), set())
