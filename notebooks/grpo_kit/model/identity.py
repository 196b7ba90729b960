"""Whose adapter is it: what an adapter was trained on, written into its config, and compared before it is used.

PEFT writes `auto_mapping` of the config with every save, on a GPU and without one, so that is where it stands, as "grpo_kit":
the base's name and fingerprint, the versions, and of the training the profile, the data and the seed.
"""

import functools
import hashlib
import importlib.metadata
import json
import re
from pathlib import Path

from grpo_kit.machine.limits import at_most

KIT = "2026.11"  # of what is written here
LIBRARIES = ["torch", "transformers", "peft", "trl", "unsloth"]
SHAPE = ("model_type hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size "
         "rms_norm_eps rope_parameters tie_word_embeddings").split()  # of a base's config: what its arithmetic depends on
LONGEST_HEADER = 30 * 10**6  # bytes of a safetensors file's: of the largest models' 90,000 tensors it takes 12 million
SAMPLED = 64  # of each matrix that are read for a fingerprint: a second or two for 3 billion parameters
MATCHING = 5  # seconds for finding an adapter's targets in a model, by patterns that its config brings
_tell = functools.cache(print)  # the same sentence once


def check_safetensors(file):
    """{name: shape} of a safetensors file; FileNotFoundError or ValueError, one sentence, if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is missing: get it again.")
    try:
        with open(file, "rb") as opened:
            if int.from_bytes(opened.read(8), "little") > LONGEST_HEADER:
                raise SafetensorError
        with safe_open(file, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except SafetensorError:
        raise ValueError(f"{file} is cut short, damaged or no safetensors file: get it again.") from None


def plain_name(model):
    """The name of a model without its publisher, in lower case: of a hub id, of a folder, of a folder in a hub's cache.

    `unsloth/Qwen2.5-3B-Instruct-bnb-4bit` (so Unsloth calls a model's 4-bit copies), `…/models--Qwen--Qwen2.5-3B-Instruct/snapshots/0a1b`
    and ModelScope's `…/models/Qwen--Qwen2.5-3B-Instruct/snapshots/master` and `…/Qwen/Qwen2___5-3B-Instruct` are one model.
    """
    path = Path(model).resolve() if Path(model).is_dir() else Path(model)
    name = path.parent.parent.name.rpartition("--")[2] if path.parent.name == "snapshots" else path.name
    return re.sub("(-unsloth)?-bnb-4bit$", "", name.replace("___", ".").lower())


def base_folder(model):
    """The folder that holds the files of `model`, itself a folder or a hub id; None for an id whose files are not on this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if Path(model).is_dir():
        return Path(model).resolve()
    try:
        return Path(snapshot_download(str(model), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def fingerprint(model):
    """{"config", "weights", "kept", "quantised"} of a base model, a folder or a hub id; {} where its files are not here.

    "weights" hashes rows of all tensors, "kept" those that a 4-bit copy keeps as they were (norms and embeddings). The files'
    number and their floats' width do not matter.
    """
    folder = base_folder(model)
    files = sorted(folder.glob("model*.safetensors")) if folder and (folder / "config.json").is_file() else []
    return _fingerprint(folder, tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)) if files else {}


@functools.cache
def _fingerprint(folder, files):
    from safetensors import safe_open
    from transformers import AutoConfig

    config = json.loads(json.dumps(AutoConfig.from_pretrained(folder).to_dict(), default=str))
    weights, kept, held = hashlib.sha256(), hashlib.sha256(), {}
    for file, *_ in files:
        check_safetensors(file)
        tensors = safe_open(file, "pt")
        held |= {name: tensors.get_slice(name) for name in tensors.keys()}
    for name in sorted(held):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue  # the embeddings, which some files hold twice
        shape = held[name].get_shape()
        step = max(1, shape[0] // SAMPLED) if len(shape) > 1 else 1
        rows = [held[name][:]] if step == 1 else [held[name][at : at + 1] for at in range(0, shape[0], step)]
        read = b"".join([f"{name} {shape}".encode(), *(row.float().contiguous().numpy().tobytes() for row in rows)])
        weights.update(read)
        if re.search("norm|embed", name):
            kept.update(read)
    return {"config": {key: config.get(key) for key in SHAPE}, "weights": weights.hexdigest()[:16], "kept": kept.hexdigest()[:16],
            "quantised": bool(config.get("quantization_config"))}


def sign(model, profile=None, seed=None):
    """Notes in the config of `model`, one with a LoRA adapter, what the adapter is trained on; PEFT writes it with every save.

    `profile` and `seed`: those of the training. Returns what is noted, a dict.
    """
    config = model.peft_config["default"]
    base = config.base_model_name_or_path or model.config._name_or_path
    versions = {"kit": KIT} | {package: importlib.metadata.version(package) for package in LIBRARIES}
    noted = {"base": plain_name(base), **fingerprint(base), "versions": versions}
    if profile:
        noted |= {"profile": profile.name, "data": profile.data, "seed": seed}
    config.auto_mapping = (config.auto_mapping or {}) | {"grpo_kit": noted}
    return noted


def check_base(config, base, where):
    """ValueError, naming both, where the adapter `where` with the config `config`, a dict, was trained on another model than `base`.

    What cannot be compared is said in one sentence, and the names decide.
    """
    trained_on = str(config.get("base_model_name_or_path") or "an unnamed base")
    mapping = config.get("auto_mapping")
    noted = mapping.get("grpo_kit") if isinstance(mapping, dict) else None
    noted = noted if isinstance(noted, dict) and noted.get("base") == plain_name(trained_on) and isinstance(noted.get("config"), dict) else {}
    here = fingerprint(base) if noted else {}
    if not here:
        if plain_name(base) != plain_name(trained_on):
            raise ValueError(f"{where} was made for {trained_on}, not for {base}: load {trained_on} to use it.")
        why = f"the weights of {base} are not on this machine" if noted else "it does not say what it was trained on"
        _tell(f"{where} could only be compared with {base} by name and shapes: {why}.")
        return
    for key, value in here["config"].items():
        if key in noted["config"] and noted["config"][key] != value:
            raise ValueError(f"{where} was made for {trained_on} with {key} {noted['config'][key]}, and {base} has {value}: load the model it was trained on.")
    part = "weights" if noted.get("quantised") == here["quantised"] else "kept"
    if noted.get(part) != here[part]:
        raise ValueError(f"{where} was made for {trained_on} with the weights {noted.get(part)}, and {base} has the weights {here[part]}: "
                         "load the model it was trained on.")
    if part == "kept":
        _tell(f"{where} could only be compared with {base} by norms and embeddings: one of the two is a 4-bit copy.")


def check_adapter(adapter, base=None):
    """Check that the LoRA adapter in the folder `adapter` is whole, finite, and was made for the model `base` (folder or hub id).

    Without `base`, the one that it names. Returns its number of matrices. FileNotFoundError or ValueError, one sentence, if something is wrong.
    """
    import torch
    from safetensors.torch import load_file

    where = f"The adapter in {adapter}"
    config = Path(adapter, "adapter_config.json")
    if not config.is_file():
        raise FileNotFoundError(f"{config} is missing: there is no adapter in {adapter}.")
    shapes = check_safetensors(Path(adapter, "adapter_model.safetensors"))
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ValueError(f"{config} is no config of a LoRA adapter: copy or save it again.")
    base = base or str(settings.get("base_model_name_or_path"))
    for file in sorted(Path(base).glob("*.safetensors")):
        check_safetensors(file)
    check_base(settings, base, where)
    wanted = _wanted_shapes(settings, base, where)
    if missing := sorted(wanted.keys() - shapes.keys()):
        raise ValueError(f"{where} is incomplete, {len(missing)} of {len(wanted)} matrices are missing, {missing[0]} for one: save it again.")
    if unfit := [name for name in sorted(shapes) if shapes[name] != wanted.get(name)]:
        raise ValueError(f"{where} does not fit {base}, at {unfit[0]}: take the model it was made for.")
    for name, tensor in load_file(Path(adapter, "adapter_model.safetensors")).items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{where} holds numbers that are not finite, in {name}: train it again, more gently.")
    return len(shapes)


def _wanted_shapes(settings, base, where):
    """{name: shape} of what PEFT would save for an adapter with this config on `base`, found without any weights."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError):
        raise FileNotFoundError(f"{base} is neither a model's folder nor to be had from the hub: name the model that {where[0].lower() + where[1:]} belongs to.") from None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        known = {key: value for key, value in settings.items() if key in LoraConfig.__dataclass_fields__}
        try:
            with at_most(MATCHING):
                model = PeftModel(model, LoraConfig(**known | {"auto_mapping": None, "init_lora_weights": False}))
        except TimeoutError:
            raise ValueError(f"{where} names its targets by a pattern that never ends: take it from its author again.") from None
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, re.error) as error:
            # a target that the model lacks, or a setting of another type
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{where} does not fit {base}: take the model it was made for ({reason}).") from None
        return {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
