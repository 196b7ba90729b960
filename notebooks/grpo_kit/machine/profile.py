"""What this machine runs: the one place that asks for hardware.

The same notebook cells run everywhere; what differs between machines is a field of the profile.
Three environment variables override the choice: GRPO_PROFILE (a name of `PROFILES`), GRPO_MODEL (a hub
id or a folder) and GRPO_DATA ("embedded", "huggingface", "modelscope" or a folder of jsonl files). `choose_profile(max_steps=50)`
changes any other field.
"""

import importlib.util
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from .packages import Stop


@dataclass(frozen=True)
class Profile:
    """Sizes are tokens; `gpu_memory_utilization` is vLLM's share of the memory; a batch counts completions."""

    name: str = "16gb"
    model: str = "unsloth/Qwen2.5-3B-Instruct"
    data: str = "huggingface"
    adapter: str = "grpo_saved_lora"  # the trained adapter that later chapters load: yours, or the repository's
    splits: tuple = ("test",)  # the test sets, asked before and after
    max_seq_length: int = 1024
    max_prompt_length: int = 256
    max_completion_length: int = 640
    lora_rank: int = 8
    gpu_memory_utilization: float = 0.6
    standby: bool = False  # True: vLLM lends its memory to the training, and Unsloth chooses its share
    learning_rate: float = 5e-6
    max_steps: int = 250
    num_generations: int = 4  # completions a prompt: the group of GRPO
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 4
    reason: str = ""


SOURCES = ["embedded", "huggingface", "modelscope"]  # of problems; or a folder
GPU = Profile()
PROFILES = {
    "embedded": replace(
        GPU, name="embedded", model="../data/tiny-model", data="embedded", adapter="../grpo_saved_lora", splits=("test", "held_out"),
        max_seq_length=384, max_prompt_length=192, max_completion_length=96, lora_rank=16, learning_rate=1.5e-3,
        max_steps=100, num_generations=8, per_device_train_batch_size=128, gradient_accumulation_steps=1),
    # A real model for machines without a GPU; where it is loaded there, grpo_kit.model.small_real_model fetches it, once.
    "laptop": replace(
        GPU, name="laptop", data="embedded",
        model=os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "grpo-notebooks/SmolLM2-135M-Instruct"),
        splits=("test", "held_out"), max_seq_length=512, max_prompt_length=256, max_completion_length=192, lora_rank=16,
        learning_rate=2e-4, max_steps=60, num_generations=8, per_device_train_batch_size=32, gradient_accumulation_steps=1),
    "6gb": replace(GPU, name="6gb", model="unsloth/Qwen2.5-0.5B-Instruct", gpu_memory_utilization=0.4),
    "8gb": replace(GPU, name="8gb", model="unsloth/Qwen2.5-1.5B-Instruct", gpu_memory_utilization=0.5),
    "16gb": GPU,
    "24gb": replace(GPU, name="24gb", lora_rank=32, num_generations=8, per_device_train_batch_size=8),
    "40gb": replace(GPU, name="40gb", lora_rank=32, num_generations=8, per_device_train_batch_size=16, gradient_accumulation_steps=2),
    "80gb": replace(GPU, name="80gb", lora_rank=64, num_generations=8, per_device_train_batch_size=32, gradient_accumulation_steps=1),
}


def gpu():
    """(memory in GB of 10^9 bytes, compute capability) of the first CUDA GPU; (0.0, 0.0) without one."""
    import torch  # here, so that importing a profile stays light

    if not torch.cuda.is_available():
        return 0.0, 0.0
    card = torch.cuda.get_device_properties(0)
    return card.total_memory / 1e9, card.major + card.minor / 10


def prepared(profile, capability, changes):
    """`profile` as a GPU of this compute capability can run it, with `changes`; sets what Unsloth and vLLM read when imported."""
    if 0 < capability < 8:  # a T4: public runs of 3B models wrote 55 to 65 tokens a second there
        reason = f"{profile.reason}, compute capability {capability}: no more steps than two hours should hold"
        profile = replace(profile, max_steps=min(profile.max_steps, 100), reason=reason)
    profile = replace(profile, **changes)
    step, group = profile.per_device_train_batch_size * profile.gradient_accumulation_steps, profile.num_generations
    if group < 2 or step % group:
        raise ValueError(f"num_generations={group} must be 2 or more and divide the {step} completions of a step: change it, or the batch.")
    if profile.max_prompt_length + profile.max_completion_length > profile.max_seq_length:
        raise ValueError("max_prompt_length and max_completion_length together exceed max_seq_length: raise it, or lower one of them.")
    for variable, value in {
        "UNSLOTH_VLLM_STANDBY": str(int(profile.standby)),
        "UNSLOTH_VLLM_NO_FLASHINFER": "1",  # it compiles for minutes, and a T4 has no kernels for it
        "VLLM_LOGGING_LEVEL": "ERROR",  # its start alone would fill a screen
    }.items():
        os.environ.setdefault(variable, value)
    # Under this name Unsloth says, on a GPU, which files of a tokenizer it has completed: at every checkpoint, amid a table.
    logging.getLogger("transformers.models.llama.modeling_llama").setLevel(logging.ERROR)
    return profile


def choose_profile(without_gpu="embedded", **changes) -> Profile:
    """The profile of this machine, with the overrides of the environment and then `changes` of its fields; `reason` says why.

    `without_gpu`: the one taken where there is no GPU, "embedded" or, with a real model that is fetched once, "laptop".
    """
    small = [name for name in PROFILES if not name.endswith("gb")]
    if without_gpu not in small:
        raise ValueError(f"without_gpu={without_gpu!r} is unknown; the profiles of machines without a GPU are {', '.join(small)}.")
    memory, capability = gpu()
    fitting = [p for p in PROFILES.values() if p.name.endswith("gb") and int(p.name[:-2]) * 0.9 <= memory]
    if name := os.environ.get("GRPO_PROFILE"):
        if name not in PROFILES:
            raise ValueError(f"GRPO_PROFILE={name!r} is unknown; the profiles are {', '.join(PROFILES)}.")
        profile, reason = PROFILES[name], f"GRPO_PROFILE={name}"
    elif memory == 0:
        model = "the small model" if without_gpu == "embedded" else "a small real model"
        profile, reason = PROFILES[without_gpu], f"no GPU: {model} and the word problems of the repository"
    elif fitting:
        profile, reason = fitting[-1], f"a GPU with {memory:.0f} GB"
    else:
        raise RuntimeError(f"This GPU has {memory:.0f} GB and the smallest profile needs 6; set GRPO_PROFILE to override.")
    if profile.data == "embedded" and importlib.util.find_spec("grpo_kit") is None:  # the quickstart, alone on a machine
        raise Stop("PyTorch sees no CUDA GPU here: update the driver or switch the runtime to a GPU, or run `make quickstart` in a clone.")
    data = changes.get("data") or os.environ.get("GRPO_DATA") or profile.data
    if data not in SOURCES and not Path(data).expanduser().is_dir():
        raise ValueError(f"GRPO_DATA={data!r} is neither a folder nor one of {', '.join(SOURCES)}.")
    model = os.environ.get("GRPO_MODEL") or profile.model
    splits = profile.splits if data == profile.data else ("test",)  # only the repository's problems have held-out ones
    return prepared(replace(profile, reason=reason, model=model, data=data, splits=splits), capability, changes)
