"""Every notebook: its stored form, and its code against the kit, the pinned packages and the libraries' signatures."""

import ast
import importlib
import importlib.util
import inspect
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from grpo_kit.workshop.sync import collapsed

NOTEBOOKS = Path(__file__).resolve().parents[1]
FILES = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
QUICKSTART = FILES[0]
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
    yield cell.cell_type == "code" and len(cell.source.splitlines()) > 25 and not collapsed(cell), "over 25 lines"
    shown = [cell.source, *(o.get("text", "") for o in outputs), *(line for o in outputs for line in o.get("traceback", []))]
    shown += [str(data) for o in outputs for kind, data in o.get("data", {}).items() if not kind.startswith("image/")]
    plain = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(shown))  # without a traceback's colours
    yield from ((re.search(leak, plain), what) for what, leak in LEAKS.items())


def faults(notebook):
    """What is wrong with a stored notebook, a sentence each."""
    cells, opening = notebook.cells, notebook.cells[0].source
    closing = next((cell.source for cell in reversed(cells) if cell.source.startswith("## Summary")), cells[-1].source)  # behind it an appendix
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
    "answered": "in 10 the number that a text answers, in 13 whether a call was answered",
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
    taught = [file for file in (NOTEBOOKS / "grpo_kit").rglob("*.py") if "workshop" not in file.parts]
    kit = [pair for file in taught for pair in definitions(file.read_text("utf-8"))]
    shared = {name for name, _ in kit} - set(DIFFERENT)
    return [pair[0] for pair in definitions(source) if pair[0] in shared and pair not in kit]


# Unsloth's GPU classes need a GPU to be imported, so their signatures are read from the sources.
PARSED = {
    "FastLanguageModel.from_pretrained": "unsloth/models/loader.py FastLanguageModel from_pretrained",
    "FastLanguageModel.get_peft_model": "unsloth/models/llama.py FastLlamaModel get_peft_model",
    "save_lora": "unsloth_zoo/vllm_utils.py save_lora",
    "load_lora": "unsloth_zoo/vllm_utils.py load_lora",
}
# Methods, whose class a call does not name; the second column holds what passes through **kwargs.
METHODS = {
    "fast_generate": ("vllm.LLM.generate", ""),
    "trainer.train": ("transformers.Trainer.train", ""),
    "apply_chat_template": ("transformers.PreTrainedTokenizerBase.apply_chat_template", ""),
    "model.generate": ("transformers.GenerationMixin.generate", "transformers.GenerationConfig().to_dict()"),
}
IMPORTED = ("trl", "peft", "transformers", "vllm")
PASSED_ON = {  # by functions that take **kwargs
    "from_pretrained": "transformers.PreTrainedModel.from_pretrained.__code__.co_varnames",
}


@cache
def looked_up(path):
    """What stands behind `package.module.name`, imported; a call or an attribute may follow."""
    package = path.partition(".")[0]
    return eval(path, {package: importlib.import_module(package)})


@cache
def taken_by(call):
    """The keywords that `call` takes: a key of `PARSED` or `METHODS`, or `package.name`, imported."""
    if call in PARSED:
        path, *inside = PARSED[call].split()
        package, _, file = path.partition("/")
        node = ast.parse((Path(importlib.util.find_spec(package).origin).parent / file).read_text("utf-8"))
        for name in inside:
            node = next(child for child in node.body if getattr(child, "name", None) == name)
        return {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
    path, more = METHODS.get(call) or (call, PASSED_ON.get(call.rpartition(".")[2]))
    function = looked_up(path)
    while str(inspect.signature(function)) == "(*args, **kwargs)":  # a subclass of Unsloth's that hands everything on
        function = function.__base__
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return named | set(looked_up(more) if more else [])


def callees(tree):
    """[(the key for `taken_by`, the call)] of the calls whose keywords can be checked."""
    origin = {}  # of the names imported from the packages
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in IMPORTED:
            importlib.import_module(node.module)
            origin |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            origin |= {a.name: a.name for a in node.names if a.name in IMPORTED}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        first, dot, rest = name.partition(".")
        known = [key for key in PARSED | METHODS if f".{name}".endswith(f".{key}")]
        if known or first in origin:
            yield (known[0] if known else origin[first] + dot + rest), call


def unknown(source):
    """The keywords that `source` passes to the libraries' functions and that those do not take."""
    return [f"{call} takes no {keyword.arg}" for call, node in callees(ast.parse(source))
            for keyword in node.keywords if keyword.arg and keyword.arg not in taken_by(call)]


# The same thing has the same name in every chapter; a variant's name contains it.
NAMES = {
    "choose_profile": "profile", "GRPOConfig": "training_args", "SFTConfig": "training_args", "GRPOTrainer": "trainer",
    "SFTTrainer": "trainer", "SamplingParams": "sampling_params", "load_lora": "lora_request", "make_dataset": "dataset",
    "FastLanguageModel.from_pretrained": "model, tokenizer", "FastLanguageModel.get_peft_model": "model",
}


def misnamed(source):
    """The assignments whose target is not called what `NAMES` says."""
    assigned = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    pairs = [(ast.unparse(node.targets[0]).strip("()"), ast.unparse(node.value.func)) for node in assigned]
    return [f"{target} = {call}(…) should be called {name}" for target, call in pairs for key, name in NAMES.items()
            if f".{call}".endswith(f".{key}") and any(part not in word for part, word in zip(name.split(", "), target.split(", ")))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("check", [faults, drifted, unknown, misnamed])
def test_notebook(file, check):
    assert check(nbformat.read(file, 4) if check is faults else code(file)) == []


def test_a_drifted_definition_is_found():
    source = (NOTEBOOKS / "grpo_kit/rewards/functions.py").read_text("utf-8")
    assert drifted(source) == drifted(re.sub(r'""".*?"""', '"""Other words."""  # and a comment', source, flags=re.S)) == []
    assert drifted(source.replace("2.0 *", "1.0 *")) == ["correctness_reward"]
    assert drifted("PROFILES = {}\nprofile = 1\nFOLDER = 2") == ["PROFILES"]
    assert {"Profile", "make_dataset", "evaluate", "compare", "FOLDER"} <= {name for name, _ in definitions(code(QUICKSTART))}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_keyword_renamed_by_hand_is_named(file):
    tree = ast.parse(code(file))
    for call, node in callees(tree):
        if keyword := next((keyword for keyword in node.keywords if keyword.arg), None):
            keyword.arg, kept = "renamed", keyword.arg
            assert unknown(ast.unparse(tree)) == [f"{call} takes no renamed"]
            keyword.arg = kept


@pytest.mark.parametrize("source, complaint", [
    ("from trl import GRPOConfig\nGRPOConfig(max_prompt_length=1)", "trl.GRPOConfig takes no max_prompt_length"),
    ("from trl import SFTConfig as S\nS(max_seq_length=1)", "trl.SFTConfig takes no max_seq_length"),
    ("import trl\ntrl.GRPOTrainer(tokenizer=1)", "trl.GRPOTrainer takes no tokenizer"),
    ("from transformers import TrainingArguments\nTrainingArguments(evaluation_strategy='no')",
     "transformers.TrainingArguments takes no evaluation_strategy"),
    ("from transformers import AutoModelForCausalLM as A\nA.from_pretrained('x', dtype=1, torch_type=1)",
     "transformers.AutoModelForCausalLM.from_pretrained takes no torch_type"),
    ("from peft import LoraConfig\nLoraConfig(rank=8)", "peft.LoraConfig takes no rank"),
    ("import peft\npeft.get_peft_model(model, config=1)", "peft.get_peft_model takes no config"),
    ("from vllm import SamplingParams\nSamplingParams(max_new_tokens=1)", "vllm.SamplingParams takes no max_new_tokens"),
    ("model.fast_generate(texts, do_sample=True)", "fast_generate takes no do_sample"),
    ("model.generate(**x, temperature=1.0, top=1)", "model.generate takes no top"),
    ("FastLanguageModel.from_pretrained('x', max_rank=8)", "FastLanguageModel.from_pretrained takes no max_rank"),
    ("model = FastLanguageModel.get_peft_model(model, rank=8)", "FastLanguageModel.get_peft_model takes no rank"),
    ("trainer.train(resume=True)", "trainer.train takes no resume"),
    ("model.load_lora(folder='x')", "load_lora takes no folder"),
])
def test_an_unknown_keyword_is_named(source, complaint):
    assert unknown(source) == [complaint]


def test_another_name_for_the_same_thing_is_found():
    assert misnamed("args = GRPOConfig(output_dir='x')") == ["args = GRPOConfig(…) should be called training_args"]
    assert misnamed("m, t = FastLanguageModel.from_pretrained('x')") != []
    assert misnamed("greedy_sampling_params = SamplingParams()\nmodel, tokenizer = FastLanguageModel.from_pretrained('x')") == []


def test_every_chapter_opens_with_the_same_cell():
    cells = [next(cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == "code") for file in FILES[1:]]
    assert len(set(cells)) <= 1 and all("from grpo_kit.machine import" in cell for cell in cells)


def test_the_install_cell_pins_what_requirements_txt_pins():
    lines = set((NOTEBOOKS.parent / "requirements.txt").read_text().splitlines())
    packages = set(re.search(r'PACKAGES = """(.*?)"""', code(QUICKSTART), re.S)[1].split())
    imported = {line for line in lines if re.search(rf"^ *(import|from) {re.escape(line.split('==')[0])}\b", code(QUICKSTART), re.M)}
    assert (packages - lines, imported - packages) == (set(), set())
