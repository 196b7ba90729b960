"""This machine's memory: the plan of a run on it, what is in use, and the peak of a run.

With a GPU the plan is `memory.memory_plan`. Without one this package's engine and trainer work on the CPU, and keep more.
"""

import math
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

from .memory import ADAM, GIB, SPARE, WEIGHT_BYTES, count_parameters, kv_bytes, layer_values, logits_bytes, memory_plan

PACK, BATCH = 512, 1024  # tokens of a packed row, and that the trainer scores at once (cpu_engine.trl_rollouts)
CPU_RUNTIME = 0.2e9  # an allowance: what libraries load at first use, buffers of engine and trainer; 0.17 GB was observed


def cache_space():
    """Bytes of the CPU engine's KV cache: VLLM_CPU_KVCACHE_SPACE in whole GiB; 1 GiB where it is unset or empty."""
    text = os.environ.get("VLLM_CPU_KVCACHE_SPACE") or "1"
    return int(text) * GIB if text.isdecimal() else 0


def packed_tokens(profile, prompt):
    """(tokens in the longest batch, tokens in one of its rows): a prompt once, and behind it as many completions as fit."""
    completions, length = profile.per_device_train_batch_size, profile.max_completion_length
    in_a_row = max(1, (PACK - prompt) // length)
    rows = completions // profile.num_generations * math.ceil(profile.num_generations / in_a_row)
    return rows * prompt + completions * length, prompt + in_a_row * length


def cpu_plan(config, profile, prompt=None):
    """As `memory_plan`, for the CPU: float32, dense copies of the weights, a cache of fixed size, all activations kept."""
    prompt = prompt or profile.max_prompt_length
    count = count_parameters(config, profile.lora_rank)
    tokens, row = packed_tokens(profile, prompt)
    mask = row  # who sees whom in a packed row: a line of values for each token
    kept = config.num_hidden_layers * (layer_values(config, profile.lora_rank) + mask) * tokens
    sampled = profile.per_device_train_batch_size * profile.gradient_accumulation_steps
    space = cache_space()
    used = min(space, kv_bytes(config, sampled * (prompt + profile.max_completion_length), value=4))
    copies = 2 * count["linear"] + count["rest"]  # the engine's, and that of the training's forward pass
    sampling = {
        "weights": WEIGHT_BYTES["NF4"] * count["linear"] + 4 * count["rest"] + 4 * copies,
        "adapter, gradients, optimiser": (4 + 4 + ADAM) * count["adapter"],
        "runtime": CPU_RUNTIME,
        "KV cache, used": used,
        SPARE: space - used,
    }
    training = sampling | {
        "activations": 4 * (kept + 3 * config.intermediate_size * min(tokens, BATCH)),
        "logits": logits_bytes(config, profile),
    }
    return pd.DataFrame({"sampling": sampling, "training": training}).fillna(0)


def plan_here(config, profile, prompt=None, memory=None):
    """(plan, memory in bytes) of a run on this machine: of its GPU, what is free, for Unsloth applies the share to that."""
    if torch.accelerator.is_available():
        memory = memory or torch.accelerator.get_memory_info()[0]
        return memory_plan(config, profile, memory, prompt), memory
    return cpu_plan(config, profile, prompt), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory(cgroup="/sys/fs/cgroup", meminfo="/proc/meminfo"):
    """Bytes that this machine has free, or gives away when asked (caches); fewer where a container's limit comes first."""
    rooms = [1024 * int(line.split()[1]) for line in Path(meminfo).read_text().splitlines() if line.startswith("MemAvailable")]
    # Version 2 of the control groups, then version 1.
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        limit, used = Path(cgroup, limit), Path(cgroup, used)
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            stat = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
            cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            rooms.append(int(most) - int(used.read_text()) + cached)
    return max(0, min(rooms))


def check_room(parameters, what):
    """MemoryError, one sentence, where the CPU engine's copies of a model with `parameters` weights and its cache have no room here."""
    needed, free = (WEIGHT_BYTES["NF4"] + 4 + 4) * parameters + cache_space() + CPU_RUNTIME, available_memory()
    if needed > free:
        raise MemoryError(f"{what} with its engine takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free here: "
                          "shut down another kernel that holds some, or take a smaller model.")


def memory_in_use():
    """Bytes taken of the accelerator, as its driver counts them; without one, this process's resident memory.

    Torch's own count would take for held what a sleeping vLLM has given back, and miss what is not torch's.
    """
    if torch.accelerator.is_available():
        free, total = torch.accelerator.get_memory_info()
        return total - free
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def measured_peak():
    """with measured_peak() as peak: … then `peak.bytes` is the most `memory_in_use` in the block, asked every 10 ms."""
    peak, done = SimpleNamespace(bytes=memory_in_use()), threading.Event()

    def watch():
        while not done.wait(0.01):
            peak.bytes = max(peak.bytes, memory_in_use())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
