"""TRL's trainer on the CPU engine: rollouts from it, packed rows for the log-probs, float32 throughout."""

import functools
import logging

from . import checks  # noqa: F401, I001  first: it stops where a package is another one, and lets unsloth mend TRL
import torch
from trl import GRPOConfig
from trl.generation.vllm_generation import VLLMGeneration
from transformers import Trainer
from trl.trainer import grpo_trainer
from vllm.v1.engine.llm_engine import LLMEngine

from grpo_kit.machine import threads
from .checks import GRPOTrainer
from .engine import LIVE, _no_engine

PACK, BATCH = 512, 1024  # tokens in a packed row and in a scoring forward, at most


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
        if compute_entropy:  # a reference model has none
            entropies.append(outputs.entropy[scored])
    zeros, places = logps[0].new_zeros(len(input_ids) * logits_to_keep), (torch.cat(places),)

    def spread(values):
        return zeros.index_put(places, torch.cat(values)).view(len(input_ids), logits_to_keep)

    return spread(logps), spread(entropies) if compute_entropy else None, None


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
