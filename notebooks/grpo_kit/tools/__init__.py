"""A model that calls tools (chapter 13): a `calculator`, and `calls`: written, read, shown, and answered turn by turn; `busy`: one that has to be asked twice."""

from .busy import Busy, answered
from .calculator import calculate
from .calls import ENDS, STOPS, ask_with_calls, asked_again, shown_calls, shown_solutions, to_dataset, with_calls
