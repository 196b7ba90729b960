"""A GGUF file's header, read and checked before llama.cpp reads it: the file may come from anywhere, and all of it is data.

Its layout: "GGUF", the version, how many tensors and keys; the keys with their values; of each tensor its name, shape, type and
place; the tensors. Every length in it is a claim, which the file's own length refutes or not.
"""

import math
import mmap
import re
import struct
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

from grpo_kit.model.folder import check_prompt

FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}  # of the keys' values
STRING, ARRAY = 8, 9
# Of the tensors' types: numbers in a block, and its bytes. Others, llama.cpp's newest, are left to it.
TENSOR_BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144),
          13: (256, 176), 14: (256, 210), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2)}
NAME = re.compile("[A-Za-z0-9_.-]{1,63}")  # of a tensor: no path, and no longer than llama.cpp takes


class Damaged(ValueError):
    """What the bytes claim is not so."""


class _Bytes:
    """The file's bytes, read one after another and never beyond their end."""

    def __init__(self, held):
        self.held, self.at = held, 0

    def take(self, count):
        if count > len(self.held) - self.at:
            raise Damaged
        self.at += count
        return self.held[self.at - count : self.at]

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self):
        return self.take(self.number("<Q")).decode()

    def value(self, kind, inside=False):
        """A key's value; of an array of numbers only that it is there, because nothing here needs one."""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(FORMATS[kind])
        kind, count = self.number("<I"), self.number("<Q")
        if inside or kind == ARRAY:
            raise Damaged
        if kind != STRING:
            return len(self.take(count * struct.calcsize(FORMATS[kind])))
        if count > len(self.held):  # a text takes eight bytes at least
            raise Damaged
        return [self.text() for _ in range(count)]


def read_header(held):
    """({key: value}, {tensor: (shape, type, offset)}, where the tensors begin) of a GGUF file's bytes. `Damaged` if a claim is false."""
    data = _Bytes(held)
    if data.take(4) != b"GGUF" or data.number("<I") not in (2, 3):
        raise Damaged
    tensors, keys = data.number("<Q"), data.number("<Q")
    if tensors + keys > len(held):
        raise Damaged
    values = {}
    for _ in range(keys):
        key = data.text()
        values[key] = data.value(data.number("<I"))
    found = {}
    for _ in range(tensors):
        name, dimensions = data.text(), data.number("<I")
        if not NAME.fullmatch(name) or name in found or dimensions > 4:
            raise Damaged
        found[name] = [data.number("<Q") for _ in range(dimensions)], data.number("<I"), data.number("<Q")
    align = values.get("general.alignment", 32)
    if type(align) is not int or align < 1:
        raise Damaged
    return values, found, -(-data.at // align) * align


def check_gguf(file):
    """{key: value} of the GGUF file's header, which is whole, as the tensors are, and whose chat template, if it has one, gives a prompt.

    FileNotFoundError or ValueError, one sentence, if not. Arrays of numbers are given as their length in bytes.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is missing: export it, or get it again.")
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as held:
            values, tensors, begin = read_header(held)
            for shape, kind, offset in tensors.values():
                block, size = TENSOR_BLOCKS.get(kind, (1, 0))
                if math.prod(shape) % block or begin + offset + math.prod(shape) // block * size > len(held):
                    raise Damaged
    except (ValueError, KeyError):  # Damaged, a text that is no UTF-8, an unknown kind of value, a file of no bytes
        raise ValueError(f"{file} is cut short, damaged or no GGUF file: get it again.") from None
    if template := values.get("tokenizer.chat_template"):
        check_prompt(lambda messages: prompt_of(template, messages), file)
    return values


def prompt_of(template, messages, opened=True):
    """The prompt that a Jinja `template` makes of `messages`, in transformers' sandbox; with `opened` the model's turn is opened."""
    [prompt], _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=opened, bos_token="", eos_token="")
    return prompt
