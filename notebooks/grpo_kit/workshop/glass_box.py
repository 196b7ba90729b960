"""Records the training that the site's page "Glass box" replays: notebooks/results/glass_box.json, a few hundred kB.

    python -m grpo_kit.workshop.glass_box

The quickstart's training on the embedded default, shortened to 40 steps. At every fourth step it keeps the rewards and lengths of
the whole batch, and of its first four groups every completion: its tokens and their log-probabilities under the policy before
the step's update and after it. Advantages are kept as TRL computed them, for a test of the page's own. Interrupted, it goes on
from its checkpoint in notebooks/outputs/glass_box/ when the same command is given again.
"""

import datetime
import importlib.metadata as metadata
import json
import os
import shutil
from pathlib import Path

from . import bench
from .controls import quickstart_settings, rewards_for
from .step_cost import PROJECTIONS, ROOT, SEED

RESULT = ROOT / "notebooks/results/glass_box.json"
FOLDER = ROOT / "notebooks/outputs/glass_box"
STEPS, EVERY, GROUPS = 40, 4, 4


def token_logps(model, prompt, completion):
    """The log-probabilities, in nats, of the token ids `completion` after the ids `prompt` under the model as it is now: a list."""
    import torch

    with torch.no_grad():
        ids = torch.tensor([prompt + completion])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        return logits.log_softmax(dim=-1).gather(-1, ids[0, len(prompt) :, None])[:, 0].tolist()


class Recorder:
    """Follows a trainer: `scored` when a batch has its rewards, `updated` after the step; a line of `file` for each step that is kept."""

    def __init__(self, trainer, file):
        self.trainer, self.file, self.open, self.step = trainer, file, [], None
        generate = trainer._generate_and_score_completions

        def recorded(inputs):
            batch = generate(inputs)
            if trainer.state.global_step % EVERY == 0 or trainer.state.global_step == STEPS - 1:
                self.scored(inputs, batch)
            return batch

        trainer._generate_and_score_completions = recorded

    def scored(self, inputs, batch):
        size, args = len(inputs), self.trainer.args
        ids = [[row[kept.bool()].tolist() for row, kept in zip(batch[f"{part}_ids"], batch[f"{part}_mask"])]
               for part in ("prompt", "completion")]
        self.open = [(prompt, completion, {"ids": completion}) for prompt, completion in zip(*ids)][: GROUPS * args.num_generations]
        for prompt, completion, kept in self.open:
            kept["before"] = rounded(token_logps(self.trainer.model, prompt, completion))
        logs = self.trainer._logs
        self.step = {
            "step": self.trainer.state.global_step,
            "rewards": {name.removesuffix("_reward"): [round(value, 4) for value in list(values)[-size:]] for name, values in logs["rewards"].items()},
            "lengths": [len(completion) for completion in ids[1]],
            "advantages": [round(value, 5) for value in list(logs["advantages"])[-size:]],
            "groups": [{"question": inputs[first]["prompt"][-1]["content"], "gold": inputs[first]["answer"],
                        "completions": [kept for _, _, kept in self.open[first : first + args.num_generations]]}
                       for first in range(0, len(self.open), args.num_generations)]}

    def updated(self):
        from grpo_kit.data.instructions import write_jsonl
        from grpo_kit.training.resume import read_log

        for prompt, completion, kept in self.open:
            kept["after"] = rounded(token_logps(self.trainer.model, prompt, completion))
        if self.step:
            earlier = [line for line in read_log(self.file) if line["step"] < self.step["step"]]  # after it: of a run that was interrupted
            write_jsonl([*earlier, self.step], self.file)
        self.open, self.step = [], None


def rounded(values):
    return [round(value, 3) for value in values]


def pieces(tokenizer, steps):
    """{id: text} of the tokens that occur; a space and a newline as themselves."""
    used = {token for step in steps for group in step["groups"] for one in group["completions"] for token in one["ids"]}
    texts = {token: tokenizer.convert_ids_to_tokens(token).replace("\u2581", " ") for token in sorted(used)}
    return {token: "\n" if text == "<0x0A>" else text for token, text in texts.items()}


def main():
    from grpo_kit import FastLanguageModel  # before trl
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.machine.profile import choose_profile
    from grpo_kit.rewards.ends import end_tokens
    from grpo_kit.training.resume import Resumable, read_log, whole_checkpoint
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    os.chdir(ROOT / "notebooks")  # the profile names its folders from there
    profile = choose_profile()
    model, tokenizer = FastLanguageModel.from_pretrained(
        profile.model, max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True,
        max_lora_rank=profile.lora_rank, gpu_memory_utilization=profile.gpu_memory_utilization)
    model = FastLanguageModel.get_peft_model(
        model, r=profile.lora_rank, lora_alpha=profile.lora_rank, target_modules=PROJECTIONS, random_state=SEED)
    rewards, weights = rewards_for("full", SEED, end_tokens(tokenizer, model.generation_config))
    changed = {"output_dir": str(FOLDER / "checkpoints"), "reward_weights": weights, "max_steps": STEPS, "seed": SEED}
    args = GRPOConfig(**quickstart_settings(profile) | changed)
    trainer = GRPOTrainer(model=model, processing_class=tokenizer, args=args, reward_funcs=rewards,
                          train_dataset=make_dataset(profile, "train", tokenizer), callbacks=[Resumable(args)])
    recorder = Recorder(trainer, FOLDER / "steps.jsonl")

    class AfterEachStep(TrainerCallback):
        def on_step_end(self, args, state, control, **arguments):
            recorder.updated()

    trainer.add_callback(AfterEachStep())
    trainer.train(resume_from_checkpoint=whole_checkpoint(args.output_dir))
    steps = read_log(recorder.file)
    result = {
        "machine": bench.machine(), "date": datetime.date.today().isoformat(), "seed": SEED,
        "command": "python -m grpo_kit.workshop.glass_box", "versions": {name: metadata.version(name) for name in bench.PACKAGES},
        "settings": {"steps": STEPS, "group": args.num_generations, "learning_rate": args.learning_rate, "loss_type": args.loss_type,
                     "scale_rewards": args.scale_rewards, "epsilon": args.epsilon, "epsilon_high": args.epsilon_high or args.epsilon,
                     "weights": {function.__name__.removesuffix("_reward"): weight for function, weight in zip(rewards, weights)}},
        "pieces": pieces(tokenizer, steps), "steps": steps}
    part = Path(f"{RESULT}.part")
    part.write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")  # indented, it would be twice as large
    os.replace(part, RESULT)
    shutil.rmtree(FOLDER)
    print(f"saved as {RESULT.relative_to(ROOT)}: {RESULT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
