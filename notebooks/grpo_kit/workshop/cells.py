"""A chapter's own cells, run outside the chapter: how `aha`, `folds` and `prices` train just what the reader sees."""

import json
import subprocess
import sys
import time
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


def killed(code, when, wait=0.05):
    """Runs `code` in a second Python process and kills it as soon as `when()` is true; returns how it ended, -9 for the kill.

    `when` is asked every `wait` seconds. RuntimeError where the process ends by itself before.
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            while not when():
                if child.poll() is not None:
                    raise RuntimeError(f"The process ended by itself, with {child.returncode}: run its lines in notebooks/ to see why.\n{code}")
                time.sleep(wait)
        finally:
            child.kill()
    return child.returncode
