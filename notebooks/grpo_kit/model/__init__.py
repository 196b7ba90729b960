"""What to load (chapters 02 and 03): `loader` has `FastLanguageModel`, and `cpu_engine` is vLLM for a machine without a GPU,
for which `small_real_model` fetches a model; `identity` knows what an adapter was trained on, and `whole` replaces a folder in one instant.

`from grpo_kit import FastLanguageModel` is the way in.
"""
