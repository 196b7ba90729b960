"""What to ask (chapters 04 and 08): rows from any source, checked; the embedded word problems; instructions."""

from .instructions import is_chinese, read_instructions, read_jsonl, shown_solution, split_rows, to_messages, write_jsonl
from .rows import SYSTEM_PROMPT, SYSTEM_PROMPT_ZH, checked_row, jsonl_rows, make_dataset, modelscope_rows, read_rows
