"""Reads the log of a GRPO training and names what is wrong with it, with the evidence and what to do."""

import math
from collections import Counter

import pandas as pd
import torch

# What is wrong · the metric that shows it · where its healthy range ends · what to do. A cause stands before its effects.
FINDINGS = [
    ("learning rate zero", "learning_rate", "above", 0.0, "set learning_rate; look at warmup_steps and the scheduler"),
    ("KL running away", "kl", "below", 1.0, "train again with a lower learning_rate, or a larger beta"),
    ("completions cut off", "completions/clipped_ratio", "below", 0.5, "raise max_completion_length, or reward brevity; if it came suddenly, lower learning_rate"),
    ("entropy collapsed", "entropy", "above", 0.015, "train again with a lower learning_rate, and keep a checkpoint from before the collapse"),
    ("no spread in the rewards", "frac_reward_zero_std", "below", 0.9,
     "read some completions: all right, use harder questions; all wrong, easier ones or partial rewards; all unpaid or all different, mend the reward"),
    ("gradient zero", "grad_norm", "above", 1e-7, "mend what stands above this line; alone: is the adapter trainable, beta 0?"),
]
AGAIN = "train again from a checkpoint without it, with a lower learning_rate; on a GPU that has it, in bfloat16"


def diagnose(log_history, before=None, after=None):
    """What the last quarter of a log shows to be wrong, or NaN and infinity anywhere in it: a DataFrame, empty for a healthy training.

    `log_history` is `trainer.state.log_history`, with logging_steps=1; a metric that it does not hold is passed over.
    `before` and `after`: the trained tensors by name (`trained_tensors`); with both, an adapter that never changed, or
    that holds NaN or infinity, is found. Columns: finding, evidence, what to do. ValueError with fewer than two logged steps.
    """
    logs = pd.DataFrame([log for log in log_history if "reward" in log])
    if len(logs) < 2:
        raise ValueError("The log holds fewer than two steps: train longer, with logging_steps=1.")
    recent, found, named = logs.tail(max(2, len(logs) // 4)), [], set()
    for finding, metric, side, limit, remedy in FINDINGS:
        if metric in recent:
            value = float(recent[metric].mean())
            if not (value > limit if side == "above" else value < limit):  # written so that NaN is a finding
                named.add(metric)
                found.append((finding, f"{metric} = {value:.3g} (healthy: {side} {limit:g})", remedy))
    broken = Counter(name for log in log_history for name, value in log.items() if isinstance(value, float) and not math.isfinite(value))
    if sum(not math.isfinite(value) for value in recent.get("grad_norm", pd.Series()).astype(float)) < 2:
        broken.pop("grad_norm", None)  # a single overflow: half precision's loss scaler skips such a step
    if columns := [f"{name} in {count} steps" for name, count in broken.items() if name not in named]:
        found.append(("NaN or infinity in the log", ", ".join(columns), AGAIN))
    quarter, fallen = len(logs) // 4, []
    for metric in [name for name in logs if name.startswith("rewards/") and name.endswith("/mean") and quarter >= 5]:
        first, last = (float(part[metric].mean()) for part in (logs.head(quarter), logs.tail(quarter)))
        if last < first / 2:
            fallen.append(f"{metric.split('/')[1]} from {first:.2g} to {last:.2g}")
    if fallen:
        found.append(("rewards fell", f"first quarter to last: {', '.join(fallen)}",
                      "read completions: where all fall, lower learning_rate; else, what earns the others without it? give it a larger weight"))
    if broken := [name for name, tensor in (after or {}).items() if not tensor.isfinite().all()]:
        found.append(("NaN or infinity in the adapter", f"{len(broken)} of {len(after)} tensors, the first: {broken[0]}", AGAIN))
    if before and all(torch.equal(before[name], after[name]) for name in before):
        found.append(("the adapter never changed", f"all {len(before)} tensors equal those before", "mend what stands above"))
    return pd.DataFrame(found, columns=["finding", "evidence", "what to do"])


def trained_tensors(model):
    """{name: copy} of the parameters in training."""
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters() if tensor.requires_grad}


def put_back(model, tensors):
    """Gives the parameters in training the values that `trained_tensors` copied, and clears their gradients."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name in tensors:
                tensor.copy_(tensors[name])
    model.zero_grad()
