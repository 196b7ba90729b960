"""Which cells of a chapter `make aha` and `make prices` run, and what they say where none is marked."""

import traceback

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from grpo_kit.workshop import cells


@pytest.fixture
def notebook(tmp_path):
    def made(*sources, tags=("training",)):
        marked = [new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
        marked.insert(1, new_code_cell("raise RuntimeError('not a training cell')"))
        nbformat.write(new_notebook(cells=marked), tmp_path / "11.ipynb")
        return tmp_path / "11.ipynb"

    return made


def test_the_tagged_cells_are_run_in_their_order_and_no_others(notebook):
    file = notebook("rate = 2", "def train():\n    return rate + 1", "rate = rate * 10")
    assert cells.run(file, "training")["train"]() == 21


def test_a_cell_without_tags_is_another(notebook):
    assert [number for number, _ in cells.tagged(notebook("1", "2"), "training")] == [0, 2]


def test_of_two_tags_one_is_enough(notebook):
    assert len(cells.tagged(notebook("1", "2"), "other", "training")) == 2 and cells.run(notebook("a = 1"), "training", "other")["a"] == 1


def test_without_a_tagged_cell_it_says_what_to_do(notebook):
    with pytest.raises(ValueError, match="No cell of 11.ipynb has the tag 'prices': give it"):
        cells.tagged(notebook("rate = 2"), "prices")


def test_a_failure_names_its_cell(notebook):
    with pytest.raises(ZeroDivisionError) as raised:
        cells.run(notebook("1", "1 / 0"), "training")
    assert "11.ipynb, cell 2" in "".join(traceback.format_exception(raised.value))
