"""Where attention heads look: chapter 09 asks whether a prefix makes one look at another word."""

import numpy as np


def attention_to(model, tokenizer, prompts, span, whole=False):
    """Of the attention that a prompt's last token gives to the text, the share that goes to a stretch of it: an array (layers, heads).

    `prompts`: chats, lists of messages; `span(content)`: where the stretch begins and ends in the last message's content, in
    characters. The share is a mean over the prompts. What goes to a prefix is left out, as it is no text; `whole=True` gives shares of
    all the attention instead. The model is left with PyTorch's eager attention, the only one that hands out its weights. ValueError without prompts.
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
        shares.append((given[..., inside].sum(dim=-1) / (1 if whole else given.sum(dim=-1))).numpy())
    return np.mean(shares, axis=0)


def without_head(model, layer, head):
    """The same model with one attention head switched off from now on: what it hands to the output projection is 0. `layer`, `head` count from 0."""
    decoder = (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()
    attention = decoder.layers[layer].self_attn
    own = slice(head * attention.head_dim, (head + 1) * attention.head_dim)

    def silence(module, given):
        mixed = given[0].clone()
        mixed[..., own] = 0
        return (mixed, *given[1:])

    attention.o_proj.register_forward_pre_hook(silence)
    return model
