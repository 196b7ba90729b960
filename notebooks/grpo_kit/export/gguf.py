"""GGUF files: written by Unsloth's exporter, read by their types, and run by llama.cpp."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.special import logsumexp

from grpo_kit.machine.paths import short
from grpo_kit.machine.threads import share
from grpo_kit.rewards.ends import end_tokens
from .gguf_file import check_gguf, prompt_of
from .llama_build import import_built

GGUF_METHODS = ["f16", "q8_0", "q5_k_m", "q4_k_m", "q2_k"]  # of `save_gguf`, from large to small
KNOWN_METHODS = "f32 bf16 f16 q8_0 q6_k q5_k_m q5_k_s q5_0 q5_1 q4_k_m q4_k_s q4_0 q4_1 q3_k_l q3_k_m q3_k_s q2_k".split()


def check_methods(methods):
    """The names as a list; ValueError, one sentence, for none, or one that Unsloth and llama.cpp do not know. A single name is one method."""
    methods = [methods] if isinstance(methods, str) else list(methods)
    unknown = [method for method in methods if method not in KNOWN_METHODS]
    if unknown or not methods:
        raise ValueError(f"{', '.join(map(str, unknown)) or 'Nothing'} is no quantisation that is made here: choose among {', '.join(KNOWN_METHODS)}.")
    return methods


@contextlib.contextmanager
def complete_tokenizer(tokenizer):
    """While it lasts, `tokenizer.save_pretrained` also writes what llama.cpp's converter reads of a SentencePiece tokenizer.

    transformers 5 leaves it out. Without `tokenizer.model` the pieces lose their scores and are merged in another
    order, without `added_tokens_decoder` the tags are plain text or invisible, without `add_bos_token` llama.cpp puts
    a token before each prompt: the file loads, and is wrong. Unsloth does the like on a GPU.
    """
    wrapped = tokenizer.save_pretrained.__name__ == "unsloth_tokenizer_save_pretrained"  # on a GPU: around the original, which it calls
    name = "original_save_pretrained" if wrapped else "save_pretrained"
    plain, model = getattr(tokenizer, name), Path(tokenizer.name_or_path, "tokenizer.model")
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")

    def save_pretrained(folder, *arguments, **options):
        files = plain(folder, *arguments, **options)
        shutil.copy(model, folder)
        path = Path(folder, "tokenizer_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        added = tokenizer.added_tokens_decoder.items()
        config["added_tokens_decoder"] = {str(i): {field: getattr(token, field) for field in fields} for i, token in added}
        config["add_bos_token"] = tokenizer.bos_token_id in tokenizer("x").input_ids
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
        return files

    if not model.is_file():  # not made by SentencePiece: nothing is left out
        yield
        return
    setattr(tokenizer, name, save_pretrained)
    try:
        yield
    finally:
        setattr(tokenizer, name, plain)


class ShortPaths(io.TextIOBase):
    """A stdout that writes ~ for the home folder, so that what Unsloth prints can be shown to others."""

    def __init__(self):
        self.stdout = sys.stdout

    def write(self, text):
        return self.stdout.write(short(text))

    def flush(self):
        self.stdout.flush()


def save_gguf(model, tokenizer, folder, methods):
    """Write a GGUF file for each of `methods` into `folder`, with Unsloth's exporter: {method: path}."""
    methods = check_methods(methods)
    base = Path(model.config._name_or_path).name
    with tempfile.TemporaryDirectory(dir=folder) as work, complete_tokenizer(tokenizer), contextlib.redirect_stdout(ShortPaths()):
        saved = model.save_pretrained_gguf(f"{work}/{base}", tokenizer, quantization_method=methods)
        for file in saved["gguf_files"] if isinstance(saved, dict) else saved:  # a dict on a GPU, a list without
            os.replace(file, Path(folder, Path(file).name))
    return {method: next(Path(folder).glob(f"*.{method.upper()}.gguf")) for method in methods}


def tensor_types(file):
    """Counter of (kind of tensor, type) in a GGUF file: {("attn_q", "Q4_K"): 36, …}; a layer's number is left out."""
    tensors = import_built("gguf").GGUFReader(file).tensors
    return Counter((re.sub(r"^blk\.\d+\.|\.weight$", "", tensor.name), tensor.tensor_type.name) for tensor in tensors)


def file_ends(llama_cpp, llama):
    """The ids of the tokens that end a completion: `end_tokens` of the vocabulary and the template inside a GGUF file, and of what llama.cpp knows."""
    vocabulary, template = llama._model.vocab, llama.metadata.get("tokenizer.chat_template")

    class Tokenizer:
        eos_token_id, pad_token_id = llama.token_eos(), llama_cpp.llama_vocab_pad(vocabulary)
        all_special_ids = [token for token in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_control(vocabulary, token)]

        def apply_chat_template(self, messages, tokenize):
            return prompt_of(template, messages, opened=False)

        def __call__(self, text, add_special_tokens):
            return {"input_ids": llama.tokenize(text.encode(), add_bos=add_special_tokens, special=True)}

    known = [token for token in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocabulary, token)]
    if not template:
        return sorted({llama.token_eos(), *known})
    return [token for token in end_tokens(Tokenizer(), SimpleNamespace(eos_token_id=known)) if token >= 0]  # -1: there is none


class GGUFModel:
    """A GGUF file that llama.cpp runs, asked like the other models: `evaluate(GGUFModel(file, 1024), …)`.

    `context`: tokens of prompt and completion together. It answers greedily, one prompt after another. With `scores`
    it keeps the logits of every token, context x vocabulary floats, for `log_probs`. `ends`: the ids of the tokens that
    end a completion. Close it, or use it in a `with`. FileNotFoundError or ValueError, one sentence, for a file that is no whole model.
    """

    def __init__(self, file, context, scores=False):
        check_gguf(file)
        threads, llama_cpp = share(), import_built("llama_cpp")
        try:
            self.llama = llama_cpp.Llama(
                str(file), n_ctx=context, n_threads=threads, n_threads_batch=threads, n_gpu_layers=-1, logits_all=scores, verbose=False)
        except ValueError:  # of a file whose bytes are in order, and no model that llama.cpp knows
            raise ValueError(f"llama.cpp takes no model from {file}: export it again, with this llama.cpp.") from None
        self.ends = file_ends(llama_cpp, self.llama)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.llama.close()

    def tokenize(self, prompt):
        """llama.cpp's own token ids of a prompt string."""
        return self.llama.tokenize(prompt.encode(), add_bos=False, special=True)

    def fast_generate(self, prompts, sampling_params, lora_request=None, use_tqdm=False):
        """As vLLM's: a list of objects whose `outputs[0]` has text, token_ids and finish_reason."""
        params = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        if any(one.temperature for one in params):
            raise ValueError("A GGUFModel answers greedily: pass SamplingParams(temperature=0.0, …).")
        texts = [prompt if isinstance(prompt, str) else prompt["prompt"] for prompt in prompts]
        return [self._answer(self.tokenize(text), one.max_tokens) for text, one in zip(texts, params)]

    def _answer(self, prompt, max_tokens):
        ids, reason = [], "length"
        for token in self.llama.generate(prompt, temp=0.0):
            ids.append(token)
            if token in self.ends or len(ids) == max_tokens:
                reason = "stop" if token in self.ends else "length"
                break
        text = self.llama.detokenize([token for token in ids if token not in self.ends]).decode("utf-8", errors="replace")
        return SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=ids, finish_reason=reason)])

    def log_probs(self, prompt, ids):
        """The log-probability, in nats, of each of the token ids `ids` after the prompt string: floats, shape (len(ids),).

        Nothing is sampled: llama.cpp reads prompt and ids in one go. Only with `scores=True`.
        """
        tokens = self.tokenize(prompt) + list(ids)
        self.llama.reset()
        self.llama.eval(tokens)
        logits = self.llama.scores[len(tokens) - len(ids) - 1 : len(tokens) - 1].astype(float)
        return logits[np.arange(len(ids)), ids] - logsumexp(logits, axis=1)

    def template(self):
        """The chat template inside the file, as a function of messages that gives the prompt string."""
        llama_cpp = import_built("llama_cpp")
        formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
            template=self.llama.metadata["tokenizer.chat_template"], eos_token="", bos_token="", add_generation_prompt=True)
        return lambda messages: formatter(messages=messages).prompt
