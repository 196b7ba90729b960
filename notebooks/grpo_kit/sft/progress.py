"""A supervised training as it runs, and its curves afterwards."""

import time

import pandas as pd
from transformers import TrainerCallback


def loss_curves(log_history):
    """(training, validation): two Series of nats per token over the step, from `trainer.state.log_history`."""
    logs = pd.DataFrame(log_history).set_index("step")
    return logs["loss"].dropna(), logs["eval_loss"].dropna()


class LossTable(TrainerCallback):
    """Prints a row at each evaluation of an SFTTrainer: step, training loss since the last one, validation loss.

    A star marks the lowest validation loss so far. Set `disable_tqdm=True` and `eval_on_start=True` in SFTConfig, pass
    `callbacks=[LossTable()]`, then `trainer.remove_callback(PrinterCallback)`.
    """

    def __init__(self):
        self.losses, self.best, self.start = [], float("inf"), None

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.monotonic()
        print("  step   training   validation   nats per token", flush=True)

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if self.start is None or not state.is_world_process_zero:
            return  # trainer.evaluate() by hand, or a process beside the first
        training = f"{sum(self.losses) / len(self.losses):8.3f}" if self.losses else " " * 8
        star = " *" if metrics["eval_loss"] < self.best else "  "
        self.losses, self.best = [], min(self.best, metrics["eval_loss"])
        left = (state.max_steps - state.global_step) * (time.monotonic() - self.start) / max(1, state.global_step) / 60
        minutes = f"   at most {left:.0f} min left" if state.global_step and left >= 0.5 else ""
        print(f"{state.global_step:6}   {training}   {metrics['eval_loss']:10.3f}{star}{minutes}", flush=True)
