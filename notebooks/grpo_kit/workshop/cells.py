"""A chapter's own cells, run outside the chapter: how `aha`, `folds` and `prices` train just what the reader sees."""

import json
from pathlib import Path


def tagged(notebook, *tags):
    """[(number, source)] of the notebook's cells with one of those tags, in order. ValueError where there is none."""
    cells = json.loads(Path(notebook).read_text("utf-8"))["cells"]
    found = [(number, "".join(cell["source"])) for number, cell in enumerate(cells) if {*tags} & {*cell["metadata"].get("tags", [])}]
    if not found:
        raise ValueError(f"No cell of {Path(notebook).name} has the tag {' or '.join(map(repr, tags))}: give it to those that a training needs.")
    return found


def run(notebook, *tags):
    """{name: value} of what the notebook's cells with one of those tags define, run in order; a traceback names the cell."""
    names = {"__name__": Path(notebook).stem}
    for number, source in tagged(notebook, *tags):
        exec(compile(source, f"{Path(notebook).name}, cell {number}", "exec"), names)
    return names
