"""vLLM beside a 4-bit policy on a machine without a GPU: rollouts for TRL, `fast_generate`, `save_lora`, `load_lora`.

The engine holds its own float32 copy of the weights. Before a rollout the policy's are pushed into it: the dequantised
base plus `scaling * B @ A`, computed beside the policy, which stays untouched. So the log-probs of what the engine
samples are the policy's own, up to float32 rounding (about 1e-6), and need no correction.

Only this folder knows the insides of vLLM, TRL and Unsloth, and `checks` looks at import whether they are still so.

Memory: 1 GiB for the engine's KV cache (VLLM_CPU_KVCACHE_SPACE) and 8 bytes a parameter, one float32 copy for the
engine and one for the training forward. A process has one engine: it ends with its model, or when a second is loaded.
"""

from . import trl_rollouts  # noqa: F401  importing it lets TRL roll out on the engine
from .engine import FastLanguageModel  # noqa: F401
