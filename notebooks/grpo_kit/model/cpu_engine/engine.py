"""One vLLM engine beside the policy it serves, and Unsloth's class with it: `fast_inference=True` without a GPU."""

import contextlib
import functools
import gc
import inspect
import sys
import weakref
from pathlib import Path

from . import checks  # noqa: F401, I001  first: it stops where a package is another one, and lets unsloth mend TRL
import unsloth
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers.utils import logging as transformers_logging
from vllm import LLM, _custom_ops
from vllm.lora.request import LoRARequest
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.v1.sample import sampler
from vllm.v1.sample.ops import topk_topp_sampler

from grpo_kit.model.folder import check_model
from grpo_kit.model.identity import check_adapter, sign
from grpo_kit.model.small_real_model import FOLDER, small_real_model
from .weights import _base_weights, _check_plain_lora, _live_adapter, _one_product, _save_lora, _saved_adapter

transformers_logging.disable_progress_bar()  # a local folder loads in a second
BASE, LIVE = "the base model", "the policy"  # what the engine can hold, beside a saved adapter
_set_num_threads = torch.set_num_threads  # vLLM puts a function in its place that does nothing
_engine = lambda: None  # noqa: E731  a weak reference to the one of this process: it lives as long as its model


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
        self.folder, self.max_lora_rank, self.requests = Path(folder), max_lora_rank, 0
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
        """Ends the engine and gives its memory back; a second call does nothing."""
        if self.llm is not None:
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
                adapter = _saved_adapter(what.lora_path, self.folder, self.max_lora_rank)
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
        _saved_adapter(save_directory, self.folder, self.max_lora_rank)
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
        """(model, tokenizer) of a local folder, computing in float32; the small real model's is made where it is absent.

        Accepted and without effect here: `gpu_memory_utilization` (VLLM_CPU_KVCACHE_SPACE bounds the engine's cache)
        and `use_gradient_checkpointing` (costs a third of a step to save memory that is not short).
        """
        global _engine
        if Path(model_name) == FOLDER:
            small_real_model()  # fetches it, the first time
        check_model(model_name, fast_inference)
        if str(dtype).removeprefix("torch.") not in ("None", "float32"):
            raise ValueError(f"dtype={dtype}: without a GPU everything is computed in float32, pass dtype=None.")
        if Path(model_name, "adapter_config.json").is_file() and not fast_inference:
            check_adapter(model_name)  # a missing matrix would be drawn at random
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
        sign(peft_model)
        peft_model.save_lora = functools.partial(_save_lora, peft_model)
        for module in peft_model.modules():
            if isinstance(module, LoraLayer) and hasattr(module, "lora_variant"):
                _one_product(module)
        if engine:
            _check_plain_lora(peft_model.peft_config["default"].to_dict(), "this adapter")
            engine.policy = peft_model
            peft_model.fast_generate, peft_model.load_lora = engine.generate, engine.load_lora
        return peft_model
