"""Which tokens end a completion: the one place that says so, to rewards, evaluation and export."""


def end_tokens(tokenizer, generation_config=None):
    """Return the ids of the tokens that end a turn, sorted: a completion is finished where its last token is one of them.

    They are the tokenizer's end-of-text and padding tokens, what the model's `generation_config` ends with (Llama 3,
    Phi and Qwen end with one of several), and the special token that the chat template writes after an answer.
    """
    ends = getattr(generation_config, "eos_token_id", None)
    ends = {*(ends if isinstance(ends, (list, tuple)) else [ends]), tokenizer.eos_token_id, tokenizer.pad_token_id}
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "answered"}]
    written = tokenizer.apply_chat_template(messages, tokenize=False).rpartition("answered")[2]
    after = tokenizer(written.strip(), add_special_tokens=False)["input_ids"][:1]
    return sorted(ends - {None} | {*after} & {*tokenizer.all_special_ids})
