"""What a reader watches while a model trains, the same in a notebook, a terminal and a log file: a small table, and completions."""

from functools import wraps
from statistics import median

import pandas as pd

from grpo_kit.rewards.answers import extract_answer
from grpo_kit.rewards.functions import completion_text


class Watcher:
    """A TrainerCallback by its methods and not by its base: Unsloth has to be imported before transformers, and this may come before both."""

    def __getattr__(self, name):
        if name.startswith("on_"):
            return lambda *args, **kwargs: None  # the trainer's other events
        raise AttributeError(name)


class LiveTable(Watcher):
    """Prints a row every few steps of a GRPOTrainer: the means of those steps, and the minutes left.

    It stands in for the trainer's own display, which shows every metric of every step: set
    `disable_tqdm=True` and `logging_steps=1` in GRPOConfig, pass `callbacks=[LiveTable()]`, then
    `trainer.remove_callback(PrinterCallback)`.
    """

    def __init__(self, every=5):
        self.every = every
        self.logs, self.seconds, self.header = [], [], False

    def on_log(self, args, state, control, logs, **kwargs):
        if "reward" not in logs or not state.is_world_process_zero:
            return  # the summary at the end, or a process beside the first
        names = {key: key.split("/")[1] for key in logs if key.startswith("rewards/") and key.endswith("/mean")}
        names = {"reward": "reward"} | names | {"completions/mean_length": "tokens", "step_time": "step_time"}
        if not self.header:
            print(" " * 12, f"{'step':>{5 + len(str(state.max_steps))}}", *names.values(), "  left", sep="  ")
            self.header = True
        self.logs.append({name: float(logs[key]) for key, name in names.items()})
        self.seconds = [*self.seconds, float(logs["step_time"])][-9:]  # their middle is the guess: the first step compiles
        step, last = state.global_step, state.max_steps
        if step % self.every == 0 or step == last:
            means, self.logs = pd.DataFrame(self.logs).mean(), []
            bar = ("█" * round(12 * step / last)).ljust(12, "░")
            cells = [f"{mean:{len(name)}.2f}" for name, mean in means.items()]
            print(bar, f"{step:4}/{last}", *cells, f"{(last - step) * median(self.seconds) / 60:3.0f} min", sep="  ", flush=True)


def show_some(reward_func, every):
    """`reward_func`, which also prints a completion every `every` steps: the question, its answer, the response, what is extracted.

    It is the first completion of the batch, not a picked one. With `every` 0 it prints none. The name, under which TRL logs
    the reward, is kept; `trainer_state` is TRL's.
    """

    @wraps(reward_func)
    def reward_and_show(prompts, completions, answer, trainer_state, **columns):
        step = trainer_state.global_step
        if every and step % every == 0 and trainer_state.is_world_process_zero:
            response = completion_text(completions[0])
            print(f"\n--- after {step} steps\nQuestion:  {completion_text(prompts[0])}\nAnswer:    {answer[0]}")
            print(f"Response:  {response}\nExtracted: {extract_answer(response)}\n", flush=True)
        return reward_func(prompts=prompts, completions=completions, answer=answer, trainer_state=trainer_state, **columns)

    return reward_and_show
