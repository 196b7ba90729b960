"""PyTorch's attention without a mask, as FlashAttention computes it where no row is padded: what chapter 09 tries without a GPU."""

import torch
from torch.nn.functional import scaled_dot_product_attention


def causal_without_mask(module, query, key, value, attention_mask, scaling, **ignored):
    """Each token sees what is before it, counted from the last: in the form of transformers' attention functions, (output, None)."""
    seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(key.shape[2] - query.shape[2])
    output = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def register_no_mask():
    """Gives transformers the attention "no mask", with the mask that it makes for FlashAttention (none without padding)."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    AttentionInterface.register("no mask", causal_without_mask)
    AttentionMaskInterface.register("no mask", flash_attention_mask)


def note_past(model):
    """A dict whose "rows" is, after each pass, how many keys stood in the cache when the first layer of `model` was called."""
    received = {}

    def note(module, args, kwargs):
        cache = kwargs.get("past_key_values")
        received["rows"] = cache.get_seq_length() if cache else 0

    model.get_decoder().layers[0].self_attn.register_forward_pre_hook(note, with_kwargs=True)
    return received
