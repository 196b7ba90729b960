"""Which launch files fit a model of some size on so many cards, and what each card then holds.

Bytes, and a GB is 10^9 of them; 16-bit training with TRL's own trainer (16-bit frozen weights under an adapter; for all parameters
float32 weights, gradients and moments), checkpointing, logits in chunks. Communication's own buffers are not counted.
"""

from typing import NamedTuple

from .memory import ADAM, RUNTIME, activation_bytes, count_parameters, frozen_bytes, kv_bytes, logits_bytes, memory_plan, verdict

USABLE = 0.9  # a plan above this share of a card is too close to say
NUMBERS = {"does not fit": 0, "4 bits": 1, "whole": 2, "shares": 3, "split": 4, "server": 5}  # what `choose` answers
_known = {}  # what takes its time: a model is built on paper for it


class Choice(NamedTuple):
    """A way (a key of `NUMBERS`) and what the fullest card holds: `training`, {item: bytes} while it trains; `writing`, {item: bytes}
    while the engine writes; `served`: how many cards the engine has for itself; `split`: over how many training cards it is spread."""

    way: str
    training: dict
    writing: dict
    served: int = 0
    split: int = 1


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
    states = (4 + 4 + ADAM) * trained + (0 if everything else frozen_bytes(count, "16-bit"))
    layers = config.num_hidden_layers
    gathered = 2 * (2 * count["linear"] / layers + count["rest"]) if shares > 1 else 0  # two layers, embedding and head
    return {
        "weights, gradients, moments": states / shares,
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


def choose(config, profile, memory, cards, everything=False):
    """What to take for this model on so many cards of `memory` bytes: the first way that fits in `USABLE` of a card, a `Choice`.

    "whole": each card has everything, the engine takes turns with the training (one_gpu.yaml, one_host.yaml); "shares": the same
    with the states cut into shares (fsdp2.yaml, zero3.yaml); "split": the engine in pieces too, each over 2, 4 or 8 of the cards
    (`vllm_tensor_parallel_size`; no more than the model has key-value heads); "server": the engine on cards of its own; "4 bits":
    chapter 05's way. Where nothing fits, what "shares" would hold.
    """
    rank = 0 if everything else profile.lora_rank
    count = known(count_parameters, config, rank)
    engine, room = engine_bytes(config, profile, count), USABLE * memory
    for name, shares in [("whole", 1), ("shares", cards)]:
        parts = training_bytes(config, profile, count, everything, shares)
        kept = {item: parts[item] for item in ("weights, gradients, moments", "fetched layers")}
        writing = kept | {"engine": engine}  # asleep while the model trains, awake beside its states
        if max(sum(parts.values()), sum(writing.values())) <= room:
            return Choice(name, parts, writing)
    own = profile.per_device_train_batch_size * profile.gradient_accumulation_steps
    for split in (2, 4, 8):
        if cards % split == config.num_key_value_heads % split == 0:  # as many engines as fit, each with the completions of its cards
            halves = kept | {"engine": engine_bytes(config, profile, count, split, split * own)}
            if max(sum(parts.values()), sum(halves.values())) <= room:
                return Choice("split", parts, halves, split=split)
    for served in (2**power for power in range(8)):
        if served < cards:
            apart = training_bytes(config, profile, count, everything, cards - served)
            if sum(apart.values()) <= room and engine_bytes(config, profile, count, served) <= room:
                return Choice("server", apart, {"engine": engine_bytes(config, profile, count, served)}, served)
    plan = None if everything else known(memory_plan, config, profile, memory)
    if plan is not None and verdict(plan, config, profile, memory) == "fits":
        return Choice("4 bits", plan["training"].to_dict(), plan["sampling"].to_dict())
    return Choice("does not fit", parts, writing)
