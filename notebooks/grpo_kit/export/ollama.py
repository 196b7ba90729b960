"""A Modelfile, with which Ollama takes a GGUF file."""

from pathlib import Path

MODELFILE = '''FROM ./{file}
TEMPLATE """{{{{- range .Messages }}}}<|im_start|>{{{{ .Role }}}}
{{{{ .Content }}}}<|im_end|>
{{{{ end }}}}<|im_start|>assistant
"""
SYSTEM """{system}"""
PARAMETER stop "<|im_end|>"
PARAMETER stop "<|im_start|>"
PARAMETER temperature 0
PARAMETER num_ctx {context}
PARAMETER num_predict {reply}
'''


def modelfile(file, tokenizer, system_prompt, context, reply):
    """The text of an Ollama Modelfile for the GGUF `file`, in whose folder it belongs; the sizes are tokens.

    ValueError for a chat template other than ChatML, the only one written here, and for a system prompt that a Modelfile,
    whose texts end at three quotation marks, cannot hold.
    """
    if '"""' in system_prompt or system_prompt.endswith('"'):
        raise ValueError("A Modelfile's texts end at three quotation marks: write the system prompt without them, and with none at its end.")
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if rendered != "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n":
        raise ValueError("This model's chat template is not ChatML: write TEMPLATE for it by hand, and compare the prompts.")
    return MODELFILE.format(file=Path(file).name, system=system_prompt, context=context, reply=reply)
