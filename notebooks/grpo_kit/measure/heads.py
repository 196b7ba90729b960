"""Where attention heads look: chapter 09 asks whether a prefix makes one look at another word."""

import numpy as np


def attention_to(model, tokenizer, prompts, span):
    """Of the attention that a prompt's last token gives to the text, the share that goes to a stretch of it: an array (layers, heads).

    `prompts`: chats, lists of messages; `span(content)`: where the stretch begins and ends in the last message's content, in
    characters. The share is a mean over the prompts. What goes to a prefix is left out of the whole, as it is no text. The model
    is left with PyTorch's eager attention, the only one that hands out its weights. ValueError without prompts.
    """
    import torch

    if not len(prompts):
        raise ValueError("attention_to needs at least one prompt.")
    (model.get_base_model() if hasattr(model, "get_base_model") else model).set_attn_implementation("eager")
    shares = []
    for prompt in prompts:
        text, content = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True), prompt[-1]["content"]
        inputs = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt")
        places = inputs.pop("offset_mapping")[0]
        start, end = (text.index(content) + place for place in span(content))
        inside = (places[:, 0] < end) & (places[:, 1] > start)  # the stretch's tokens
        with torch.no_grad():
            attentions = model(**inputs.to(model.device), output_attentions=True).attentions
        given = torch.stack([layer[0, :, -1, -len(inside) :] for layer in attentions]).float().cpu()  # the text's keys come last
        shares.append((given[..., inside].sum(dim=-1) / given.sum(dim=-1)).numpy())
    return np.mean(shares, axis=0)
