"""GRPO in several processes, each of which writes down what it did. Started by accelerate or torchrun, with a YAML of `trl grpo`:

    accelerate launch --config_file launch/accelerate/processes.yaml launch/train.py --config launch/embedded.yaml

It is `trl grpo` with three additions: it runs without a GPU, every process (rank) writes a line a step to
`output_dir`/rank_N.jsonl, and a run that was killed goes on from its last whole checkpoint when the same command is given.
Without a GPU it also sees to it that `ddp_timeout` counts, which transformers hands on only where there is one.
"""

import hashlib
import importlib
import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the rewards are named by their dotted paths from here

import grpo_kit  # noqa: F401  before torch
import torch
import torch.distributed as dist

if not torch.accelerator.is_available():  # TRL and PEFT would import these; it takes as long as ten steps here, and nothing uses them
    sys.modules |= dict.fromkeys(("vllm", "torchao", "bitsandbytes"))

import trl.trainer.utils
from accelerate import DistributedType, PartialState
from accelerate.utils import gather_object
from datasets import load_dataset
from safetensors.torch import save_file
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer, ModelConfig, TrlParser, get_peft_config
from trl.scripts.grpo import GRPOScriptArguments

from grpo_kit.training.resume import NoLastCheckpoint, read_log, whole_checkpoint


HASHED = 10**7  # numbers; a hash of billions would take longer than the step


class PlainLogProbs:
    """What TRL's Triton kernel computes, in plain torch: for a machine without a GPU."""

    @staticmethod
    def apply(hidden, weight, bias, targets, temperature, chunk, softcap, scale, outputs):
        """(tokens, width) of hidden states to (tokens,) of log-probabilities and of entropies; three more that nobody asks for."""
        logs = (torch.nn.functional.linear(hidden, weight, bias).float() / temperature).log_softmax(dim=-1)
        entropy = -(logs.exp() * logs).sum(dim=-1).detach()
        return logs.gather(1, targets[:, None])[:, 0], entropy, None, None, None


@dataclass
class Given:
    """What this script takes beside TRL's settings.

    `rollouts`: a file of completions. The first process that finds none samples them, and writes it; later runs train on its
    completions. `losses`: a `loss_type` for each step, all on the same questions and on the completions of the file.
    `leave_timeout`: leaves the processes' patience as transformers sets it, for `make scale`, which shows what then happens.
    `threads`: of each process, in the place of OMP_NUM_THREADS.
    """

    rollouts: str | None = None
    losses: list[str] | None = None
    leave_timeout: bool = False
    threads: int | None = None


def whole(tensor):
    """A parameter or gradient in float32 on the CPU; under FSDP2 all ranks must ask, and their shares are gathered."""
    return getattr(tensor, "full_tensor", lambda: tensor)().detach().float().cpu()


def held(tensors):
    """How many numbers of the tensors this process holds, under FSDP2 its shares; None is none."""
    return sum(getattr(tensor, "to_local", lambda: tensor)().numel() for tensor in tensors if tensor is not None)


def held_gradients(model):
    """How many numbers of gradients this process holds, with those that FSDP2 has not shared out yet: torch shows them nowhere else."""
    groups = {part._get_fsdp_state()._fsdp_param_group for part in model.modules() if isinstance(part, FSDPModule)} - {None}
    unshared = [getattr(weight, "_unsharded_param", weight).grad for group in groups for weight in group.fsdp_params if weight.sharded_param.requires_grad]
    return held(weight.grad for weight in model.parameters()) + held(unshared)


class Diary(TrainerCallback):
    """A line a step: when this process sampled and waited, its share of the loss, the hash of what it trains (of `HASHED` numbers at most).

    And how many numbers it holds: of the weights ("holds"), and of the gradients after each batch and after the update ("gradients").
    Where the completions come from a file, rank 0 also keeps the gradients of the first step, and what is trained after it.
    """

    def __init__(self, args, given):
        self.rank, self.world, self.losses = args.process_index, args.world_size, given.losses
        self.from_file = given.rollouts is not None
        self.folder, self.parts, self.loss, self.tokens, self.longest, self.trainer = Path(args.output_dir), [], 0.0, 0, 0, None
        self.file = self.folder / f"rank_{self.rank}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def part(self, name):
        """Notes when the block began and ended, in seconds since 1970, and the processor's seconds."""
        began, cpu = time.time(), time.process_time()
        yield
        self.parts.append([name, began, time.time(), time.process_time() - cpu])

    def all_reduce(self, _, bucket):
        """DDP's hook, called when a part of the gradients is ready here; until all ranks have theirs, this one waits."""
        began = time.time()
        future = dist.all_reduce(bucket.buffer().div_(self.world), async_op=True).get_future()

        def done(future):
            self.parts.append(["gradients", began, time.time(), 0.0])
            return future.value()[0]

        return future.then(done)

    def on_train_begin(self, args, state, control, **kwargs):
        kept = [line for line in read_log(self.file) if line["step"] <= state.global_step]  # the others are trained again
        self.file.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def on_step_begin(self, args, state, control, **kwargs):
        if self.losses:
            self.trainer.loss_type = self.losses[state.global_step]
        self.parts, self.loss, self.tokens, self.longest, self.gradients = [], 0.0, 0, 0, []
        self.began, self.cpu = time.time(), time.process_time()

    def keep(self, tensors, name):
        if self.from_file:
            gathered = {key: whole(tensor) for key, tensor in tensors.items()}
            if self.rank == 0:
                save_file(gathered, self.folder / f"{name}.safetensors")

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.losses or state.global_step == 0:
            self.keep({name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}, f"gradient_{self.trainer.loss_type}")

    def on_step_end(self, args, state, control, model=None, **kwargs):
        trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
        if state.global_step == 1:
            self.keep(trained, "adapter_1")
        digest, left = hashlib.sha256(), HASHED
        for tensor in trained.values():
            if tensor.numel() <= left:
                digest.update(whole(tensor).numpy().tobytes())
                left -= tensor.numel()
        line = {"step": state.global_step, "rank": self.rank, "pid": os.getpid(), "loss": self.loss, "tokens": self.tokens, "longest": self.longest,
                "adapter": digest.hexdigest()[:16], "holds": held(model.parameters()),
                "gradients": [*self.gradients, held_gradients(model)], "began": self.began, "seconds": time.time() - self.began,
                "cpu": time.process_time() - self.cpu, "parts": self.parts}
        with open(self.file, "a") as file:
            file.write(json.dumps(line) + "\n")


class WatchedTrainer(GRPOTrainer):
    """A GRPOTrainer whose processes keep a `Diary`, and which can train on the completions of a file."""

    def __init__(self, given, diary, **options):
        super().__init__(**options)
        self.given, self.diary, self.hooked, diary.trainer = given, diary, False, self
        if self.is_fsdp_enabled:  # each layer is fetched from all ranks, so all stay in generate() until the last completion is done
            self.accelerator.unwrap_model(self.model).base_model.model._is_fsdp_managed_module = True

    def _generate_single_turn(self, prompt_ids, *arguments, **options):
        file = Path(self.given.rollouts) if self.given.rollouts and (self.given.losses or self.state.global_step == 0) else None
        if file and file.is_file():
            return self.read(file, prompt_ids), None
        with self.diary.part("rollouts"):
            completions, logprobs = super()._generate_single_turn(prompt_ids, *arguments, **options)
        self.diary.tokens += sum(map(len, completions))
        self.diary.longest = max(self.diary.longest, *map(len, completions))
        with self.diary.part("others' rollouts"):
            self.accelerator.wait_for_everyone()
        if file:
            file.write_text(json.dumps([prompt_ids, completions]))
        return completions, logprobs

    def read(self, file, prompt_ids):
        """This rank's completions from the file: the step's completions are dealt out in the order of the ranks."""
        prompts, completions = json.loads(file.read_text())
        mine = slice(self.diary.rank * len(prompt_ids), (self.diary.rank + 1) * len(prompt_ids))
        if prompts[mine] != prompt_ids:
            raise ValueError(f"{file} holds completions of other questions: delete it, or train with the seed and the sizes of its run.")
        return completions[mine]

    def training_step(self, model, *arguments):
        if not self.hooked and isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, self.diary.all_reduce)
            self.hooked = True
        loss = super().training_step(model, *arguments)
        self.diary.loss += loss.item()
        self.diary.gradients.append(held_gradients(model))
        return loss


def imported(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def main(words=None):
    parser = TrlParser((Given, GRPOScriptArguments, GRPOConfig, ModelConfig))
    given, script, training_args, model_args = parser.parse_args_and_config(words)
    if training_args.device.type == "cpu":
        trl.trainer.utils._ChunkedLogProbFunction = PlainLogProbs
        training_args.__dict__["_setup_devices"] = torch.device("cpu")  # cached as cpu:0, on which torch.load can put no optimiser
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":  # without a GPU accelerate 1.15 trains copies instead, and says nothing
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        if dist.is_initialized() and not given.leave_timeout:
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=training_args.ddp_timeout))
    if given.threads:
        torch.set_num_threads(given.threads)
    set_seed(training_args.seed)  # for the adapter, which is made before the trainer sets it
    training_args.model_init_kwargs = {"dtype": model_args.dtype}
    dataset = load_dataset(script.dataset_name)[script.dataset_train_split]
    if given.losses:  # the same questions in every step
        dataset = dataset.select(range(training_args.generation_batch_size // training_args.num_generations))
    diary = Diary(training_args, given)
    trainer = WatchedTrainer(
        given, diary, model=model_args.model_name_or_path, args=training_args, train_dataset=dataset, callbacks=[diary, NoLastCheckpoint()],
        reward_funcs=[imported(path) for path in script.reward_funcs], peft_config=get_peft_config(model_args))
    with trainer.accelerator.main_process_first():  # it deletes a checkpoint that was not written to its end
        last = whole_checkpoint(training_args.output_dir)
    found = gather_object([last and Path(last).name])
    if len(set(found)) > 1:
        raise ValueError(f"The ranks find different checkpoints in {training_args.output_dir}, {found}: several hosts need one disk for it.")
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(training_args.output_dir)


if __name__ == "__main__":
    main()
