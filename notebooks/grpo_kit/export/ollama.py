"""A Modelfile, with which Ollama takes a GGUF file."""

import re
from pathlib import Path

from grpo_kit.rewards.ends import end_tokens

CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
MODELFILE = '''FROM ./{file}
TEMPLATE """{template}"""
SYSTEM """{system}"""
{stops}
PARAMETER temperature 0
PARAMETER num_ctx {context}
PARAMETER num_predict {reply}
'''


def modelfile(file, tokenizer, system_prompt, context, reply, template=None, generation_config=None):
    """The text of an Ollama Modelfile for the GGUF `file`, in whose folder it belongs; the sizes are tokens.

    A reply stops at each of `end_tokens(tokenizer, generation_config)`. `template`: in Go's template language, for a chat template
    other than ChatML, the only one written here; ValueError without it, and for a system prompt, a template or a file's name that
    a Modelfile, whose texts end at three quotation marks, cannot hold.
    """
    for what, text in (("system prompt", system_prompt), ("template", template or "")):
        if '"""' in text or text.endswith('"'):
            raise ValueError(f"A Modelfile's texts end at three quotation marks: write the {what} without them, and with none at its end.")
    if not re.fullmatch(r"[\w ()+=,.-]+", name := Path(file).name):
        raise ValueError(f"A Modelfile cannot name {name!r}: call the file by letters, digits, points and hyphens.")
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    chatml = rendered == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    if not chatml and not template:
        raise ValueError("This model's chat template is not ChatML: write it in Go's template language, give it as template=…, and compare the prompts.")
    stops = tokenizer.convert_ids_to_tokens(end_tokens(tokenizer, generation_config)) + ["<|im_start|>"] * chatml  # the last would begin a turn
    if unfit := [stop for stop in stops if not re.fullmatch(r'[^"\s]+', stop)]:
        raise ValueError(f"A Modelfile cannot stop at {unfit[0]!r}: take the tokenizer of the model's author.")
    return MODELFILE.format(file=name, template=template or CHATML, system=system_prompt, context=context, reply=reply,
                            stops="\n".join(f'PARAMETER stop "{stop}"' for stop in stops))
