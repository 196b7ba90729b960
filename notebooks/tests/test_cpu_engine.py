"""The engine beside the policy, on a small random model made here: exactness, determinism, errors, one engine only."""

import ast
import gc
import importlib.util
import inspect
import json
import runpy
import socket
import subprocess
import sys
import types
import weakref
from pathlib import Path

import pytest
import torch

if torch.accelerator.is_available():
    pytest.skip("a GPU has Unsloth's own engine", allow_module_level=True)

import grpo_kit
from grpo_kit import FastLanguageModel
from grpo_kit.model import folder as folder_checks
from grpo_kit.model.cpu_engine import checks, trl_rollouts, weights
from grpo_kit.model.cpu_engine.checks import TRIED, _check_names, _check_versions
from grpo_kit.model.cpu_engine.engine import _normalise, _sample, _set_num_threads
from grpo_kit.model.cpu_engine.trl_rollouts import _packed_logps, _packs
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head
from vllm import SamplingParams

KIT = Path(grpo_kit.__file__).parent
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = [f"Longer than a block of the cache, 32 tokens: {a} and {a}?" for a in range(6)]
SAMPLED = SamplingParams(temperature=1.0, max_tokens=12, logprobs=0, seed=7)


def make_model(folder, tied, dtype=torch.float32):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<|im_start|>", "<|im_end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=272,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            initializer_range=0.1,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    model.to(dtype).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Any look-up or connection that leaves this machine fails."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def local(host):
        return host in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname())

    def checked_connect(self, address):
        assert self.family == socket.AF_UNIX or local(address[0]), f"connects to {address}"
        return connect(self, address)

    def checked_look_up(host, *args, **kwargs):
        assert local(host), f"looks {host} up"
        return look_up(host, *args, **kwargs)

    socket.socket.connect, socket.getaddrinfo = checked_connect, checked_look_up
    yield
    socket.socket.connect, socket.getaddrinfo = connect, look_up


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "tied": make_model(root / "tied", True),
        "untied": make_model(root / "untied", False, torch.bfloat16),
    }


def load(folder, **kwargs):
    model, tokenizer = FastLanguageModel.from_pretrained(
        folder, max_seq_length=128, fast_inference=True, max_lora_rank=8, **kwargs
    )
    model = FastLanguageModel.get_peft_model(
        model, r=8, lora_alpha=16, target_modules=PROJECTIONS, use_gradient_checkpointing="unsloth", random_state=1
    )
    return model, tokenizer


def vowels(completions, **columns):
    return [sum(c in "aeiou" for c in text) / (len(text) + 1) for text in completions]


def trainer_for(model, tokenizer, folder, steps=3, reward=vowels, **settings):
    settings = {"vllm_importance_sampling_correction": True, "save_strategy": "no", "learning_rate": 2e-2} | settings
    args = GRPOConfig(
        output_dir=str(folder),
        use_vllm=True,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=16,
        lr_scheduler_type="constant",
        max_steps=steps,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        seed=5,
        **settings,
    )
    dataset = Dataset.from_dict({"prompt": [f"Say {a}" for a in range(32)]})
    return GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=reward, args=args, train_dataset=dataset)


def lora_tensors(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def log_probs(outputs):
    answers = [output.outputs[0] for output in outputs]
    return [[step[token].logprob for step, token in zip(a.logprobs, a.token_ids)] for a in answers]


def generate(model, **kwargs):
    return model.fast_generate(PROMPTS, sampling_params=SAMPLED, use_tqdm=False, **kwargs)


def policy_log_probs(model, outputs):
    """The plain Hugging Face forward's log-probs of what the engine sampled."""
    with torch.no_grad():
        for o in outputs:
            tokens = torch.tensor([[*o.prompt_token_ids, *o.outputs[0].token_ids]])
            scores = model(tokens).logits[0].log_softmax(-1)[len(o.prompt_token_ids) - 1 : -1]
            yield scores.gather(-1, torch.tensor(o.outputs[0].token_ids)[:, None])[:, 0]


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    """A short training on the tied model, with what was seen before, during and after it."""
    folder = tmp_path_factory.mktemp("run")
    model, tokenizer = load(folders["tied"])
    before, drawn = log_probs(generate(model)), lora_tensors(model)
    trainer = trainer_for(model, tokenizer, folder, save_strategy="steps", save_steps=2, save_only_model=False)
    at_start = lora_tensors(model)
    trainer.train()
    model.save_lora(folder / "adapter")
    return types.SimpleNamespace(**locals())


@pytest.fixture
def model(run, folders):
    """The trained model; loaded anew where another test has taken the engine."""
    if run.model.cpu_engine.llm is None:
        run.model, run.tokenizer = load(folders["tied"])
    return run.model


# The tests that use the trained policy itself come first, for an engine ends with the next model.


def test_sampled_log_probs_are_the_policys_at_every_step(run):
    steps = [log for log in run.trainer.state.log_history if "reward" in log]
    assert len(steps) == 3
    for log in steps:
        assert log["sampling/sampling_logp_difference/mean"] <= 1e-5
        assert log["sampling/sampling_logp_difference/max"] <= 1e-3
    assert all(0 < log["sampling/sampling_logp_difference/max"] for log in steps)


def test_training_moves_the_adapter_in_float32_from_where_it_was_drawn(run):
    after = lora_tensors(run.model)
    for name, tensor in run.drawn.items():
        assert torch.equal(tensor, run.at_start[name]), f"building the trainer changed {name}"
        assert after[name].dtype == torch.float32 and not torch.equal(after[name], tensor)


def test_base_is_the_same_bits_after_training(run):
    assert log_probs(generate(run.model)) == run.before


def test_base_is_the_dequantised_policy_without_its_adapter(run):
    outputs = generate(run.model)
    with run.model.disable_adapter():
        for theirs, ours in zip(policy_log_probs(run.model, outputs), log_probs(outputs)):
            torch.testing.assert_close(torch.tensor(ours), theirs, atol=1e-4, rtol=0)


def test_saved_adapter_is_the_trained_policy(run):
    outputs = generate(run.model, lora_request=run.model.load_lora(run.folder / "adapter"))
    assert log_probs(outputs) != run.before
    for theirs, ours in zip(policy_log_probs(run.model, outputs), log_probs(outputs)):
        torch.testing.assert_close(torch.tensor(ours), theirs, atol=1e-4, rtol=0)


def a_batch():
    """Token ids and mask, (12, 30): three prompts, four completions each, of 1 to 20 tokens."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.zeros(12, 30, dtype=torch.long), torch.zeros(12, 30, dtype=torch.long)
    for row in range(12):
        prompt, length = 5 + row % 3, 1 + (5 * row) % 20
        ids[row, 10 - prompt : 10] = torch.arange(20, 20 + prompt)
        ids[row, 10 : 10 + length] = torch.randint(10, 200, (length,), generator=generator)
        mask[row, 10 - prompt : 10 + length] = 1
    mask[3, 10:] = 0  # as mask_truncated_completions leaves it
    return ids, mask


def test_a_reference_model_of_its_own_is_scored(run):  # as TRL makes one where all parameters are trained and beta is not 0
    reference = LlamaForCausalLM.from_pretrained(run.trainer.model.config._name_or_path, dtype=torch.float32)
    add_fused_lm_head(reference, temperature=1.0)
    original, (ids, mask) = GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__, a_batch()
    with torch.no_grad():
        theirs, ours = (score(run.trainer, reference, ids, mask, 20) for score in (original, _packed_logps))
    torch.testing.assert_close(ours[0] * mask[:, 10:], theirs[0] * mask[:, 10:], atol=2e-5, rtol=0)
    assert ours[1:] == (None, None)


def test_packed_log_probs_are_trls(run):
    original, (ids, mask) = GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__, a_batch()
    found = []
    for score in (original, _packed_logps):
        run.model.zero_grad()
        logps, entropies, _ = score(run.trainer, run.model, ids, mask, 20, compute_entropy=True)
        (logps * mask[:, 10:]).sum().backward()
        grads = {name: p.grad for name, p in run.model.named_parameters()}
        found.append((logps * mask[:, 10:], entropies * mask[:, 10:], grads))
    run.model.zero_grad()
    (logps, entropies, grads), (our_logps, our_entropies, our_grads) = found
    assert logps.ne(0).sum() == mask[:, 10:].sum()
    torch.testing.assert_close(our_logps, logps, atol=2e-5, rtol=0)
    torch.testing.assert_close(our_entropies, entropies, atol=2e-5, rtol=0)
    trained = [name for name, grad in grads.items() if grad is not None]
    assert len(trained) == 28
    for name in trained:
        assert (our_grads[name] - grads[name]).norm() <= 1e-4 * grads[name].norm(), name


def test_one_product_for_base_and_adapter_is_pefts(run):
    layers = [m for m in run.model.modules() if isinstance(m, weights.LoraLayer)]
    assert len(layers) == 14
    for layer in layers:
        x = torch.randn(3, 5, layer.in_features, requires_grad=True)
        trained = [x, layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        found = []
        for forward in (type(layer).forward.__get__(layer), layer.forward):
            y = forward(x)
            found.append((y, *torch.autograd.grad(y.sin().sum(), trained)))
        assert "LoraProduct" in type(y.grad_fn).__name__
        for theirs, ours in zip(*found):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        with run.model.disable_adapter():
            assert torch.equal(layer(x), layer.get_base_layer()(x))


def test_a_layer_that_is_not_plain_lora_is_left_to_peft(run):
    layer = next(m for m in run.model.modules() if isinstance(m, weights.LoraLayer))
    dropout, x = layer.lora_dropout["default"], torch.randn(2, layer.in_features)
    layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    assert "LoraProduct" not in type(layer(x).grad_fn).__name__
    layer.lora_dropout["default"] = dropout
    layer.lora_A.bfloat16(), layer.lora_B.bfloat16()
    assert "LoraProduct" not in type(layer(x).grad_fn).__name__
    layer.lora_A.float(), layer.lora_B.float()
    assert "LoraProduct" in type(layer(x).grad_fn).__name__


def test_the_number_of_threads_changes_no_bit(run, folders, tmp_path, monkeypatch, all_cores):
    count, trained = iter(range(10_000)), []
    for change in (lambda: None, lambda: torch.set_num_threads(1 + next(count) % 2)):  # another number at each token
        monkeypatch.setattr(trl_rollouts.threads, "adapt", change)
        torch.set_num_threads(all_cores)
        model, tokenizer = load(folders["tied"])
        trainer = trainer_for(model, tokenizer, tmp_path)
        trainer.train()
        trained.append([*lora_tensors(model).values(), torch.tensor([log["reward"] for log in trainer.state.log_history[:-1]])])
    assert next(count) > 20
    assert all(torch.equal(one, other) for one, other in zip(*trained))


def test_tokens_are_drawn_as_often_as_they_are_likely():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    logits = probabilities.log().expand(20_000, -1).clone()
    sampler = types.SimpleNamespace(logprobs_mode="processed_logprobs")
    torch.manual_seed(0)
    tokens, logprobs = _sample(sampler, logits, {}, None, None)
    counts = torch.bincount(tokens, minlength=7)
    expected = 20_000 * probabilities
    assert not counts[probabilities == 0].any()
    assert ((counts - expected) ** 2 / expected)[probabilities > 0].sum() < 16.3  # chi-squared, 3 degrees, p = 0.001
    torch.testing.assert_close(logprobs.exp()[0], probabilities)


def test_a_row_with_a_seed_draws_the_same_whoever_is_beside_it():
    logits, sampler = torch.randn(6, 50), types.SimpleNamespace(logprobs_mode="raw_logprobs")
    alone, _ = _sample(sampler, logits[3:4], {0: torch.Generator().manual_seed(5)}, None, None)
    among, nothing = _sample(sampler, logits, {3: torch.Generator().manual_seed(5)}, None, None)
    assert among[3] == alone[0] and nothing is None


def test_only_what_top_k_leaves_is_drawn():
    sampler = types.SimpleNamespace(logprobs_mode="processed_logits")
    logits = torch.randn(2_000, 9)
    tokens, kept = _sample(sampler, logits.clone(), {}, torch.full((2_000,), 2), None)
    assert ((logits > logits.gather(1, tokens[:, None])).sum(1) < 2).all() and kept.isinf().sum() == 2_000 * 7


@pytest.mark.parametrize("rows", [1, 70])
def test_vllms_norm_is_the_norm(rows):
    norm = types.SimpleNamespace(weight=torch.nn.Parameter(torch.rand(256)), variance_epsilon=1e-6)
    x, residual = torch.randn(rows, 256), torch.randn(rows, 256)
    right = torch.nn.functional.rms_norm(x, (256,), norm.weight, 1e-6)
    torch.testing.assert_close(_normalise(norm, x), right, atol=1e-5, rtol=1e-5)
    total = x + residual
    ours, kept = _normalise(norm, x.clone(), residual.clone())
    torch.testing.assert_close(ours, torch.nn.functional.rms_norm(total, (256,), norm.weight, 1e-6), atol=1e-5, rtol=1e-5)
    assert torch.equal(kept, total)


def test_packs_stay_within_their_size_and_lose_nothing(monkeypatch):
    monkeypatch.setattr(trl_rollouts, "PACK", 16)
    ids, mask = torch.arange(1, 61).view(6, 10), torch.ones(6, 10, dtype=torch.long)
    ids[:, :4] = torch.arange(1, 5)  # one prompt for all
    packs = _packs(ids, mask, 6)
    assert len(packs) == 3 and all(len(pack) <= 16 for pack in packs)
    scored = {place: target for pack in packs for *_, target, place in pack if target != -100}
    assert scored == {row * 6 + i: int(ids[row, 4 + i]) for row in range(6) for i in range(6)}


def test_one_seed_gives_one_answer(model):
    first = generate(model)
    assert [o.outputs[0].token_ids for o in first] == [o.outputs[0].token_ids for o in generate(model)]
    assert log_probs(first) == log_probs(generate(model))
    other = model.fast_generate(PROMPTS, SamplingParams(temperature=1.0, max_tokens=12, seed=8), use_tqdm=False)
    assert [o.outputs[0].token_ids for o in first] != [o.outputs[0].token_ids for o in other]


def test_outputs_are_vllms(model, run):
    request = model.load_lora(run.folder / "adapter")
    outputs = generate(model, lora_request=request)
    assert [o.prompt for o in outputs] == PROMPTS and all(o.lora_request is request for o in outputs)
    assert type(outputs[0]).__name__ == "RequestOutput" and type(request).__name__ == "LoRARequest"


def test_a_call_after_an_interrupted_one_answers_its_own_prompts(model, monkeypatch):
    expected, step = log_probs(generate(model)), model.cpu_engine.llm.llm_engine.step
    steps = iter(range(4))

    def interrupted():
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(model.cpu_engine.llm.llm_engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fast_generate(["another", "prompt"], SAMPLED, use_tqdm=False)
    monkeypatch.undo()
    assert log_probs(generate(model)) == expected


def test_fast_generate_between_two_rollouts_does_not_disturb_them(model, run):
    def asking(completions, **columns):
        generate(model)
        return vowels(completions)

    accumulating = {"gradient_accumulation_steps": 2, "steps_per_generation": 1}  # two rollouts of the same policy
    trainer = trainer_for(model, run.tokenizer, run.folder / "asked", reward=asking, **accumulating)
    trainer.train()
    assert all(log.get("sampling/sampling_logp_difference/max", 0) <= 1e-3 for log in trainer.state.log_history)


def test_save_lora_leaves_two_whole_files(model, tmp_path):
    (tmp_path / "README.md").write_text("a card")
    for _ in range(2):
        model.save_lora(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (tmp_path / "README.md").read_text() == "a card"
    assert all("lora_" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    assert not any("dense" in key for key in model.state_dict())  # nor does a whole saved model grow


def test_a_save_that_fails_leaves_the_adapter_that_was_there(model, tmp_path, monkeypatch):
    model.save_lora(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def full_disk(self, folder, **kwargs):
        (Path(folder) / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(type(model), "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space"):
        model.save_lora(tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


# --- what a reader is told ---


def damaged(run, folder, config=None, tensors=None):
    folder.mkdir(exist_ok=True)
    settings = json.loads((run.folder / "adapter/adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | (config or {})))
    saved = load_file(run.folder / "adapter/adapter_model.safetensors")
    saved = {key: tensor for key, tensor in (saved | (tensors or {})).items() if tensor is not None}
    save_file(saved, folder / "adapter_model.safetensors")
    return folder


KEY = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"config": {"r": 16}}, "does not fit"),
        ({"config": {"base_model_name_or_path": "elsewhere/other"}}, "made for elsewhere/other, not for .*tied"),
        ({"config": {"use_dora": True}}, "incomplete.*lora_magnitude_vector"),
        ({"tensors": {KEY: None}}, "incomplete"),
        ({"tensors": {KEY: torch.full((8, 128), float("nan"))}}, "not finite"),
        ({"tensors": {KEY: torch.ones(8, 64)}}, "does not fit"),
        ({"tensors": {KEY.replace("layers.1", "layers.7"): torch.ones(8, 128)}}, "does not fit"),
    ],
)
def test_an_unfit_adapter_is_named_in_one_sentence(model, run, tmp_path, change, words):
    with pytest.raises(ValueError, match=words) as error:
        model.load_lora(damaged(run, tmp_path / "adapter", **change))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_an_adapter_of_another_base_with_this_ones_name_is_refused(model, run, tmp_path, folders):
    other = tmp_path / "tied"
    make_model(other, True)
    weights = load_file(other / "model.safetensors")
    save_file({name: 1.01 * weight for name, weight in weights.items()}, other / "model.safetensors", {"format": "pt"})
    engine = model.cpu_engine
    engine.folder, here = other, engine.folder
    try:
        with pytest.raises(ValueError, match="has the weights .*: load the model it was trained on"):
            model.load_lora(run.folder / "adapter")
    finally:
        engine.folder = here
    assert model.load_lora(run.folder / "adapter")


def test_a_missing_adapter_is_named(model, run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no adapter"):
        model.load_lora(tmp_path / "nowhere")
    request = model.load_lora(damaged(run, tmp_path / "gone"))
    (tmp_path / "gone/adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no adapter_model.safetensors"):
        generate(model, lora_request=request)
    assert log_probs(generate(model))  # and the engine goes on


def test_a_missing_model_and_other_dtypes_are_named(folders):
    with pytest.raises(FileNotFoundError, match="data/nothing is no folder here"):
        FastLanguageModel.from_pretrained("data/nothing", fast_inference=True)
    with pytest.raises(ValueError, match="float32"):
        FastLanguageModel.from_pretrained(folders["tied"], dtype=torch.bfloat16, fast_inference=True)


def test_no_room_for_the_engine_is_said_before_anything_is_loaded(folders, monkeypatch):
    """As beside another kernel that holds the memory."""
    monkeypatch.setattr(folder_checks, "available_memory", lambda: 0.9e9)
    with pytest.raises(MemoryError, match=r"the model and its engine take 1\.1 GB and 0\.9 GB are free") as error:
        FastLanguageModel.from_pretrained(folders["tied"], fast_inference=True)
    assert "\n" not in str(error.value)


def test_an_adapter_over_max_lora_rank_is_refused(folders):
    model, _ = FastLanguageModel.from_pretrained(folders["tied"], 64, fast_inference=True, max_lora_rank=8)
    with pytest.raises(ValueError, match="max_lora_rank=16"):
        FastLanguageModel.get_peft_model(model, r=16, target_modules=PROJECTIONS)


def test_without_fast_inference_there_is_no_engine_but_save_lora(folders, tmp_path):
    model, tokenizer = FastLanguageModel.from_pretrained(folders["tied"], 64)
    model = FastLanguageModel.get_peft_model(model, r=4, target_modules=PROJECTIONS)
    for use in (lambda: model.fast_generate(["a"]), lambda: trainer_for(model, tokenizer, tmp_path)):
        with pytest.raises(RuntimeError, match="fast_inference=True"):
            use()
    model.save_lora(tmp_path / "adapter")
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()


def test_an_unknown_version_or_name_stops_the_import(monkeypatch):
    monkeypatch.setitem(TRIED, "trl", "1.14.9")
    with pytest.raises(ImportError, match=r"trl 1\.14\.9 and found 1\.\d+.*requirements-cpu\.txt"):
        _check_versions()
    monkeypatch.setattr(checks.VLLMGeneration, "generate", lambda self, prompts: None)
    with pytest.raises(ImportError, match="requirements-cpu.txt"):
        _check_names()


# --- one engine, both kinds of model, both kinds of machine ---


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_next_model_takes_the_engines_place(folders, by_hand):
    first, _ = load(folders["tied"])
    if by_hand:  # closed already, and the load below closes it once more
        first.cpu_engine.close()
    second, _ = load(folders["untied"])
    with pytest.raises(RuntimeError, match="load the model again"):
        generate(first)
    outputs = generate(second)
    for theirs, ours in zip(policy_log_probs(second, outputs), log_probs(outputs)):
        torch.testing.assert_close(torch.tensor(ours), theirs, atol=1e-4, rtol=0)
    assert torch.get_num_threads() >= 1 and torch.set_num_threads is _set_num_threads


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_an_engine_ends_with_its_model(folders, tmp_path):
    def threads():
        return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]

    counts = []
    for _ in range(3):
        model, tokenizer = load(folders["tied"])
        trainer = trainer_for(model, tokenizer, tmp_path, steps=1)
        trainer.train()
        engine, during = weakref.ref(model.cpu_engine), threads()
        del model, tokenizer, trainer
        gc.collect()
        assert engine() is None and any("gloo" in name for name in during)
        counts.append(len(threads()))
        assert not any("gloo" in name for name in threads())
    assert counts[2] <= counts[1] < len(during)


def test_loading_again_does_not_pile_up_memory(folders):
    load(folders["tied"])
    start = resident()
    for _ in range(2):
        load(folders["tied"])
    assert resident() - start < 200e6  # the cache alone is 1 GiB


def test_an_interrupted_training_resumes_where_it_stopped(folders, run, tmp_path):
    straight = load_file(run.folder / "adapter/adapter_model.safetensors")
    model, tokenizer = load(folders["tied"])
    trainer_for(model, tokenizer, tmp_path).train(resume_from_checkpoint=str(run.folder / "checkpoint-2"))
    model.save_lora(tmp_path / "adapter")
    resumed = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert resumed.keys() == straight.keys()
    for name in straight:
        torch.testing.assert_close(resumed[name], straight[name], atol=0, rtol=0)


def test_every_weight_can_be_trained_without_an_adapter(folders, tmp_path):
    model, tokenizer = FastLanguageModel.from_pretrained(
        folders["untied"], 128, load_in_4bit=False, full_finetuning=True, fast_inference=True
    )
    generate(model)  # the engine has held the weights of before
    trainer = trainer_for(model, tokenizer, tmp_path, steps=2, learning_rate=1e-4)
    trainer.train()
    assert all(log.get("sampling/sampling_logp_difference/max", 0) <= 1e-3 for log in trainer.state.log_history)
    outputs = generate(model)  # by the weights of the last step, not of the last rollout
    for theirs, ours in zip(policy_log_probs(model, outputs), log_probs(outputs)):
        torch.testing.assert_close(torch.tensor(ours), theirs, atol=1e-4, rtol=0)


def test_a_cpu_without_avx512_loads_the_other_build(folders):
    """`import unsloth` would load the AVX512 library there, and the process die."""
    code = f"""
import torch
torch.cpu._is_avx512_supported = torch.cpu._is_avx512_bf16_supported = lambda: False
from grpo_kit import FastLanguageModel
model, _ = FastLanguageModel.from_pretrained({folders["tied"]!r}, max_seq_length=64, fast_inference=True)
model.fast_generate(["a"], use_tqdm=False)
print({{l.split("/")[-1].strip() for l in open("/proc/self/maps") if "vllm/_C" in l}})
"""
    root = KIT.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "{'_C_AVX2.abi3.so'}", done.stderr[-2000:]


def test_on_a_gpu_the_class_is_unsloths_own_and_load_lora_is_checked(monkeypatch, run, folders, tmp_path):
    own = types.ModuleType("unsloth")
    own.FastLanguageModel = object()
    monkeypatch.setitem(sys.modules, "unsloth", own)
    zoo, asked = types.ModuleType("unsloth_zoo.vllm_utils"), []
    zoo.load_lora = lambda model, folder, load_tensors=False, **options: asked.append((folder, load_tensors))
    monkeypatch.setitem(sys.modules, "unsloth_zoo.vllm_utils", zoo)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    found = runpy.run_path(str(KIT / "model/loader.py"), run_name="grpo_kit.model.loader")
    assert found["FastLanguageModel"] is own.FastLanguageModel
    model = types.SimpleNamespace(config=types.SimpleNamespace(_name_or_path=folders["tied"]))
    zoo.load_lora(model, run.folder / "adapter", load_tensors=False)
    zoo.load_lora(model, tmp_path / "in training", load_tensors=True)
    with pytest.raises(ValueError, match="incomplete"):
        zoo.load_lora(model, damaged(run, tmp_path / "half", tensors={KEY: None}))
    assert asked == [(run.folder / "adapter", False), (tmp_path / "in training", True)]


def test_the_arguments_are_those_of_unsloths_gpu_class():
    root = Path(importlib.util.find_spec("unsloth").origin).parent / "models"
    sources = [("loader.py", "FastLanguageModel", "from_pretrained"), ("llama.py", "FastLlamaModel", "get_peft_model")]
    for file, owner, name in sources:
        classes = {n.name: n for n in ast.parse((root / file).read_text()).body if isinstance(n, ast.ClassDef)}
        theirs = next(n for n in classes[owner].body if isinstance(n, ast.FunctionDef) and n.name == name).args
        defaults = dict(zip([a.arg for a in theirs.args][-len(theirs.defaults) :], theirs.defaults))
        for parameter in inspect.signature(getattr(FastLanguageModel, name)).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            assert parameter.name in {a.arg for a in theirs.args}
            if parameter.default is not parameter.empty:
                assert ast.literal_eval(defaults[parameter.name]) == parameter.default, parameter.name
