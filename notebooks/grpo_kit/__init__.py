"""What the chapters share: a folder for each part of the way, in it modules of one job each (see their docstrings).

`from grpo_kit import FastLanguageModel` gives Unsloth's own class on a GPU; without one, Unsloth's CPU class with a
vLLM engine beside it. Importing `grpo_kit` or `grpo_kit.rewards` loads neither torch, unsloth nor vllm; it sets what
keeps a training steady beside other processes, so it comes before torch. In a notebook its errors are one sentence each.
"""

from .machine import packages, threads

threads.prepare()
packages.short_errors()


def __getattr__(name):
    if name == "FastLanguageModel":
        from .model.loader import FastLanguageModel

        return FastLanguageModel
    raise AttributeError(f"module 'grpo_kit' has no attribute {name!r}")
