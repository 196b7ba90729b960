"""An error that says why, in a process that `make` started: one sentence, as in a notebook; any other keeps its traceback."""

import sys

from grpo_kit.machine.packages import says_why


def _show(kind, error, trace):
    if says_why(error, trace):
        print(f"{kind.__name__}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _show
