"""A model that calls tools (chapter 13): a `calculator`, and `calls`: written, read, shown, and answered turn by turn."""

from .calculator import calculate
from .calls import ENDS, ask_with_calls, shown_calls, shown_solutions, to_dataset, with_calls
