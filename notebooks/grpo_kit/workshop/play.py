"""papermill's command line for `make quickstart` and `make aha`: where a cell fails it ends with what the cell showed, and no more."""

import sys

from papermill.cli import papermill
from papermill.exceptions import PapermillExecutionError

if __name__ == "__main__":
    try:
        papermill()
    except PapermillExecutionError as error:
        sys.exit(f"Cell {error.exec_count} stopped: " + "\n".join(error.traceback))
