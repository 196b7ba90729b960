"""Every question of a set, asked of a model: through an engine, or through transformers' own `generate`."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd

from grpo_kit.rewards.answers import gold_number
from grpo_kit.rewards.ends import end_tokens
from grpo_kit.rewards.functions import correctness_reward, format_reward
from .score import Evaluation, lenient_accuracy


def own_seeds(sampling_params, count):
    """`count` copies of `sampling_params` with the seeds seed, seed + 1, …; without a seed, as they are.

    With one seed for all, one random number would draw the first token of every completion: all of
    them together would blurt or think, and a share over many questions would be worth one question.
    """
    copies = [copy.copy(sampling_params) for _ in range(count)]
    if sampling_params.seed is not None:
        for number, params in enumerate(copies):
            params.seed = sampling_params.seed + number
    return copies


def as_templated(prompts, tokenizer):
    """The prompt strings as an engine takes them that tokenizes by itself: with their token ids where it would add more.

    The chat template has written all that belongs there. A tokenizer that puts BOS before every text would put a second one.
    """
    if getattr(tokenizer, "bos_token_id", None) is None:  # as Qwen's: there is nothing to add
        return prompts
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    if tokenizer(prompts)["input_ids"] == ids:
        return prompts
    return [{"prompt": prompt, "prompt_token_ids": tokens} for prompt, tokens in zip(prompts, ids)]


def evaluate(model, dataset, tokenizer, sampling_params, lora_request=None):
    """Ask `model` every question of `dataset` once and score the first sample: an `Evaluation`.

    `dataset` has the columns `prompt` (chat messages) and `answer` (normalised gold). As in
    Unsloth, `lora_request=None` asks the base model, `model.load_lora(dir)` the trained one.
    Raises ValueError for a gold answer that is not a number.
    """
    golds = list(dataset["answer"])
    if not golds or None in map(gold_number, golds):
        raise ValueError("Every question needs a number as its gold: look at dataset['answer'].")
    template = tokenizer.apply_chat_template
    prompts = [template(row, tokenize=False, add_generation_prompt=True) for row in dataset["prompt"]]
    params = own_seeds(sampling_params, len(prompts))
    requests = model.fast_generate(as_templated(prompts, tokenizer), sampling_params=params, lora_request=lora_request, use_tqdm=False)
    outputs = [request.outputs[0] for request in requests]
    texts = [output.text for output in outputs]
    rows = {
        "prompt": prompts,
        "text": texts,
        "layout": np.array(format_reward(texts)) > 0,
        "strict": np.array(correctness_reward(texts, golds)) > 0,
        "lenient": np.array(lenient_accuracy(texts, golds)) > 0,
        "truncated": [output.finish_reason == "length" for output in outputs],
        "length": [len(output.token_ids) for output in outputs],
    }
    return Evaluation(pd.DataFrame(rows))


def evaluate_with_generate(model, dataset, tokenizer, max_new_tokens, temperature=1.0, seed=3407, batch_size=100, begun=""):
    """`evaluate` for a policy that no engine serves, through transformers' own `generate`: an `Evaluation`.

    `model` is asked as it stands, with its adapter if it has one. Greedy with `temperature=0`; else one random stream,
    seeded with `seed`, draws a whole batch of `batch_size` prompts, padded on the left. The caller's random state, the
    model's mode and the tokenizer's padding side are left as they were. Each reply is begun for the model with the text
    `begun`, which stands in the completion's text, not in its length. Raises ValueError like `evaluate`.
    """
    import torch  # here, so that reading an evaluation stays light

    # Said in full, because a model's own generation_config may ask for less (Qwen's does).
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    sampling["repetition_penalty"] = 1.0
    ends = end_tokens(tokenizer, model.generation_config)

    def fast_generate(asked, **ignored):
        outputs, prompts = [], [(one if isinstance(one, str) else one["prompt"]) + begun for one in asked]
        for start in range(0, len(prompts), batch_size):
            batch = tokenizer(prompts[start : start + batch_size], padding=True, add_special_tokens=False, return_tensors="pt")
            tokens = model.generate(**batch.to(model.device), max_new_tokens=max_new_tokens, eos_token_id=ends, **sampling)
            for row in tokens[:, batch["input_ids"].shape[1] :].tolist():
                length = next((place for place, token in enumerate(row, start=1) if token in ends), None)
                text = begun + tokenizer.decode(row[:length], skip_special_tokens=True)
                reason = "stop" if length else "length"
                outputs.append(SimpleNamespace(text=text, token_ids=row[:length], finish_reason=reason))
        return [SimpleNamespace(outputs=[output]) for output in outputs]

    mode, side, limit = model.training, tokenizer.padding_side, model.generation_config.max_length
    model.eval()
    tokenizer.padding_side = "left"
    model.generation_config.max_length = None  # Unsloth sets one on a GPU, and each batch would print that ours comes first
    # On a CPU torch 2.13 copies a frozen head for each row of a slice, as `generate` gives it one: 7 GB for 60 rows of SmolLM2.
    whole = model.get_output_embeddings().register_forward_pre_hook(lambda head, args: (args[0].contiguous(), *args[1:]))
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return evaluate(SimpleNamespace(fast_generate=fast_generate), dataset, tokenizer, SimpleNamespace(seed=None))
    finally:
        whole.remove()
        model.train(mode)
        tokenizer.padding_side, model.generation_config.max_length = side, limit
