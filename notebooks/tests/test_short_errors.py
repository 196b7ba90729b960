"""What a reader sees of an error: its sentence where the kit or a cell raised it, the whole traceback where something broke."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1]
SENTENCE = "ValueError: GRPO_DATA='nowhere' is neither a folder nor one of embedded, huggingface, modelscope."
CELLS = {  # what a cell does, and what is shown; None: a traceback
    "from grpo_kit.machine import Stop, choose_profile\nfrom grpo_kit.data import jsonl_rows, read_rows": "",
    "choose_profile(data='nowhere')": SENTENCE,
    "from datasets import Dataset\nDataset.from_list([{'a': 1}]).map(lambda row: choose_profile(data='nowhere'))": SENTENCE,
    "def own(x):\n    raise ValueError(x)\nown('a sentence.')": "ValueError: a sentence.",
    "raise Stop('Stopped here.')": "Stopped here.",
    "jsonl_rows(3)": None,
    "read_rows({}, 'train')": None,
    "1 / 0": None,
    "import json\njson.loads('x')": None,
    "assert 1 == 2": None,
    "%tb": None,
    "own('b')": "ValueError: b",
    "%tb ": None,
}


@pytest.fixture(scope="module")
def shown():
    """{cell: what is shown of its error}, all run in one kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    environment = os.environ | {"PYTHONPATH": str(NOTEBOOKS)}
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute(env=environment)
    texts = ["\n".join(sum((output.get("traceback", []) for output in cell.outputs), [])) for cell in notebook.cells]
    return dict(zip(CELLS, [re.sub(r"\x1b\[[\d;]*m", "", text) for text in texts]))


@pytest.mark.parametrize("cell", CELLS)
def test_a_sentence_stands_alone_and_what_broke_keeps_its_traceback(shown, cell):
    if CELLS[cell] is None:
        assert "Traceback (most recent call last)" in shown[cell]
    else:
        assert shown[cell] == CELLS[cell]


@pytest.mark.parametrize("statement, shown", [
    ("choose_profile(data='nowhere')", SENTENCE + "\n"), ("choose_profile(data=3 / 0)", None), ("raise ValueError('own words.')", "ValueError: own words.\n")])
def test_a_process_of_make_ends_alike(statement, shown):
    code = f"import grpo_kit.workshop\nfrom grpo_kit.machine import choose_profile\n{statement}"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(NOTEBOOKS)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == shown if shown else "Traceback" in done.stderr
