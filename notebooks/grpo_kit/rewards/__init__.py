"""What pays (chapter 04): `answers` reads a number from a text, `functions` are what a trainer takes, `classic` a lesson;
`ends` says which tokens end a completion.

Standard library only: importing it loads neither torch, unsloth nor vllm.
"""

from .answers import TAGS, gold_number, last_number, parse_number, plain_digits
from .ends import end_tokens
from .functions import completion_text, correctness_reward, format_reward, integer_reward, tag_reward, zero_truncated
