"""GRPO steps of Qwen2.5-3B's shape on a GPU, timed and weighed: with the profile 16gb, and with TRL alone on the same batch.

The weights are random, so nothing is downloaded and nothing is learned; what a step costs does not depend on them. The
tokens are the small model's: of the vocabulary only those can be sampled, and the end-of-turn token ends nothing, so all
completions have the full length. `grpo_kit.workshop.gpu_check` runs these parts.
"""

import os
import sys
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from grpo_kit.machine.memory import memory_plan
from grpo_kit.machine.memory_here import memory_in_use
from grpo_kit.machine.profile import PROFILES
from .step_cost import MODEL, PROJECTIONS, SEED

QWEN_3B = dict(hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
               vocab_size=151936)
BUDGET = 16e9  # bytes: of a larger card, no more is used
LENGTH, STEPS = 256, 3  # tokens a completion where configurations are compared; steps after a warm-up
PROMPTS = [4, 16, 64, 256]  # asked at once for the tokens a second


def make_shape(folder, device, sizes=QWEN_3B):
    """A model of random weights with the small model's tokenizer, saved in `folder` unless it is there already."""
    folder = Path(folder)
    if folder.exists():
        return
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(**sizes, **ends, tie_word_embeddings=True, max_position_embeddings=32768)
    torch.manual_seed(SEED)
    with torch.device(device):
        model = Qwen2ForCausalLM(config).bfloat16()
    embedding = model.get_input_embeddings().weight.data
    embedding[len(tokenizer) :] = 0  # a score of 0, where those of the known tokens are large both ways
    embedding[: len(tokenizer)] *= 25
    part = folder.with_name(folder.name + ".part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)


def spread_reward(completions, **columns):
    """0, 1 or 2 by turns: in groups of 4 or 8 the advantages are never all 0."""
    return [float(number % 3) for number, _ in enumerate(completions)]


class Meter:
    """Seconds and peaks of memory (GB) of the parts of a training's steps; asked every 10 ms while it is open."""

    def __init__(self):
        self.seconds, self.peaks = defaultdict(list), defaultdict(float)
        self.part, self.done = "between", threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def watch(self):
        while not self.done.wait(0.01):
            self.peaks[self.part] = max(self.peaks[self.part], memory_in_use() / 1e9)

    def timed(self, owner, method, part):
        """Makes `owner.method` add its seconds, and its memory, to `part`."""
        import torch

        function = getattr(owner, method)

        def wrapper(*args, **kwargs):
            outer, self.part = self.part, part
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.seconds[part].append(time.perf_counter() - start)
                self.part = outer

        setattr(owner, method, wrapper)


def measure(trainer):
    """Trains; {"first step", "step", "generate", "training": seconds, "tokens a completion", "peak, GB"}, without the first step.

    `training` is all of a step but the rollout: the log-probs, the gradient and the update.
    """
    with Meter() as meter:
        meter.timed(trainer, "_generate_single_turn", "generate")
        meter.timed(trainer, "_generate_and_score_completions", "rollout")
        meter.timed(trainer, "training_step", "training")  # a rollout is called inside the first of a step
        trainer.train()
    logs = [log for log in trainer.state.log_history if "step_time" in log]
    steps, rollouts = [log["step_time"] for log in logs], meter.seconds["rollout"]
    return {
        "first step": steps[0],
        "step": steps[1:],
        "generate": meter.seconds["generate"][1:],
        "training": [step - rollout for step, rollout in zip(steps[1:], rollouts[1:], strict=True)],
        "tokens a completion": logs[-1]["completions/mean_length"],
        "peak, GB": dict(meter.peaks),
    }


def settings(profile, length, steps, **more):
    """The quickstart's settings as far as they cost time, as a GRPOConfig."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir="outputs/gpu_check/trainer", learning_rate=profile.learning_rate, max_grad_norm=0.5, max_steps=steps,
        per_device_train_batch_size=profile.per_device_train_batch_size,
        gradient_accumulation_steps=profile.gradient_accumulation_steps, num_generations=profile.num_generations,
        max_completion_length=length, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, seed=SEED, **more)


def problems(profile, tokenizer):
    from grpo_kit.data.rows import make_dataset

    return make_dataset(replace(profile, data="embedded"), "train", tokenizer)


def engine(folder, save, budget=BUDGET, lengths=None, prompts=PROMPTS):
    """Saves the figures of Unsloth's 4-bit policy with vLLM beside it, as in the quickstart, within `budget` bytes."""
    import torch

    from grpo_kit import FastLanguageModel
    from transformers import AutoConfig
    from trl import GRPOTrainer
    from vllm import SamplingParams

    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else budget
    share = PROFILES["16gb"].gpu_memory_utilization * budget / memory
    profile = replace(PROFILES["16gb"], model=str(folder), gpu_memory_utilization=share)
    lengths = lengths or {LENGTH: 1 + STEPS, profile.max_completion_length: 2}
    start = time.perf_counter()
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True,
        max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
    save({"load": time.perf_counter() - start})
    model = FastLanguageModel.get_peft_model(
        model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS,
        use_gradient_checkpointing="unsloth", random_state=SEED)
    dataset = problems(profile, tokenizer)
    texts = [tokenizer.apply_chat_template(row, tokenize=False, add_generation_prompt=True) for row in dataset["prompt"]]
    longest = max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
    plan = memory_plan(AutoConfig.from_pretrained(folder), PROFILES["16gb"], budget, longest)
    save({"plan, GB": (plan.sum() / 1e9).to_dict(), "plan": (plan / 1e9).to_dict()})

    params, rates = SamplingParams(temperature=1.0, max_tokens=min(lengths), ignore_eos=True), {}
    model.fast_generate(texts[:4], sampling_params=params, use_tqdm=False)  # what is compiled at first use
    for count in prompts:
        start = time.perf_counter()
        outputs = model.fast_generate(texts[:count], sampling_params=params, use_tqdm=False)
        rates[count] = sum(len(output.outputs[0].token_ids) for output in outputs) / (time.perf_counter() - start)
    save({"tokens/s of so many prompts": rates})
    for length, steps in lengths.items():
        args = settings(profile, length, steps, use_vllm=True, optim="adamw_8bit", generation_kwargs={"ignore_eos": True})
        trainer = GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=[spread_reward], args=args, train_dataset=dataset)
        save({f"{length} tokens": measure(trainer)})


def trl_alone(how, folder, save, length=LENGTH, steps=1 + STEPS):
    """Saves the figures of TRL without Unsloth: 16-bit weights with LoRA, sampled with `generate` or with TRL's own "vllm"."""
    if how == "vllm":
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # as Unsloth sets it where FlashInfer cannot be compiled
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOTrainer

    profile = replace(PROFILES["16gb"], model=str(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to("cuda")
    sampler = {"generate": {"generation_kwargs": {"min_new_tokens": length}},
               "vllm": {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3,
                        "vllm_max_model_length": profile.max_seq_length, "generation_kwargs": {"ignore_eos": True}}}[how]
    adapter = LoraConfig(r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS)
    start = time.perf_counter()
    trainer = GRPOTrainer(
        model=model, processing_class=tokenizer, reward_funcs=[spread_reward], train_dataset=problems(profile, tokenizer),
        args=settings(profile, length, steps, bf16=True, optim="adamw_torch", **sampler), peft_config=adapter)
    save({"load": time.perf_counter() - start})
    save({f"{length} tokens": measure(trainer)})


if __name__ == "__main__":
    make_shape(sys.argv[1], "cuda")
