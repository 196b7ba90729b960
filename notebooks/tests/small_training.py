"""A training of six steps as the quickstart's cells do it, in processes that may be killed at a chosen instant.

    python small_training.py        # then, on stdin, a line of JSON for each process: {"folder": …, "at": …, "nth": …}

What takes long, the imports, is done once; each line forks a process. `at` names one of INSTANTS, and the process is killed by
signal 9 (or gets SIGINT, with "signal": 2) just before the nth time that it comes there. Printed for each: its exit status, as
Python's subprocess gives it. In the folder it leaves what the chapters do, and counts.json: how often it came to each instant.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from grpo_kit import FastLanguageModel  # before transformers
import peft
import torch
from transformers import PrinterCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer
from vllm import LLM, SamplingParams

from grpo_kit.data.rows import make_dataset
from grpo_kit.export.merge import new_export
from grpo_kit.machine.profile import choose_profile
from grpo_kit.measure.ask import evaluate
from grpo_kit.model import whole as whole_module
from grpo_kit.model.identity import sign
from grpo_kit.model.whole import save_whole
from grpo_kit.rewards import format_reward, tag_reward
from grpo_kit.training import resume
from grpo_kit.training.progress import LiveTable
from grpo_kit.training.resume import JsonLog, Resumable, whole_checkpoint

ROOT = Path(__file__).resolve().parents[2]
INSTANTS = {  # what runs there
    "rollout": (LLM, "generate"), "backward": (torch.Tensor, "backward"), "log": (JsonLog, "write"), "optimiser": (torch, "save"),
    "state": (TrainerState, "save_to_json"), "rotation": (resume.shutil, "rmtree"), "weights": (peft.peft_model, "safe_save_file"),
    "in place": (whole_module, "put_in_place"), "adapter": (peft.PeftModel, "save_pretrained")}


def arm(counts, job):
    """Counts how often each instant comes, and sends the signal when it is the job's turn."""
    def wrap(owner, function, name):
        original = getattr(owner, function)

        def wrapped(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            if (name, counts[name]) == (job.get("at"), job.get("nth")):
                os.kill(os.getpid(), job.get("signal", signal.SIGKILL))
            return original(*args, **kwargs)

        setattr(owner, function, wrapped)

    for name, (owner, function) in INSTANTS.items():
        wrap(owner, function, name)


def train(folder, **changes):
    """The cells 2 to 12 of the quickstart, with fewer questions and an export behind them."""
    profile = choose_profile(max_steps=6, num_generations=4, per_device_train_batch_size=8, max_completion_length=24, **changes)
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=str(ROOT / "data/tiny-model"), max_seq_length=256, load_in_4bit=True, fast_inference=True, max_lora_rank=4)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], random_state=3407)
    dataset = make_dataset(profile, "train", tokenizer).select(range(64))
    training_args = GRPOConfig(
        output_dir=str(folder / "checkpoints"), save_steps=2, save_total_limit=1, use_vllm=True, max_steps=profile.max_steps,
        num_generations=profile.num_generations, max_completion_length=profile.max_completion_length,
        per_device_train_batch_size=profile.per_device_train_batch_size, learning_rate=profile.learning_rate, optim="adamw_8bit",
        scale_rewards="none", logging_steps=1, report_to="none", disable_tqdm=True, seed=3407)
    sign(model, profile, training_args.seed)
    log = JsonLog(folder / "log.jsonl", lambda: "asked", every=3)
    trainer = GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=[format_reward, tag_reward], args=training_args,
                          train_dataset=dataset, callbacks=[log, LiveTable(), Resumable(training_args)])
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=whole_checkpoint(training_args.output_dir))
    save_whole(model.save_lora, folder / "adapter")
    lora_request = model.load_lora(str(folder / "adapter"))
    params = SamplingParams(temperature=0.0, max_tokens=profile.max_completion_length)
    evaluate(model, dataset.select(range(4)), tokenizer, params, lora_request).save(folder / "after.json")
    with new_export(folder / "export", replace=True) as export:
        model.save_pretrained(str(export), save_embedding_layers=False)
    (folder / "steps").write_text(str(trainer.state.global_step))


def one_process(job):
    folder, counts = Path(job["folder"]), {}
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        os.dup2(os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    arm(counts, job)
    try:
        train(folder, **job.get("changes", {}))
    except BaseException as error:
        (folder / "error").write_text(f"{type(error).__name__}: {error}")
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(3)
    (folder / "counts.json").write_text(json.dumps(counts))
    os._exit(0)


def main():
    os.chdir(ROOT / "notebooks")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background processes ignore it
    for line in sys.stdin:
        began = time.monotonic()
        if (process := os.fork()) == 0:
            one_process(json.loads(line))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"status": status, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
