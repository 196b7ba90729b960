"""`FastLanguageModel`: Unsloth's own class on a GPU; without one, Unsloth's CPU class plus the engine it lacks.

The signatures and the types returned are Unsloth's GPU class's (unsloth/models/loader.py, unsloth_zoo/vllm_utils.py),
so a cell that runs on one machine runs on the other. What the CPU needs set before its first import is set here.
"""

import functools
import importlib
import logging
import os
import platform
import sys
import types
import warnings

import torch

from grpo_kit.machine.profile import choose_profile
from .identity import check_adapter


def _prepare_cpu():
    """Sets what unsloth, vllm and torch read while they are imported, and silences what no reader can act on."""
    os.environ["UNSLOTH_CPU_BF16"] = "0"  # float32 throughout, so that the engine's log-probs equal the policy's
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine takes the policy's weights from this process
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE") or "1"
    if not space.isdecimal() or int(space) == 0:
        raise ValueError(f"VLLM_CPU_KVCACHE_SPACE={space!r} is no whole number of GiB, 1 or more: unset it, or set one.")
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = space
    for name, value in {
        "UNSLOTH_DISABLE_STATISTICS": "1",  # nothing asks the network
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # else vLLM opens a socket towards 8.8.8.8 to learn its own address
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    if platform.machine() in ("x86_64", "AMD64") and not torch.cpu._is_avx512_bf16_supported():
        # `import unsloth` loads vllm._C, built for AVX512, and dies of SIGILL; vLLM itself picks its AVX2 build.
        sys.modules.setdefault("vllm._C", types.ModuleType("vllm._C"))
    for name in ("torchao", "bitsandbytes", "torch.utils._pytree", "torch._library.triton"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")


def _checked(load_lora):
    """Unsloth's `load_lora`, which first looks whether the adapter is whole and this model's; not where it takes the one in training."""
    @functools.wraps(load_lora)
    def checked_load_lora(model, save_directory, load_tensors=False, **options):
        if not load_tensors:
            adapters = getattr(model, "peft_config", {})
            base = adapters["default"].base_model_name_or_path if "default" in adapters else None
            check_adapter(save_directory, base or model.config._name_or_path)
        return load_lora(model, save_directory, load_tensors=load_tensors, **options)

    return checked_load_lora


choose_profile()  # sets what Unsloth and vLLM read when they are imported
if os.environ.get("UNSLOTH_FORCE_CPU", "0") != "1" and torch.accelerator.is_available():
    from unsloth import FastLanguageModel
    from transformers.utils.logging import disable_progress_bar

    vllm_utils = importlib.import_module("unsloth_zoo.vllm_utils")
    vllm_utils.load_lora = _checked(vllm_utils.load_lora)  # Unsloth takes it from there when it adds an adapter

    disable_progress_bar()  # one for each load, amid the tables of the chapters that load often
else:
    _prepare_cpu()
    from .cpu_engine import FastLanguageModel

__all__ = ["FastLanguageModel"]
