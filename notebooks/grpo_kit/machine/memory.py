"""How much memory a GRPO run takes on a GPU, item by item, before it runs.

Sizes are in bytes, and a GB is 10^9 of them. The formulas hold for dense decoders with the seven linear layers of
Llama and Qwen2, and for what Unsloth keeps: one copy of the 4-bit weights for engine and training, an adapter and its
gradients in float32, 8-bit moments, checkpointing, logits in chunks. `memory_here` has the plan of a CPU, and what is in use.
"""

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

# Bytes a weight, with its share of the scales: NF4 has one byte for a block of 64, and a float32 for 256 such bytes.
WEIGHT_BYTES = {"float32": 4, "16-bit": 2, "NF4": 0.5 + 1 / 64 + 4 / (64 * 256)}
ADAM, ADAM_8BIT = 8, 2 * (1 + 4 / 256)  # bytes a trained number: two moments, in float32 or in 8 bits with a scale for 256
RUNTIME = 1.5e9  # an allowance: CUDA's context, compiled kernels, captured graphs; 1.3 GB was observed on an H100
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


def frozen_bytes(count, weights="NF4"):
    """The frozen weights: the linear layers as `weights` says, the rest in 16 bits at least."""
    if weights not in WEIGHT_BYTES:
        raise ValueError(f"weights={weights!r} is unknown; the formats are {', '.join(WEIGHT_BYTES)}.")
    return WEIGHT_BYTES[weights] * count["linear"] + max(2, int(WEIGHT_BYTES[weights])) * count["rest"]


def standby_share(memory):
    """The share of the GPU that vLLM gets from Unsloth in standby mode (unsloth_zoo/vllm_utils.py, load_vllm)."""
    shares = {40: 0.925, 25: 0.9, 20: 0.825, 14: 0.8, 10: 0.775, 0: 0.75}  # from this many GiB on
    return 0.95 * next(share for least, share in shares.items() if memory / GIB >= least)


def layer_values(config, rank):
    """Values that one token leaves in one layer for the backward pass, with LoRA on the seven linear layers."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    norms = 4 * hidden  # what goes into the two norms and what comes out, LoRA's input
    attention = 2 * head * heads + 2 * head * config.num_key_value_heads  # query and output; key and value
    mlp = 4 * inner  # gate, its activation, up, and their product
    return norms + attention + mlp + 7 * rank


def activation_bytes(config, profile, prompt, checkpointing=True):
    """The activations of one forward and backward over a batch, all completions at full length, in 16 bits."""
    tokens = profile.per_device_train_batch_size * (prompt + profile.max_completion_length)
    layers = 1 if checkpointing else config.num_hidden_layers
    gradients = 3 * config.intermediate_size  # of the MLP of the layer that is gone back through
    return 2 * tokens * (layers * layer_values(config, profile.lora_rank) + gradients)


def logits_bytes(config, profile, chunked=True):
    """The logits of a batch in float32 and their gradient, at full length or in chunks (unsloth_zoo, chunked_logprob)."""
    rows = profile.per_device_train_batch_size * profile.max_completion_length
    if chunked:
        rows = min(rows, max(512, rows // 8), 2 * GIB // (8 * config.vocab_size))
    return 8 * rows * config.vocab_size


def kv_bytes(config, tokens, value=2):
    """The KV cache of so many tokens: a key and a value for every layer, of `value` bytes a number."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * config.num_key_value_heads * head * value * tokens


def memory_plan(config, profile, memory, prompt=None, weights="NF4", chunked=True, checkpointing=True):
    """The budget as a DataFrame: a row an item, its bytes while completions are sampled and while the model trains.

    `memory`: the GPU's, in bytes. `prompt`: tokens of the longest prompt (default: the profile's limit).
    """
    prompt = prompt or profile.max_prompt_length
    count = count_parameters(config, profile.lora_rank)
    fixed = {
        "weights": frozen_bytes(count, weights),
        "adapter, gradients, optimiser": (4 + 4 + ADAM_8BIT) * count["adapter"],
        "runtime": RUNTIME,
    }
    share = standby_share(memory) if profile.standby else profile.gpu_memory_utilization  # vLLM's: the weights and the cache
    space = max(0, share * memory - fixed["weights"])
    sampled = profile.per_device_train_batch_size * profile.gradient_accumulation_steps
    used = min(space, kv_bytes(config, sampled * (prompt + profile.max_completion_length)))
    cache = {"KV cache, used": used, SPARE: space - used}
    training = {
        "activations": activation_bytes(config, profile, prompt, checkpointing),
        "logits": logits_bytes(config, profile, chunked),
    }
    while_training = fixed | training | ({} if profile.standby else cache)
    return pd.DataFrame({"sampling": fixed | cache, "training": while_training}).fillna(0)


def margin(plan):
    """Nearer than this to the card's end a plan cannot say: half of what training adds, 1 GB at least.

    So far off were the worst of the runs that were measured (results/gpu_check_*.json), all of the profile 16gb.
    """
    return max(1e9, plan.loc[["activations", "logits"], "training"].sum() / 2)


def verdict(plan, config, profile, memory):
    """"fits", "too close to say" within `margin`, or what does not fit: the whole, or one sequence in the cache."""
    taken = plan.sum().max()  # the spare cache too: what vLLM was granted is not there for the training
    if abs(taken - memory) < margin(plan):
        return f"too close to say: {taken / 1e9:.1f} of {memory / 1e9:.0f} GB"
    if taken > memory:
        return f"does not fit: {taken / 1e9:.1f} of {memory / 1e9:.0f} GB"
    if plan["sampling"].filter(like="KV").sum() < kv_bytes(config, profile.max_seq_length):
        return "does not fit: no room for one sequence in the KV cache"
    return "fits"
