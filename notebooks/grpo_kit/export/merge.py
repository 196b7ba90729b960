"""Exports that are whole or absent, and what is checked before them: files, and whose adapter it is."""

import contextlib
import errno
import json
import re
import shutil
import tempfile
from pathlib import Path

EXPORTS = Path("outputs/07_export")


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


def end_engine(model):
    """End the vLLM engine beside `model` on a GPU, whose memory the next one needs; without one, loading the next does it."""
    if not hasattr(model, "cpu_engine"):
        from unsloth_zoo.vllm_utils import delete_vllm

        model.fast_generate = None
        model.vllm_engine = delete_vllm(model.vllm_engine)
