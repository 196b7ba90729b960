"""Tokens as a coloured text: which of them count in a loss."""

import html


def coloured(tokenizer, ids, counts):
    """The tokens `ids` as HTML to display: blue where `counts` is true, grey where the loss leaves them out; prints how many count."""
    from IPython.display import HTML

    spans = []
    for token, counted in zip(ids, counts):
        text = html.escape(tokenizer.decode([token])).replace("\n", "⏎")
        style = "background:#0072b2;color:white" if counted else "background:#e4e4e4;color:#555"
        spans.append(f'<span style="{style};padding:1px 3px;margin:1px;display:inline-block;white-space:pre">{text or " "}</span>')
    print(f"{sum(map(bool, counts))} of {len(counts)} tokens count in the loss")
    return HTML(f'<div style="font-family:monospace;line-height:1.7;max-width:760px">{"".join(spans)}</div>')
