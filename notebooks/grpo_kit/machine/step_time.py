"""About how long a step of GRPO takes on a GPU, before it runs; and the runs that the estimate was fitted to."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import LlamaConfig, Qwen2Config

from .memory import count_parameters, frozen_bytes
from .profile import PROFILES


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it: memory bandwidth in bytes a second, dense 16-bit operations a second."""

    bandwidth: float
    flops: float


CARDS = {
    "T4": Card(320e9, 65e12), "L4": Card(300e9, 121e12), "RTX 4090": Card(1008e9, 165e12),
    "A100 40 GB": Card(1555e9, 312e12), "H100": Card(3350e9, 989e12), "H200": Card(4800e9, 989e12),
}
# Fitted to `measured_steps`: writing a token takes this many times what moving the weights takes, and so many seconds
# besides; a training step reaches this share of the card's operations, and takes so many seconds however short it is.
MOVES, WAIT, REACHED, FIXED = 2.2, 0.004, 0.15, 0.9


def step_seconds(config, profile, card, prompt=None, length=None, weights="NF4"):
    """(sampling, training): the estimated seconds of one training step, once everything is compiled.

    `prompt` and `length` are tokens: of a prompt, and of the batch's longest completion (default: the profile's limits).
    All completions of a step are written at once, so that a token of all of them costs one pass over the weights; those in
    NF4 are written out in 16 bits and read again. A training step is 6 operations a weight and token: forward, forward
    again (checkpointing) and back through the layers; frozen weights get no gradient.
    """
    prompt, length = prompt or profile.max_prompt_length, length or profile.max_completion_length
    count = count_parameters(config)
    moved = frozen_bytes(count, weights) + (4 * count["linear"] if weights == "NF4" else 0)
    tokens = profile.per_device_train_batch_size * profile.gradient_accumulation_steps * (prompt + length)
    operations = 6 * (count["linear"] + count["rest"]) * tokens
    return length * (MOVES * moved / card.bandwidth + WAIT), operations / (REACHED * card.flops) + FIXED


def qwen(hidden, inner, layers, heads):
    """The shape of a Qwen2.5 model up to 3B."""
    return Qwen2Config(vocab_size=151936, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
                       num_attention_heads=heads, num_key_value_heads=2, tie_word_embeddings=True)


QWEN_3B = qwen(2048, 11008, 36, 16)
LLAMA_8B = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                       num_key_value_heads=8, head_dim=128, vocab_size=128256)
QWEN3_4B = LlamaConfig(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
                       num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=True)  # of Llama's shape


def measured_steps(formula=step_seconds):
    """[(run, seconds by `formula`, seconds measured)] of steps on GPUs. The T4's stand in outputs of Unsloth's public notebooks."""
    results = Path(__file__).parents[2] / "results"
    h100, h200 = (json.loads((results / f"gpu_check_nvidia_{card}.json").read_text("utf-8"))["parts"]["engine"]
                  for card in ("h100_80gb_hbm3", "h200"))
    runs = [  # card, model, its shape, weights; completions a step, tokens of a prompt and of the longest completion; seconds of the steps
        ("T4", "Qwen2.5-3B", QWEN_3B, "NF4", 8, 100, 200, [6054 / 250]),
        ("T4", "Llama 3.1 8B", LLAMA_8B, "NF4", 6, 150, 191, [54.7]),
        ("T4", "Qwen3-4B", QWEN3_4B, "16-bit", 4, 200, 1670, [104.9]),
        ("H100", "Qwen2.5-3B", QWEN_3B, "NF4", 16, 119, 640, h100["640 tokens"]["step"]),  # in standby
        ("H200", "Qwen2.5-3B", QWEN_3B, "NF4", 16, 119, 640, h200["640 tokens"]["step"]),
        ("H200", "Qwen2.5-3B", QWEN_3B, "NF4", 16, 119, 256, h200["256 tokens"]["step"]),
    ]
    rows = []
    for card, model, config, weights, completions, prompt, length, seconds in runs:
        step = replace(PROFILES["16gb"], per_device_train_batch_size=completions, gradient_accumulation_steps=1)
        estimate = sum(formula(config, step, CARDS[card], prompt, length, weights))
        rows.append((f"{card}, {model} in {weights}, {completions} completions of {length}", estimate, sum(seconds) / len(seconds)))
    return rows
