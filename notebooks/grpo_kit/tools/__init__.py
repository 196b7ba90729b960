"""A model that calls tools (chapter 13): a `calculator`, and `calls`: written, read, shown, and answered turn by turn; `busy`: one that has
to be asked twice; `stored`: the trainings of `make tools`, and `expected`: what was
expected of them; `loss_colours`: which tokens count."""

from .busy import Busy, answered
from .calculator import calculate
from .calls import ENDS, STOPS, ask_with_calls, asked_again, shown_calls, shown_solutions, to_dataset, tool_tokens, with_calls
from .expected import expectations
from .loss_colours import coloured
from .stored import asked_here, chance, each, stored, told
