"""Which launch files fit a model of some size on so many cards, and what each card then holds.

Bytes, and a GB is 10^9 of them; 16-bit training with TRL's own trainer (16-bit frozen weights under an adapter; for all parameters
float32 weights, gradients and moments), checkpointing, logits in chunks. Communication's own buffers are not counted.
"""

from dataclasses import replace
from typing import NamedTuple

from .memory import ADAM, RUNTIME, activation_bytes, count_parameters, frozen_bytes, kv_bytes, logits_bytes, memory_plan, verdict

USABLE = 0.9  # a plan above this share of a card is too close to say
_known = {}  # what takes its time: a model is built on paper for it


class Choice(NamedTuple):
    """A way ("does not fit", or one of `choose`) and what the fullest card holds: `training`, {item: bytes} while it trains; `writing`, {item: bytes}
    while the engine writes; `served`: how many cards the engine has for itself; `split`: over how many training cards it is spread;
    `batch`: completions a card trains on at a time."""

    way: str
    training: dict
    writing: dict
    served: int = 0
    split: int = 1
    batch: int = 0


def known(function, config, *arguments):
    """`function(config, *arguments)`, computed once."""
    key = (function, config.to_json_string(), *arguments)
    if key not in _known:
        _known[key] = function(config, *arguments)
    return _known[key]


def training_bytes(config, profile, count, everything, shares=1):
    """{item: bytes} on a card while it trains, its states cut into `shares`; `everything`: all parameters, not an adapter."""
    tokens = profile.per_device_train_batch_size * (profile.max_prompt_length + profile.max_completion_length)
    all_weights = count["linear"] + count["rest"]
    trained = all_weights if everything else count["adapter"]
    states = (4 + ADAM) * trained + (0 if everything else frozen_bytes(count, "16-bit"))
    layers = config.num_hidden_layers
    gathered = 2 * (2 * count["linear"] / layers + count["rest"]) if shares > 1 else 0  # two layers, embedding and head
    return {
        "weights, moments": states / shares,
        "gradients": 4 * trained / shares,
        "fetched layers": gathered,
        "activations": activation_bytes(config, profile, profile.max_prompt_length) + 2 * tokens * config.hidden_size * layers,
        "logits": logits_bytes(config, profile),
        "runtime": RUNTIME,
    }


def engine_bytes(config, profile, count, cards=1, sequences=None):
    """Bytes on each of the `cards` that hold one engine: its own 16-bit weights, and the KV cache of so many full-length completions."""
    sequences = sequences or profile.per_device_train_batch_size * profile.gradient_accumulation_steps
    cache = kv_bytes(config, sequences * (profile.max_prompt_length + profile.max_completion_length))
    return (frozen_bytes(count, "16-bit") + cache) / cards + RUNTIME


def candidates(way, config, profile, count, cards, everything, gradients_stay):
    """The forms of a 16-bit `way` with the profile's batch, a `Choice` each, whether it fits or not."""
    batch = profile.per_device_train_batch_size
    own = batch * profile.gradient_accumulation_steps  # completions of a card
    parts = training_bytes(config, profile, count, everything, 1 if way == "DDP" else cards)
    stays = ["weights, moments", "fetched layers"] + ["gradients"] * (way == "DDP" or gradients_stay)
    kept = {item: parts[item] for item in stays}  # the engine sleeps while the model trains, and is awake beside its states
    if way in ("DDP", "FSDP"):
        yield Choice(way, parts, kept | {"engine": engine_bytes(config, profile, count)}, batch=batch)
    elif way == "FSDP + TP":
        for split in (2, 4, 8):
            if cards % split == config.num_key_value_heads % split == 0:  # as many engines as fit, each with the completions of its cards
                yield Choice(way, parts, kept | {"engine": engine_bytes(config, profile, count, split, split * own)}, split=split, batch=batch)
    else:
        for served in (2**power for power in range(8)):
            if served < cards:
                apart = training_bytes(config, profile, count, everything, cards - served)
                yield Choice(way, apart, {"engine": engine_bytes(config, profile, count, served)}, served, batch=batch)


def choose(config, profile, memory, cards, everything=False, gradients_stay=False):
    """What to take for this model on so many cards of `memory` bytes: the first way that fits in `USABLE` of a card, a `Choice`.

    "DDP": each card has everything, the engine takes turns with the training (one_gpu.yaml, one_host.yaml); "FSDP": the same
    with the states cut into shares (fsdp2.yaml, zero3.yaml); "FSDP + TP": the engine in pieces too, each over 2, 4 or 8 of the cards
    (`vllm_tensor_parallel_size`; no more than the model has key-value heads); "disaggregated": the engine on cards of its own; "QLoRA":
    chapter 05's way, a copy on every card. Each is tried with the profile's batch, then with halves of it and more accumulation.
    `gradients_stay`: shares keep their gradients while the engine writes (DeepSpeed), or free them (FSDP2). Where nothing fits, what
    "FSDP" would hold with a batch of 1.
    """
    batch, own = profile.per_device_train_batch_size, profile.per_device_train_batch_size * profile.gradient_accumulation_steps
    smaller = [replace(profile, per_device_train_batch_size=size, gradient_accumulation_steps=own // size)
               for size in range(batch, 0, -1) if batch % size == 0]
    count = known(count_parameters, config, 0 if everything else profile.lora_rank)
    for way in ("DDP", "FSDP", "FSDP + TP", "disaggregated"):
        for sized in smaller:
            for found in candidates(way, config, sized, count, cards, everything, gradients_stay):
                if max(sum(found.training.values()), sum(found.writing.values())) <= USABLE * memory:
                    return found
    for sized in [] if everything else smaller:
        plan = known(memory_plan, config, sized, memory)
        if verdict(plan, config, sized, memory) == "fits":
            return Choice("QLoRA", plan["training"].to_dict(), plan["sampling"].to_dict(), batch=sized.per_device_train_batch_size)
    return next(candidates("FSDP", config, smaller[-1], count, cards, everything, gradients_stay))._replace(way="does not fit")


def least_cards(config, profile, memory, everything=False, gradients_stay=False, most=64):
    """(cards, `Choice`) of the least number of cards, of 1 to `most`, that `choose` finds a way for; None where there is none."""
    for cards in range(1, most + 1):
        found = choose(config, profile, memory, cards, everything, gradients_stay)
        if found.way != "does not fit":
            return cards, found
