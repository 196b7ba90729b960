"""Weights and adapters: dequantised, multiplied in one product, read from a folder and checked, written whole."""

import json
from pathlib import Path

from . import checks  # noqa: F401, I001  first: it stops where a package is another one, and lets unsloth mend TRL
import bitsandbytes as bnb
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from grpo_kit.model.identity import check_adapter
from grpo_kit.model.whole import save_whole


class DenseLinear4bit(bnb.nn.Linear4bit):
    """A Linear4bit that keeps its dequantised weight (float32, out x in) instead of dequantising it at every call."""

    def forward(self, x):
        return torch.nn.functional.linear(x, self.dense, self.bias)


def _base_weights(model):
    """{checkpoint name: tensor} of every weight as the forward uses it; the tensors are the model's own."""
    weights = dict(model.named_parameters())
    for name, module in model.named_modules():
        if type(module) is bnb.nn.Linear4bit:
            dense = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            module.register_buffer("dense", dense, persistent=False)  # not persistent: saved files stay as they are
            module.__class__ = DenseLinear4bit
            weights[f"{name}.weight"] = dense
    return weights


class LoraProduct(torch.autograd.Function):
    """x @ (W + scaling * B A)^T: one product, of the weight that the engine has too.

    PEFT adds x @ W^T and scaling * x @ A^T B^T, each as large as the result. Shapes: x (…, in), W (out, in), A (r, in),
    B (out, r). The gradient is that of x, A and B.
    """

    @staticmethod
    def forward(ctx, x, weight, A, B, scaling):
        ctx.save_for_backward(x, weight, A, B)
        ctx.scaling = scaling
        return torch.nn.functional.linear(x, torch.addmm(weight, B, A, alpha=scaling))

    @staticmethod
    def backward(ctx, gradient):
        x, weight, A, B = ctx.saved_tensors
        dx = gradient @ torch.addmm(weight, B, A, alpha=ctx.scaling) if ctx.needs_input_grad[0] else None
        x, gradient = x.flatten(0, -2), gradient.flatten(0, -2)
        return dx, None, ctx.scaling * ((gradient @ B).T @ x), ctx.scaling * (gradient.T @ (x @ A.T)), None


def _one_product(layer):
    """Lets a LoRA layer compute by `LoraProduct` wherever it is plain LoRA in float32, and by PEFT elsewhere."""
    apart = layer.forward

    def forward(x, *args, **kwargs):
        base, names = layer.get_base_layer(), layer.active_adapters
        weight = getattr(base, "dense", base.weight)
        plain = len(names) == 1 and names[0] in layer.lora_A and names[0] not in layer.lora_variant
        if not plain or args or kwargs or layer.disable_adapters or layer.merged or base.bias is not None:
            return apart(x, *args, **kwargs)
        A, B, dropout = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight, layer.lora_dropout[names[0]]
        if not isinstance(dropout, torch.nn.Identity) or {x.dtype, weight.dtype, A.dtype, B.dtype} != {torch.float32}:
            return apart(x)
        return LoraProduct.apply(x, weight, A, B, layer.scaling[names[0]])

    layer.forward = forward


def _live_adapter(policy):
    """{checkpoint name: (A, B, scaling)} of the adapter in training."""
    return {
        f"{name}.weight": (layer.lora_A[a].weight.data, layer.lora_B[a].weight.data, layer.scaling[a])
        for name, layer in policy.get_base_model().named_modules()
        if isinstance(layer, LoraLayer)
        for a in layer.active_adapters
    }


def _check_plain_lora(config, where):
    special = [k for k in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(k)]
    if special or config["bias"] != "none" or "LORA" not in str(config["peft_type"]):
        raise ValueError(f"{where} is not plain LoRA ({special or config['peft_type']}), all the CPU engine can hold.")


def _saved_adapter(folder, base_folder, max_rank):
    """{checkpoint name: (A, B, scaling)} of the adapter in `folder`; an error if it is not whole or not of the model in `base_folder`."""
    folder, where = Path(folder), f"the adapter in {folder}"
    missing = [n for n in ("adapter_config.json", "adapter_model.safetensors") if not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no adapter, it has no {' and no '.join(missing)}: save_lora makes one.")
    check_adapter(folder, base_folder)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    _check_plain_lora(config, where)
    if config["r"] > max_rank:
        raise ValueError(f"{where} has rank {config['r']}: load the model with max_lora_rank={config['r']} or more.")
    tensors = load_file(folder / "adapter_model.safetensors")
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    modules = {key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): key for key in tensors if key.endswith(".lora_A.weight")}
    return {f"{module}.weight": (tensors[A].float(), tensors[A.replace("lora_A", "lora_B")].float(), scaling) for module, A in modules.items()}


def _save_lora(model, save_directory):
    """Writes the adapter in training to `save_directory`, whole: adapter_model.safetensors and adapter_config.json."""
    def save(folder):
        model.save_pretrained(folder, save_embedding_layers=False)
        Path(folder, "README.md").unlink()  # PEFT's form to fill in

    save_whole(save, save_directory)
