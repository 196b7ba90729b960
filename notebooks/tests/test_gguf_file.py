"""GGUF files from anywhere: what is damaged or hostile is told in one sentence, before llama.cpp reads it; what is whole is read."""

import struct
import time
from types import SimpleNamespace

import numpy as np
import pytest

from grpo_kit.export import gguf
from grpo_kit.export.gguf import GGUFModel, file_ends
from grpo_kit.export.gguf_file import check_gguf
from grpo_kit.machine.packages import says_why

SAYS = "{% for message in messages %}<|user|>{{ message['content'] }}<|done|>{% endfor %}{% if add_generation_prompt %}<|model|>{% endif %}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + SAYS
CUT, NO_PROMPT = "is cut short, damaged or no GGUF file: get it again.", "gives no prompt ("
pytestmark = pytest.mark.table


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def tensor(name, shape, kind, offset):
    return text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)


def array(kind, items, count=None):
    return struct.pack("<IQ", kind, len(items) if count is None else count) + b"".join(items)


def made(*, magic=b"GGUF", version=3, keys=(), tensors=(), count=None, key_count=None, data=b"\0" * 4096, template=SAYS):
    """The bytes of a GGUF file: two tensors, a template and a vocabulary, and what is asked for beside them."""
    keys = [key("general.architecture", 8, text("llama")), key("tokenizer.chat_template", 8, text(template)),
            key("tokenizer.ggml.tokens", 9, array(8, [text("a"), text("b")])), key("tokenizer.ggml.scores", 9, array(6, [struct.pack("<f", 1)] * 2)), *keys]
    tensors = [tensor("token_embd.weight", [32, 4], 0, 0), tensor("blk.0.attn_q.weight", [256, 1], 12, 512), *tensors]
    head = magic + struct.pack("<IQQ", version, len(tensors) if count is None else count, len(keys) if key_count is None else key_count)
    head += b"".join([*keys, *tensors])
    return head + b"\0" * (-len(head) % 32) + data


HUGE = 2**64 - 1
HOSTILE = {  # what the file holds, and words
    "no bytes": (b"", CUT), "the magic alone": (b"GGUF", CUT), "another format": (b"PK\3\4" + b"x" * 200, CUT), "a pickle": (b"\x80\x04\x95" + b"x" * 99, CUT),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", CUT), "a version of its own": (made(version=4_000_000), CUT),
    "version 1, of other lengths": (made(version=1), CUT), "the wrong way round": (made(version=3 << 24), CUT),
    "a key whose length overflows": (made(keys=[struct.pack("<Q", HUGE) + b"x"]), CUT), "a text whose length overflows": (made(keys=[key("a", 8, struct.pack("<Q", HUGE))]), CUT),
    "a text longer than the file": (made(keys=[key("a", 8, struct.pack("<Q", 10**6))]), CUT), "an array whose count overflows": (made(keys=[key("a", 9, array(8, [], HUGE))]), CUT),
    "an array of 100 GB": (made(keys=[key("a", 9, array(10, [], 10**11 // 8))]), CUT), "numbers whose bytes overflow": (made(keys=[key("a", 9, array(12, [], 2**61 + 1))]), CUT),
    "arrays in arrays in arrays": (made(keys=[key("a", 9, (struct.pack("<IQ", 9, 1)) * 300)]), CUT), "a kind of value that there is not": (made(keys=[key("a", 77, b"\0" * 8)]), CUT),
    "a count of tensors that overflows": (made(count=HUGE), CUT), "a count of keys that overflows": (made(key_count=HUGE), CUT),
    "counts whose sum overflows": (made(count=2**63, key_count=2**63), CUT), "a million keys that are not there": (made(key_count=10**6), CUT),
    "a text that is no UTF-8": (made(keys=[key("a", 8, text(b"\xff\xfe"))]), CUT), "an alignment of 0": (made(keys=[key("general.alignment", 4, struct.pack("<I", 0))]), CUT),
    "an alignment that is a text": (made(keys=[key("general.alignment", 8, text("32"))]), CUT), "a path in a name": (made(tensors=[tensor("../../../etc/passwd", [32], 0, 0)]), CUT),
    "a path from the root": (made(tensors=[tensor("/etc/passwd", [32], 0, 0)]), CUT), "a NUL in a name": (made(tensors=[tensor("a\0b", [32], 0, 0)]), CUT),
    "a name of 10 MB": (made(tensors=[tensor("a" * 10**7, [32], 0, 0)]), CUT), "two tensors of one name": (made(tensors=[tensor("token_embd.weight", [32], 0, 0)]), CUT),
    "a thousand dimensions": (made(tensors=[tensor("a", [1] * 1000, 0, 0)]), CUT), "a shape whose product overflows": (made(tensors=[tensor("a", [2**32, 2**32, 2**32], 0, 0)]), CUT),
    "a tensor of 100 GB": (made(tensors=[tensor("a", [25 * 10**9], 0, 0)]), CUT), "a tensor behind the end": (made(tensors=[tensor("a", [32], 0, 10**6)]), CUT),
    "an offset that overflows": (made(tensors=[tensor("a", [32], 0, HUGE)]), CUT), "a row that is no whole block": (made(tensors=[tensor("a", [100], 12, 0)]), CUT),
    "tensors cut short": (made()[:-4000], CUT), "the header cut short": (made()[:150], CUT), "a tensor's entry cut short": (made(data=b"")[:-40], CUT),
    "a template that never ends": (made(template=LOOP), f"{NO_PROMPT}TimeoutError)"), "a template that reads a file": (made(template="{% include '/etc/passwd' %}" + SAYS), NO_PROMPT),
    "a template that runs Python": (made(template="{{ ''.__class__.__mro__[1].__subclasses__() }}" + SAYS), f"{NO_PROMPT}SecurityError)"),
    "a template that fills the memory": (made(template="{{ 'x' * 9999999999 }}" + SAYS), f"{NO_PROMPT}MemoryError)"),
    "a template that is a number": (made(template="", keys=[key("tokenizer.chat_template", 4, struct.pack("<I", 7))]), NO_PROMPT),
    "a template that is a list": (made(template="", keys=[key("tokenizer.chat_template", 9, array(8, [text("a")]))]), NO_PROMPT),
    "a template of Go's": (made(template="{{ if .System }}{{ end }}"), NO_PROMPT), "a template without the question": (made(template="Hello."), "leaves out the question"),
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        (tmp_path / "x.gguf").write_bytes(content)
        return tmp_path / "x.gguf"

    return write


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_gguf_costs_one_sentence(write, record_property, case):
    content, words = HOSTILE[case]
    file, began = write(content), time.process_time()
    with pytest.raises(ValueError) as raised:
        check_gguf(file)
    record_property("said", sentence := str(raised.value))
    assert time.process_time() - began < 10
    assert words in sentence and str(file) in sentence and "\n" not in sentence and says_why(raised.value, raised.tb)


def test_a_file_cut_anywhere_in_its_header_is_told(write):
    whole = made()
    for length in range(0, len(whole) - 4096 + 512, 7):
        with pytest.raises(ValueError, match="cut short"):
            check_gguf(write(whole[:length]))


def test_a_file_with_a_byte_changed_is_whole_or_told(write):
    """Never another error, and never long."""
    whole, draw = made(), np.random.default_rng(3407)
    for place in range(len(whole) - 4096):
        changed = bytearray(whole)
        changed[place] = draw.integers(256)
        try:
            check_gguf(write(changed))
        except ValueError as error:
            assert "x.gguf" in str(error)


def test_a_whole_file_is_read(write):
    assert check_gguf(write(made(keys=[key("n", 10, struct.pack("<Q", 7))]))) == {
        "general.architecture": "llama", "tokenizer.chat_template": SAYS, "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": 8, "n": 7}
    assert check_gguf(write(made(version=2, template="", keys=[key("general.alignment", 4, struct.pack("<I", 64))]) + b"\0" * 64))["general.alignment"] == 64


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="x.gguf is missing: export it, or get it again."):
        check_gguf(tmp_path / "x.gguf")


def test_llama_cpp_reads_no_file_that_was_not_checked(write, monkeypatch):
    monkeypatch.setattr(gguf, "import_built", lambda name: pytest.fail(f"{name} would have read it"))
    with pytest.raises(ValueError, match="damaged"):
        GGUFModel(write(made(count=HUGE)), 256)


def test_a_file_in_order_that_is_no_model_is_told(write, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Failed to load model from file: x.gguf")

    monkeypatch.setattr(gguf, "import_built", lambda name: SimpleNamespace(Llama=refuse))
    with pytest.raises(ValueError, match="^llama.cpp takes no model from .*x.gguf: export it again, with this llama.cpp.$"):
        GGUFModel(write(made()), 256)


WORDS = ["<s>", "<|end|>", "<|eot|>", "<|user|>", "<|done|>", "<|model|>", "?", "answered", "<pad>", "other"]


class Llama:
    """A vocabulary of `WORDS`, whose first six and <pad> are control tokens, as llama-cpp-python shows one."""

    def __init__(self, template):
        self.metadata, self._model = {"tokenizer.chat_template": template} if template else {}, SimpleNamespace(vocab="vocabulary")

    def token_eos(self):
        return 1

    def n_vocab(self):
        return len(WORDS)

    def tokenize(self, text, add_bos, special):
        assert special and not add_bos
        return [WORDS.index(word) for word in text.decode().replace("<", " <").replace(">", "> ").split()]

    def detokenize(self, tokens):
        return " ".join(WORDS[token] for token in tokens).encode()

    def generate(self, prompt, temp):
        yield from prompt


def library(known, pad=-1):
    return SimpleNamespace(llama_vocab_pad=lambda vocabulary: pad, llama_vocab_is_eog=lambda vocabulary, token: token in known,
                           llama_vocab_is_control=lambda vocabulary, token: token < 6 or token == 8)


@pytest.mark.parametrize("template, known, pad, ends", [
    (SAYS, [1, 2], -1, [1, 2, 4]), (SAYS, [], 8, [1, 4, 8]), (SAYS.replace("<|done|>", "<|end|>"), [1], -1, [1]), (SAYS.replace("<|done|>", "other"), [1], -1, [1]),
    ("", [2], -1, [1, 2])])
def test_every_token_that_ends_a_turn_of_a_file_is_known(template, known, pad, ends):
    assert file_ends(library(known, pad), Llama(template)) == ends


@pytest.mark.parametrize("words, limit, text_, reason, tokens", [
    ("other ? <|done|> other", 9, "other ?", "stop", 3), ("other <|eot|>", 9, "other", "stop", 2), ("other <|end|>", 9, "other", "stop", 2),
    ("other ? other", 2, "other ?", "length", 2), ("other <|done|>", 2, "other", "stop", 2), ("<|model|> other", 9, "<|model|> other", "length", 2)])
def test_a_reply_of_a_file_ends_at_each_of_its_ends(words, limit, text_, reason, tokens):
    model = object.__new__(GGUFModel)
    model.llama = Llama(SAYS)
    model.ends = file_ends(library([1, 2]), model.llama)
    [reply] = model.fast_generate([words], SimpleNamespace(temperature=0.0, max_tokens=limit))
    output = reply.outputs[0]
    assert (output.text, output.finish_reason, len(output.token_ids)) == (text_, reason, tokens)
