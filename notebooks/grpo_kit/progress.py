"""One small table that grows while a model trains, the same in a notebook, a terminal and a log file."""

import pandas as pd
from transformers import TrainerCallback


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
