"""What a model makes of instructions: the loss on a reply's tokens, and greedy replies.

A row is what `grpo_kit.data.instructions.read_instructions` gives: a dict with `instruction` and `output`. The model may
be a plain one, one with LoRA or one with a prefix; it is asked as it stands, and its mode is left as it was.
"""

import contextlib
import re

import torch
from torch.nn.functional import cross_entropy

from grpo_kit.data.instructions import to_messages


def encode(tokenizer, row):
    """The row as the trainer sees it: (token ids, how many of the first are the prompt's and bear no loss).

    The template writes both; what follows the prompt is the reply, the end-of-turn token and what the template puts after
    it (ChatML: a line break). ValueError for a template that does not continue its own prompt.
    """
    messages = to_messages(row)
    prompt = tokenizer.apply_chat_template(messages["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer.apply_chat_template(messages["prompt"] + messages["completion"], return_dict=True)["input_ids"]
    if ids[: len(prompt)] != prompt:
        raise ValueError(f"The chat template does not continue its own prompt: {tokenizer.decode(prompt[-8:])!r}.")
    return ids, len(prompt)


@contextlib.contextmanager
def _asking(model):
    """No gradients, no dropout, and the precision of the weights, as in the trainer's own evaluation."""
    mode = model.training
    model.eval()
    half = model.dtype != torch.float32
    # `generate` gives the head the last token's slice of a batch; on a CPU torch 2.13 copies a frozen head for each of its rows.
    whole = model.get_output_embeddings().register_forward_pre_hook(lambda head, args: (args[0].contiguous(), *args[1:]))
    try:
        with torch.no_grad(), torch.autocast(model.device.type, model.dtype if half else torch.bfloat16, enabled=half):
            yield
    finally:
        whole.remove()
        model.train(mode)


def completion_loss(model, tokenizer, rows, batch_size=16):
    """Mean cross-entropy of the replies' tokens, in nats per token: a float. The prompts' tokens do not count.

    Every token weighs the same, so that a long reply weighs more than a short one; exp of it is the perplexity.
    """
    if not rows:
        raise ValueError("completion_loss needs at least one row.")
    encoded = sorted((encode(tokenizer, row) for row in rows), key=lambda one: len(one[0]))  # little padding
    nats, tokens = 0.0, 0
    with _asking(model):
        for start in range(0, len(encoded), batch_size):
            batch = encoded[start : start + batch_size]
            longest = len(batch[-1][0])
            padding = [longest - len(ids) for ids, _ in batch]
            pairs = list(zip(batch, padding, strict=True))
            ids = torch.tensor([ids + [tokenizer.pad_token_id] * more for (ids, _), more in pairs])
            mask = torch.tensor([[1] * len(ids) + [0] * more for (ids, _), more in pairs])
            labels = torch.tensor([[-100] * prompt + ids[prompt:] + [-100] * more for (ids, prompt), more in pairs])
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
            logits, labels = logits[:, :-1], labels[:, 1:].to(logits.device)
            counted = labels != -100
            nats += float(cross_entropy(logits[counted].float(), labels[counted], reduction="sum"))
            tokens += int(counted.sum())
    return nats / tokens


def answer_all(model, tokenizer, rows, max_new_tokens, batch_size=128):
    """The model's greedy replies to the rows' instructions, in their order: texts of at most `max_new_tokens` tokens."""
    texts, side = [], tokenizer.padding_side
    tokenizer.padding_side = "left"  # so that the reply follows the prompt directly
    try:
        with _asking(model):
            for start in range(0, len(rows), batch_size):
                prompts = [to_messages(row)["prompt"] for row in rows[start : start + batch_size]]
                inputs = tokenizer.apply_chat_template(
                    prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
                ).to(model.device)
                tokens = model.generate(
                    **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
                )
                texts += tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    finally:
        tokenizer.padding_side = side
    return [text.strip() for text in texts]


def mentions(reply, answers):
    """Whether one of `answers` stands in the reply as a word or words of its own, in any case."""
    return any(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", reply, re.IGNORECASE) for answer in answers)


WORDS = {"3": "three", "4": "four", "5": "five", "7": "seven", "8": "eight", "12": "twelve", "24": "twenty-four", "60": "sixty",
         "100": "hundred", "1,000": "1000|thousand"}


def holds(reply, answer):
    """Whether `answer`, a word, a number or a list with commas, stands in the reply as words of its own; capitals only as capitals."""
    pattern = f"{answer}|{WORDS.get(answer, answer)}".replace(", ", ",?( and)? ")
    return re.search(rf"(?<![\w,])({pattern})(?!,?\w)", reply, 0 if answer.isupper() else re.IGNORECASE) is not None


def until_repeat(ids, run=6):
    """How many of the token `ids` stand before a run of `run` tokens comes for the second time: all of them, if none does."""
    seen = set()
    for place in range(len(ids) - run + 1):
        tokens = tuple(ids[place : place + run])
        if tokens in seen:
            return place
        seen.add(tokens)
    return len(ids)
