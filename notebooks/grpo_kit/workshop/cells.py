"""A chapter's own cells, run outside the chapter: how `aha`, `folds` and `prices` train just what the reader sees."""

import json
from pathlib import Path


def tagged(notebook, tag):
    """[(number, source)] of the notebook's cells with that tag, in order. ValueError where there is none."""
    cells = json.loads(Path(notebook).read_text("utf-8"))["cells"]
    found = [(number, "".join(cell["source"])) for number, cell in enumerate(cells) if tag in cell["metadata"].get("tags", [])]
    if not found:
        raise ValueError(f"No cell of {Path(notebook).name} has the tag {tag!r}: give it to those that a training needs.")
    return found


def run(notebook, tag):
    """{name: value} of what the notebook's cells with that tag define, run in order; a traceback names the cell."""
    names = {"__name__": Path(notebook).stem}
    for number, source in tagged(notebook, tag):
        exec(compile(source, f"{Path(notebook).name}, cell {number}", "exec"), names)
    return names
