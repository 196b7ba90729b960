"""Exports that are whole or absent, GGUF files that llama.cpp runs, and the checks that say what is inside them.

    python -m grpo_kit.export             # `make chat`: talk to the model that chapter 07 exported

Unsloth's exporters do the work (`save_pretrained_merged`, `save_pretrained_gguf`); here is what stands around them.
"""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.special import logsumexp

from grpo_kit.llama_build import import_built
from grpo_kit.threads import share

EXPORTS = Path("outputs/07_export")
GGUF_METHODS = ["f16", "q8_0", "q5_k_m", "q4_k_m"]  # of `save_gguf`, from large to small
KNOWN_METHODS = "f32 bf16 f16 q8_0 q6_k q5_k_m q5_k_s q5_0 q5_1 q4_k_m q4_k_s q4_0 q4_1 q3_k_l q3_k_m q3_k_s q2_k".split()
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


# --- before -----------------------------------------------------------------------------------------------------------


def check_safetensors(file):
    """{name: shape} of a safetensors file; FileNotFoundError or ValueError, one sentence, if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is missing: copy or save it again.")
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except SafetensorError:
        raise ValueError(f"{file} is cut short or damaged: copy or save it again.") from None


def check_adapter(adapter, base):
    """Check that the LoRA adapter in the folder `adapter` is whole and was made for the model `base` (folder or hub id).

    Returns its number of matrices. FileNotFoundError or ValueError, one sentence, if something is wrong.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = Path(adapter, "adapter_config.json")
    if not config.is_file():
        raise FileNotFoundError(f"{config} is missing: there is no adapter in {adapter}.")
    shapes = check_safetensors(Path(adapter, "adapter_model.safetensors"))
    for file in sorted(Path(base).glob("*.safetensors")):
        check_safetensors(file)
    trained_on = json.loads(config.read_text()).get("base_model_name_or_path") or "an unnamed base"
    if _plain_name(base) != _plain_name(trained_on):
        raise ValueError(f"The adapter in {adapter} was made for {trained_on}, not for {base}: export it with {trained_on}.")
    with torch.device("meta"):  # shapes without weights
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    weights = {name: weight.shape for name, weight in model.named_parameters()}
    for name, shape in shapes.items():
        module, _, side = name.removeprefix("base_model.model.").partition(".lora_")
        weight = weights.get(f"{module}.weight", (0, 0))
        if shape[side.startswith("A")] != weight[side.startswith("A")]:
            raise ValueError(f"The adapter in {adapter} does not fit {base}, at {module}: take the model it was made for.")
    return len(shapes)


def _plain_name(model):
    return re.sub("(-unsloth)?-bnb-4bit$", "", Path(model).name.lower())  # so Unsloth calls a model's 4-bit copies


def check_methods(methods):
    """ValueError, one sentence, for a quantisation that Unsloth and llama.cpp do not know."""
    if unknown := [method for method in methods if method not in KNOWN_METHODS]:
        raise ValueError(f"{', '.join(unknown)} is no quantisation that is made here: choose among {', '.join(KNOWN_METHODS)}.")


# --- the export -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_export(target, replace=False):
    """A folder to fill, which becomes `target` when the `with` block ends.

    After an error it is gone, and an older `target` is untouched. FileExistsError where `target` exists, unless
    `replace` is said and it holds an export; OSError (ENOSPC), one sentence, when the disk is full.
    """
    target = Path(target)
    if target.exists() and not (replace and (any(target.glob("*.safetensors")) or any(target.glob("*.gguf")))):
        raise FileExistsError(f"{target} exists: delete it or choose another folder{'' if replace else ', or say replace=True'}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work:
        new = Path(work, target.name)
        new.mkdir()
        try:
            yield new
        except Exception as error:
            if disk_full(error, new):
                text = f"{target.parent} has no room for this export, and nothing was written: free some space and try again"
                raise OSError(errno.ENOSPC, text) from None
            raise
        if target.exists():
            target.rename(Path(work, "older"))
        new.rename(target)


def disk_full(error, folder):
    """Whether `error` came from a full disk under `folder`; Unsloth says so in words, and llama-quantize not at all."""
    if shutil.disk_usage(folder).free < 10**6:
        return True
    while error:
        said = re.search(r"no space left|disk full|not enough free|requested and \d+ written|iostream error", str(error), re.I)
        if said or getattr(error, "errno", None) == errno.ENOSPC:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def complete_tokenizer(tokenizer):
    """While it lasts, `tokenizer.save_pretrained` also writes what llama.cpp's converter reads of a SentencePiece tokenizer.

    transformers 5 leaves it out. Without `tokenizer.model` the pieces lose their scores and are merged in another
    order, without `added_tokens_decoder` the tags are plain text or invisible, without `add_bos_token` llama.cpp puts
    a token before each prompt: the file loads, and is wrong. Unsloth does the like on a GPU.
    """
    plain, model = tokenizer.save_pretrained, Path(tokenizer.name_or_path, "tokenizer.model")
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")

    def save_pretrained(folder, *arguments, **options):
        files = plain(folder, *arguments, **options)
        shutil.copy(model, folder)
        path = Path(folder, "tokenizer_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        added = tokenizer.added_tokens_decoder.items()
        config["added_tokens_decoder"] = {str(i): {field: getattr(token, field) for field in fields} for i, token in added}
        config["add_bos_token"] = tokenizer.bos_token_id in tokenizer("x").input_ids
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
        return files

    if not model.is_file():  # not made by SentencePiece: nothing is left out
        yield
        return
    tokenizer.save_pretrained = save_pretrained
    try:
        yield
    finally:
        tokenizer.save_pretrained = plain


class ShortPaths(io.TextIOBase):
    """A stdout that writes ~ for the home folder, so that what Unsloth prints can be shown to others."""

    def __init__(self):
        self.stdout = sys.stdout

    def write(self, text):
        return self.stdout.write(text.replace(str(Path.home()), "~"))

    def flush(self):
        self.stdout.flush()


def save_gguf(model, tokenizer, folder, methods):
    """Write a GGUF file for each of `methods` into `folder`, with Unsloth's exporter: {method: path}."""
    check_methods(methods)
    base = Path(model.config._name_or_path).name
    with tempfile.TemporaryDirectory(dir=folder) as work, complete_tokenizer(tokenizer), contextlib.redirect_stdout(ShortPaths()):
        saved = model.save_pretrained_gguf(f"{work}/{base}", tokenizer, quantization_method=list(methods))
        for file in saved["gguf_files"] if isinstance(saved, dict) else saved:  # a dict on a GPU, a list without
            os.replace(file, Path(folder, Path(file).name))
    return {method: next(Path(folder).glob(f"*.{method.upper()}.gguf")) for method in methods}


def modelfile(file, tokenizer, system_prompt, context, reply):
    """The text of an Ollama Modelfile for the GGUF `file`, in whose folder it belongs; the sizes are tokens.

    ValueError for a chat template other than ChatML, the only one written here.
    """
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if rendered != "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n":
        raise ValueError("This model's chat template is not ChatML: write TEMPLATE for it by hand, and compare the prompts.")
    return MODELFILE.format(file=Path(file).name, system=system_prompt, context=context, reply=reply)


def publish(model, tokenizer, repository, methods, token):
    """Push the merged model to `repository` and its GGUF files to `repository`-GGUF, both private."""
    check_methods(methods)
    with complete_tokenizer(tokenizer):
        model.push_to_hub_merged(repository, tokenizer, save_method="merged_16bit", token=token, private=True)
        if hasattr(model, "push_to_hub_gguf"):
            model.push_to_hub_gguf(f"{repository}-GGUF", tokenizer, quantization_method=list(methods), token=token, private=True)
            return
    from huggingface_hub import HfApi  # Unsloth has no push_to_hub_gguf without a GPU

    hub = HfApi(token=token)
    hub.create_repo(f"{repository}-GGUF", private=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_gguf(model, tokenizer, folder, methods)
        hub.upload_folder(repo_id=f"{repository}-GGUF", folder_path=folder)


# --- after ------------------------------------------------------------------------------------------------------------


def end_engine(model):
    """End the vLLM engine beside `model` on a GPU, whose memory the next one needs; without one, loading the next does it."""
    if not hasattr(model, "cpu_engine"):
        from unsloth_zoo.vllm_utils import delete_vllm

        model.fast_generate = None
        model.vllm_engine = delete_vllm(model.vllm_engine)


def tensor_types(file):
    """Counter of (kind of tensor, type) in a GGUF file: {("attn_q", "Q4_K"): 36, …}; a layer's number is left out."""
    tensors = import_built("gguf").GGUFReader(file).tensors
    return Counter((re.sub(r"^blk\.\d+\.|\.weight$", "", tensor.name), tensor.tensor_type.name) for tensor in tensors)


class GGUFModel:
    """A GGUF file that llama.cpp runs, asked like the other models: `evaluate(GGUFModel(file, 1024), …)`.

    `context`: tokens of prompt and completion together. It answers greedily, one prompt after another. With `scores`
    it keeps the logits of every token, context x vocabulary floats, for `log_probs`. Close it, or use it in a `with`.
    """

    def __init__(self, file, context, scores=False):
        threads = share()
        self.llama = import_built("llama_cpp").Llama(
            str(file), n_ctx=context, n_threads=threads, n_threads_batch=threads, n_gpu_layers=-1, logits_all=scores, verbose=False)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.llama.close()

    def tokenize(self, prompt):
        """llama.cpp's own token ids of a prompt string."""
        return self.llama.tokenize(prompt.encode(), add_bos=False, special=True)

    def fast_generate(self, prompts, sampling_params, lora_request=None, use_tqdm=False):
        """As vLLM's: a list of objects whose `outputs[0]` has text, token_ids and finish_reason."""
        params = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        if any(one.temperature for one in params):
            raise ValueError("A GGUFModel answers greedily: pass SamplingParams(temperature=0.0, …).")
        return [self._answer(self.tokenize(prompt), one.max_tokens) for prompt, one in zip(prompts, params)]

    def _answer(self, prompt, max_tokens):
        ids, end, reason = [], self.llama.token_eos(), "length"
        for token in self.llama.generate(prompt, temp=0.0):
            ids.append(token)
            if token == end or len(ids) == max_tokens:
                reason = "stop" if token == end else "length"
                break
        text = self.llama.detokenize([token for token in ids if token != end]).decode("utf-8", errors="replace")
        return SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=ids, finish_reason=reason)])

    def log_probs(self, prompt, ids):
        """The log-probability, in nats, of each of the token ids `ids` after the prompt string: floats, shape (len(ids),).

        Nothing is sampled: llama.cpp reads prompt and ids in one go. Only with `scores=True`.
        """
        tokens = self.tokenize(prompt) + list(ids)
        self.llama.reset()
        self.llama.eval(tokens)
        logits = self.llama.scores[len(tokens) - len(ids) - 1 : len(tokens) - 1].astype(float)
        return logits[np.arange(len(ids)), ids] - logsumexp(logits, axis=1)

    def template(self):
        """The chat template inside the file, as a function of messages that gives the prompt string."""
        llama_cpp = import_built("llama_cpp")
        formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
            template=self.llama.metadata["tokenizer.chat_template"], eos_token="", bos_token="", add_generation_prompt=True)
        return lambda messages: formatter(messages=messages).prompt


def chat(file, system_prompt, context, reply):
    """Read questions from the terminal and let the GGUF `file` answer, each on its own; an empty line ends it."""
    with GGUFModel(file, context) as model:
        while question := input("\nyour question (empty: stop): ").strip():
            messages = [{"role": "system", "content": system_prompt}, {"role": "user", "content": question}]
            for piece in model.llama.create_chat_completion(messages, temperature=0.0, max_tokens=reply, stream=True):
                print(piece["choices"][0]["delta"].get("content", ""), end="", flush=True)
            print()


if __name__ == "__main__":
    from grpo_kit.data import SYSTEM_PROMPT
    from grpo_kit.profile import choose_profile

    files = sorted(Path(__file__).parents[1].glob(f"{EXPORTS}/gguf/*.Q8_0.gguf"))
    if not files:
        sys.exit("make chat: there is no exported model yet: run notebooks/07_export.ipynb first.")
    settings = choose_profile()
    print(f"{files[0].name} answers on this machine. It knows the world of its problems: ask one.")
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        chat(files[0], SYSTEM_PROMPT, settings.max_seq_length, settings.max_completion_length)
