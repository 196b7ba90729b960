"""How much memory a GRPO run takes, item by item, before it runs, and about how long; and how much it took when it ran.

Sizes are in bytes, and a GB is 10^9 of them. The formulas hold for dense decoders with the seven linear layers of
Llama and Qwen2. What is kept differs between Unsloth's own engine on a GPU and this package's on a CPU (`ON_GPU`, `ON_CPU`).
"""

import math
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

# Bytes a weight, with its share of the scales: NF4 has one byte for a block of 64, and a float32 for 256 such bytes.
WEIGHT_BYTES = {"float32": 4, "16-bit": 2, "8-bit": 1, "NF4": 0.5 + 1 / 64 + 4 / (64 * 256)}
GIB = 2**30
SPARE = "KV cache, spare"  # what the engine takes and a run could do without


def build_on_paper(config):
    """The model of `config` on the device "meta": every layer and shape, and not one number."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def count_parameters(config, rank=0):
    """Parameters by kind: `linear` (what 4-bit shrinks), `rest` (embedding, head, norms, biases), `adapter`."""
    model = build_on_paper(config)
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    linear = sum(layer.weight.numel() for layer in layers)
    adapter = rank * sum(layer.in_features + layer.out_features for layer in layers)
    return {"linear": linear, "rest": sum(p.numel() for p in model.parameters()) - linear, "adapter": adapter}


@dataclass(frozen=True)
class Habits:
    """What the engine and the trainer keep, the same for every model; the defaults are Unsloth's on a GPU."""

    value: int = 2  # bytes of an activation, of an entry of the KV cache, of a weight that stays unquantised
    dense_copies: bool = False  # float32 copies of the weights beside NF4: the engine's, and the training forward's
    state: float = 2 * (1 + 4 / 256)  # the optimiser's, a trained parameter: two moments in 8 bits, a scale for 256
    checkpointing: bool = True  # only one layer's activations are on the device at a time
    standby: bool = True  # vLLM gives its KV cache back while the model trains, where the profile has it do so
    kv_space: float | None = None  # bytes of the KV cache; None: what vLLM's share leaves
    row: int | None = None  # tokens in a packed row of the training forward; None: a row is one completion
    runtime: float = 1.5e9  # an allowance: CUDA's context, compiled kernels, captured graphs; 1.3 GB was observed on an H100
    tolerance: float = 0.6  # how far a plan may be above its run, without the cache; wide on a GPU, where two runs are all there is


def cache_space():
    """Bytes of the CPU engine's KV cache: VLLM_CPU_KVCACHE_SPACE in whole GiB; 1 GiB where it is unset or empty."""
    text = os.environ.get("VLLM_CPU_KVCACHE_SPACE") or "1"
    return int(text) * GIB if text.isdecimal() else 0


ON_GPU = Habits()
ON_CPU = Habits(
    value=4, dense_copies=True, state=8, checkpointing=False, standby=False,
    kv_space=cache_space(),
    row=512,  # cpu_engine.PACK
    runtime=0.2e9,  # an allowance: what libraries load at first use, buffers of engine and trainer; 0.17 GB was observed
    tolerance=0.3,
)


def standby_share(memory):
    """The share of the GPU that vLLM gets from Unsloth in standby mode (unsloth_zoo/vllm_utils.py, load_vllm)."""
    shares = {40: 0.925, 25: 0.9, 20: 0.825, 14: 0.8, 10: 0.775, 0: 0.75}  # from this many GiB on
    return 0.95 * next(share for least, share in shares.items() if memory / GIB >= least)


def batch_tokens(profile, prompt, row):
    """(tokens in the longest batch of a training step, tokens in one of its rows), all completions at full length."""
    completions, length = profile.per_device_train_batch_size, profile.max_completion_length
    if row is None:
        return completions * (prompt + length), prompt + length
    in_a_row = max(1, (row - prompt) // length)  # the prompt once, then as many of its completions as fit
    rows = completions // profile.num_generations * math.ceil(profile.num_generations / in_a_row)
    return rows * prompt + completions * length, prompt + in_a_row * length


def layer_values(config, rank, row):
    """Values that one token leaves in one layer for the backward pass, with LoRA on the seven linear layers."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    norms = 4 * hidden  # what goes into the two norms and what comes out, LoRA's input
    attention = 2 * head * heads + 2 * head * config.num_key_value_heads  # query and output; key and value
    mlp = 4 * inner  # gate, its activation, up, and their product
    return norms + attention + mlp + 7 * rank + row


def activation_bytes(config, profile, prompt, habits):
    """The activations of one forward and backward over the longest batch."""
    tokens, row = batch_tokens(profile, prompt, habits.row)
    mask = row if habits.row else 0  # who sees whom in a packed row: a line of values for each token
    layers = 1 if habits.checkpointing else config.num_hidden_layers
    kept = layers * layer_values(config, profile.lora_rank, mask) * tokens
    at_once = min(tokens, 1024) if habits.row else tokens  # the kit's trainer on a CPU scores 1,024 tokens at a time
    return habits.value * (kept + 3 * config.intermediate_size * at_once)  # three gradients of a layer on their way


def logits_bytes(config, profile, chunked=True):
    """The logits of a batch in float32 and their gradient, at full length or in chunks (unsloth_zoo, chunked_logprob)."""
    rows = profile.per_device_train_batch_size * profile.max_completion_length
    if chunked:
        rows = min(rows, max(512, rows // 8), 2 * GIB // (8 * config.vocab_size))
    return 8 * rows * config.vocab_size


def kv_bytes(config, tokens, habits):
    """The KV cache of so many tokens: a key and a value for every layer."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * head * habits.value * tokens


def memory_plan(config, profile, habits, memory, prompt=None, weights="NF4", chunked=True):
    """The budget as a DataFrame: a row an item, its bytes while completions are sampled and while the model trains.

    `memory`: the device's, in bytes. `prompt`: tokens of the longest prompt (default: the profile's limit).
    """
    prompt = prompt or profile.max_prompt_length
    count = count_parameters(config, profile.lora_rank)
    copies = 4 * (2 * count["linear"] + count["rest"]) if habits.dense_copies else 0
    sampled = profile.per_device_train_batch_size * profile.gradient_accumulation_steps
    fixed = {
        "weights": WEIGHT_BYTES[weights] * count["linear"] + habits.value * count["rest"] + copies,
        "adapter, gradients, optimiser": (4 + 4 + habits.state) * count["adapter"],
        "runtime": habits.runtime,
    }
    standby = habits.standby and profile.standby
    share = standby_share(memory) if standby else profile.gpu_memory_utilization  # vLLM's: the weights and the cache
    space = max(0, share * memory - fixed["weights"]) if habits.kv_space is None else habits.kv_space
    used = min(space, kv_bytes(config, sampled * (prompt + profile.max_completion_length), habits))
    cache = {"KV cache, used": used, SPARE: space - used}
    training = {
        "activations": activation_bytes(config, profile, prompt, habits),
        "logits": logits_bytes(config, profile, chunked),
    }
    while_training = fixed | training | ({} if standby else cache)
    return pd.DataFrame({"sampling": fixed | cache, "training": while_training}).fillna(0)


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it: memory bandwidth in bytes a second, dense 16-bit operations a second."""

    bandwidth: float
    flops: float


CARDS = {
    "T4": Card(320e9, 65e12), "L4": Card(300e9, 121e12), "RTX 4090": Card(1008e9, 165e12),
    "A100 40 GB": Card(1555e9, 312e12), "H100": Card(3350e9, 989e12),
}
# Read off the runs in test_memory.py, which a plan so made meets within a third: a token takes this many times what
# moving the weights once takes, and a training step reaches this share of the card's operations. An H200 (4,800 GB/s) took
# 8.6 s where this says 6.3: beyond an H100's bandwidth a token waits for other things.
PER_TOKEN, REACHED = 2.7, 0.15


def step_seconds(config, profile, card, prompt=None, length=None, weights="NF4"):
    """(sampling, training): the estimated seconds of one training step, once everything is compiled.

    `prompt` and `length` are tokens: of a prompt, and of the batch's longest completion (default: the profile's limits).
    All completions of a step are written at once, so that a token of all of them costs one pass over the weights; those in
    NF4 are written out in 16 bits and read again. A training step is 6 operations a weight and token: forward, forward
    again (checkpointing) and back through the layers; frozen weights get no gradient.
    """
    prompt, length = prompt or profile.max_prompt_length, length or profile.max_completion_length
    count = count_parameters(config)
    moved = (WEIGHT_BYTES[weights] + 4 if weights == "NF4" else WEIGHT_BYTES[weights]) * count["linear"] + 2 * count["rest"]
    tokens = profile.per_device_train_batch_size * profile.gradient_accumulation_steps * (prompt + length)
    operations = 6 * (count["linear"] + count["rest"]) * tokens
    return PER_TOKEN * length * moved / card.bandwidth, operations / (REACHED * card.flops)


def verdict(plan, config, profile, habits, memory):
    """"fits", "too close to say" within a sixteenth of the memory, or what does not fit: the whole, or one sequence in the cache."""
    taken = plan.sum().max()  # the spare cache too: what vLLM was granted is not there for the training
    if abs(taken - memory) < memory / 16:
        return f"too close to say: {taken / 1e9:.1f} of {memory / 1e9:.0f} GB"
    if taken > memory:
        return f"does not fit: {taken / 1e9:.1f} of {memory / 1e9:.0f} GB"
    if plan["sampling"].filter(like="KV").sum() < kv_bytes(config, profile.max_seq_length, habits):
        return "does not fit: no room for one sequence in the KV cache"
    return "fits"


def this_machine():
    """(habits, memory in bytes) of the accelerator, what is free of it, or of the CPU where there is none."""
    if torch.accelerator.is_available():
        return ON_GPU, torch.accelerator.get_memory_info()[0]  # Unsloth applies the share to what is free
    return ON_CPU, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
