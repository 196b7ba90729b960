"""What to load (chapters 02 and 03): `loader` has `FastLanguageModel`, and `cpu_engine` is vLLM for a machine without a GPU,
for which `small_real_model` fetches a model.

`from grpo_kit import FastLanguageModel` is the way in.
"""
