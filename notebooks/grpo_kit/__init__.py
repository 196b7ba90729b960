"""What the chapters share: each module does one job (see its docstring), and none is imported before it is used.

`from grpo_kit import FastLanguageModel` gives Unsloth's own class on a GPU; without one, Unsloth's CPU class with a
vLLM engine beside it. Importing `grpo_kit` or `grpo_kit.rewards` loads neither torch, unsloth nor vllm; it sets what
keeps a training steady beside other processes, so it comes before torch.
"""

from . import threads

threads.prepare()


def __getattr__(name):
    if name == "FastLanguageModel":
        from .model import FastLanguageModel

        return FastLanguageModel
    raise AttributeError(f"module 'grpo_kit' has no attribute {name!r}")
