"""A model's folder, checked before anything of it is loaded: it may come from anywhere, and all of it is data.

Each fault is one sentence. Code that a model brings is never run, nor a pickle read, nor a file outside of the folder.
"""

import contextlib
import json
import math
from pathlib import Path

from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from grpo_kit.machine.limits import at_most, no_more_memory
from grpo_kit.machine.memory_here import cache_space
from grpo_kit.machine.spare import available_memory
from .identity import check_safetensors

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
RENDERING = 2  # seconds of the processor for one question, which takes a thousandth of one
RENDERED = 10**9  # bytes for it
EXAMPLE = [{"role": "user", "content": "1 + 1?"}]


def check_model(folder, engine):
    """Check that `folder` holds a whole model that can be loaded, and with `engine` that there is memory for one beside it.

    FileNotFoundError, ValueError or MemoryError, one sentence, if not.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder here: without a GPU, name a downloaded model's folder.")
    if (folder / "adapter_config.json").is_file():
        return  # whose base is loaded with it
    config = read_json(folder / "config.json")
    if (kind := config.get("model_type")) not in CONFIG_MAPPING:
        raise ValueError(f"{folder} is of the type {kind!r}, which transformers does not know: choose another; a model's own code is never run.")
    files = weight_files(folder)
    numbers = sum(math.prod(shape) for file in files for shape in check_safetensors(file).values())
    check_template(folder)
    takes = cache_space() + 3 * 4 * numbers  # the policy's, the engine's and the dense copy, in float32
    if engine and takes > (free := available_memory()):
        raise MemoryError(f"the model and its engine take {takes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
                          "shut down other notebooks' kernels, or set VLLM_CPU_KVCACHE_SPACE lower before Python starts.")


def read_json(file):
    """The dict in a JSON file of a model; FileNotFoundError or ValueError, one sentence."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: download the whole model, with its configuration, tokenizer and safetensors.")
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(file.read_bytes()), dict):
            return found
    raise ValueError(f"{file} is no JSON object, as where a download was cut short: download it again.")


def weight_files(folder):
    """The safetensors files of a model's folder, all there and none elsewhere."""
    if (index := folder / "model.safetensors.index.json").is_file():
        shards = read_json(index).get("weight_map")
        names = sorted(set(shards.values())) if isinstance(shards, dict) and all(isinstance(name, str) for name in shards.values()) else [""]
        if outside := [name for name in names if Path(name).name != name or not name]:
            raise ValueError(f"{index} names {outside[0]!r}, which is no file beside it: download the model again, or another.")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(names)} files of weights, as {missing[0]}: download the rest.")
        return [folder / name for name in names]
    if (file := folder / "model.safetensors").is_file():
        return [file]
    if pickles := [file.name for kind in PICKLES for file in folder.glob(kind)]:
        raise ValueError(f"{folder} holds its weights as a pickle ({pickles[0]}), which could run any code: get them as safetensors.")
    raise FileNotFoundError(f"{folder} holds no weights (model.safetensors): download the whole model.")


def check_template(folder):
    """ValueError unless the folder has a tokenizer, whose chat template, if it has one, turns a question into a prompt at once."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"{folder} holds no tokenizer ({' or '.join(VOCABULARIES)}): download the whole model.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # of many kinds: of files that are missing, cut short, or another tokenizer's
        raise ValueError(f"The tokenizer in {folder} cannot be loaded ({type(error).__name__}): download tokenizer.json again.") from error
    if tokenizer.chat_template:  # without one it is a model that continues texts
        check_prompt(lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), folder)


def check_prompt(render, where):
    """ValueError unless `render`, by the chat template in `where`, turns a question into a prompt that holds it, at once and in little memory."""
    try:
        with at_most(RENDERING), no_more_memory(RENDERED):
            prompt = render(EXAMPLE)
    except Exception as error:  # of any kind: a template is a program
        raise ValueError(f"The chat template in {where} gives no prompt ({type(error).__name__}): take the one of the model's author.") from None
    if EXAMPLE[0]["content"] not in prompt:
        raise ValueError(f"The chat template in {where} leaves out the question: take the one of the model's author.")
