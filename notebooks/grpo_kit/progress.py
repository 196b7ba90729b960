"""What a training shows while it runs, the same in a notebook, a terminal and a log file: a table, and completions."""

from functools import wraps

import pandas as pd
from transformers import TrainerCallback

from grpo_kit.answers import extract_answer
from grpo_kit.rewards import completion_text


class LiveTable(TrainerCallback):
    """Prints a row every few steps of a GRPOTrainer: the means of those steps, and the minutes left.

    It stands in for the trainer's own display, which shows every metric of every step: set
    `disable_tqdm=True` and `logging_steps=1` in GRPOConfig, pass `callbacks=[LiveTable()]`, then
    `trainer.remove_callback(PrinterCallback)`.
    """

    def __init__(self, every=5):
        self.every = every
        self.logs, self.header = [], False

    def on_log(self, args, state, control, logs, **kwargs):
        if "reward" not in logs or not state.is_world_process_zero:
            return  # the summary at the end, or a process beside the first
        names = {key: key.split("/")[1] for key in logs if key.startswith("rewards/") and key.endswith("/mean")}
        names = {"reward": "reward"} | names | {"completions/mean_length": "tokens", "step_time": "step_time"}
        if not self.header:
            print(" " * 12, f"{'step':>{5 + len(str(state.max_steps))}}", *names.values(), "  left", sep="  ")
            self.header = True
        self.logs.append({name: float(logs[key]) for key, name in names.items()})
        step, last = state.global_step, state.max_steps
        if step % self.every == 0 or step == last:
            means, self.logs = pd.DataFrame(self.logs).mean(), []
            bar = ("█" * round(12 * step / last)).ljust(12, "░")
            cells = [f"{mean:{len(name)}.2f}" for name, mean in means.items()]
            print(bar, f"{step:4}/{last}", *cells, f"{(last - step) * means['step_time'] / 60:3.0f} min", sep="  ", flush=True)


def printing(reward_func, every=10):
    """Return `reward_func`, which also prints a completion every few steps: question, gold, response, extracted answer.

    A reward function is where the trainer hands over its completions. It prints the first of the step, whatever it
    earned; the name, under which TRL logs the reward, is kept.
    """

    @wraps(reward_func)
    def reward_and_print(completions, question, answer, trainer_state, **columns):
        if trainer_state.global_step % every == 0:
            text = completion_text(completions[0])
            shown = text.strip().replace("\n", " ⏎ ")
            print(f"step {trainer_state.global_step}: {question[0]} (gold: {answer[0]})")
            print(f"    response:  {shown[:150]}{' …' if len(shown) > 150 else ''}")
            print(f"    extracted: {extract_answer(text)}", flush=True)
        return reward_func(completions=completions, question=question, answer=answer, **columns)

    return reward_and_print
