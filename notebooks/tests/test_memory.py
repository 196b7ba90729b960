"""The memory planner: counts against real models, bytes against bitsandbytes, facts about the engines against their sources."""

import importlib.util
import json
import mmap
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from grpo_kit.machine import memory, memory_here, step_time
from grpo_kit.machine.memory import SPARE, count_parameters, memory_plan, verdict
from grpo_kit.machine.memory_here import cpu_plan, packed_tokens
from grpo_kit.machine.profile import PROFILES
from grpo_kit.machine.spare import available_memory

SHAPE = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2}
QWEN = step_time.QWEN_3B
SMOL = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                   num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
EMBEDDED = PROFILES["embedded"]
ROOT = Path(__file__).resolve().parents[2]
TINY = AutoConfig.from_pretrained(ROOT / "data/tiny-model")


SMALLER = {  # Qwen2.5 of the profiles below 16 GB
    "6gb": step_time.qwen(896, 4864, 24, 14),
    "8gb": step_time.qwen(1536, 8960, 28, 12),
}


def source(package, file):
    folder = Path(importlib.util.find_spec(package).origin).parent
    return (folder / file).read_text("utf-8")


@pytest.mark.parametrize("model_class, config", [
    (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=False)),
    (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True)),  # with biases, and one matrix less
])
def test_the_count_is_the_models_own(model_class, config):
    model = model_class(config)
    count = count_parameters(config, rank=4)
    assert count["linear"] + count["rest"] == sum(p.numel() for p in model.parameters())
    trained = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    assert count["adapter"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)


@pytest.mark.parametrize("weights, size", [("float32", 4 * 110), ("16-bit", 2 * 110), ("NF4", 0.5159 * 100 + 2 * 10)])
def test_what_4_bit_does_not_shrink_takes_16_bits_at_least(weights, size):
    assert memory.frozen_bytes({"linear": 100, "rest": 10}, weights) == pytest.approx(size, rel=1e-4)


@pytest.mark.parametrize("weights", ["4bit", "nf4", "", None, 16])
def test_an_unknown_format_of_weights_lists_the_known_ones(weights):
    for plan in (lambda: memory_plan(QWEN, EMBEDDED, 16e9, weights=weights), lambda: memory.frozen_bytes({"linear": 1, "rest": 1}, weights)):
        with pytest.raises(ValueError, match="is unknown; the formats are float32, 16-bit, NF4."):
            plan()


def test_counting_takes_no_memory():
    assert {p.device.type for p in memory.build_on_paper(QWEN).parameters()} == {"meta"}
    assert count_parameters(QWEN) == {"linear": 2_774_532_096, "rest": 311_406_592, "adapter": 0}


def test_nf4_takes_what_bitsandbytes_takes():
    packed, state = quantize_4bit(torch.randn(512, 256), blocksize=64, compress_statistics=True, quant_type="nf4")
    size = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert size == memory.WEIGHT_BYTES["NF4"] * 512 * 256


def test_the_activations_are_what_autograd_keeps():
    """On a plain PEFT model, as the CPU engine's: everything saved for the backward pass but weights and buffers."""
    config = LlamaConfig(**SHAPE | {"num_key_value_heads": 4}, attn_implementation="sdpa")
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules="all-linear"))
    fixed = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = 0 if storage.data_ptr() in fixed else storage.nbytes()
        return tensor

    tokens = torch.arange(64).view(2, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.get_decoder()(tokens)
    planned = 4 * config.num_hidden_layers * memory.layer_values(config, 4) * tokens.numel()
    assert sum(kept.values()) == pytest.approx(planned, rel=0.1)


def test_the_optimisers_moments_take_what_torch_and_bitsandbytes_keep():
    parameter = torch.nn.Parameter(torch.ones(4096))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    moments = sum(optimizer.state[parameter][name].nbytes for name in ("exp_avg", "exp_avg_sq"))
    assert moments == memory.ADAM * 4096
    assert "blocksize = 256" in source("bitsandbytes", "optim/optimizer.py")  # 8 bits each, and a float32 for a block
    assert memory.ADAM_8BIT == 2 * (256 + 4) / 256


def test_packed_rows_are_counted_as_the_cpu_engine_packs_them():
    assert packed_tokens(EMBEDDED, 110) == (16 * 2 * 110 + 128 * 96, 110 + 4 * 96)  # 8 completions: two rows of 4
    assert packed_tokens(EMBEDDED, 192) == (16 * 3 * 192 + 128 * 96, 192 + 3 * 96)  # only 3 fit, so three rows
    assert packed_tokens(EMBEDDED, 500)[1] == 596  # a row holds one completion, however long
    assert packed_tokens(replace(EMBEDDED, per_device_train_batch_size=4), 110)[0] == 110 + 4 * 96  # half a group of 8
    assert packed_tokens(replace(EMBEDDED, per_device_train_batch_size=12), 110)[0] == 3 * 110 + 12 * 96


def test_what_is_said_of_the_engines_stands_in_their_sources():
    ours = source("grpo_kit", "model/cpu_engine/trl_rollouts.py")
    assert f"PACK, BATCH = {memory_here.PACK}, {memory_here.BATCH}" in ours
    assert '"VLLM_CPU_KVCACHE_SPACE") or "1"' in source("grpo_kit", "model/loader.py") and memory_here.cache_space() >= memory.GIB
    rule = source("unsloth_zoo", "vllm_utils.py").partition('Version(vllm_version) < Version("0.11.0")')[2]
    rule = rule.partition("else:\n        # Standby")[2]
    tiers = re.findall(r"ten_percent >= ([\d.]+): standby_target_gpu_util = ([\d.]+)", rule)
    assert "standby_target_gpu_util *= 0.95" in rule
    for least, share in tiers:
        assert memory.standby_share(10 * float(least) * memory.GIB) == pytest.approx(0.95 * float(share))
    assert len(tiers) == 5 and memory.standby_share(8e9) == pytest.approx(0.95 * 0.75)
    chunks = source("unsloth_zoo", "fused_losses/chunked_logprob.py")
    for text in ("_BYTES_PER_LOGIT = 8.0", '_CHUNK_GB", 2.0', '_MIN_ROWS", 512', "max(_MIN_ROWS, -(-int(n_rows) // 8))"):
        assert text in chunks


def test_chunks_never_hold_more_than_two_gib_of_logits():
    for name, profile in PROFILES.items():
        config = {"embedded": TINY, "laptop": SMOL, **SMALLER}.get(name, QWEN)
        assert memory.logits_bytes(config, profile) <= min(2 * memory.GIB, memory.logits_bytes(config, profile, chunked=False))


@pytest.mark.parametrize("name", SMALLER)
def test_a_smaller_card_has_a_smaller_model_that_leaves_room(name):
    """The least memory that chooses the profile, of which a tenth is taken by others."""
    profile, size = PROFILES[name], int(name[:-2]) * 0.9e9
    plan = memory_plan(SMALLER[name], profile, 0.9 * size)
    assert plan.sum().max() < 0.95 * size and verdict(plan, SMALLER[name], profile, size) == "fits"


@pytest.mark.parametrize("name", ["16gb", "24gb", "40gb", "80gb"])
def test_every_gpu_profile_fits_with_its_savings_and_not_without_checkpointing(name):
    profile, size = PROFILES[name], int(name[:-2]) * 1e9
    plan = memory_plan(QWEN, profile, size)
    assert verdict(plan, QWEN, profile, size) == "fits" and plan.sum().max() < size
    profile = replace(profile, standby=True)
    plan = memory_plan(QWEN, profile, size)
    assert verdict(plan, QWEN, profile, size) == "fits"
    assert plan.loc[SPARE, "training"] == 0 < plan.loc[SPARE, "sampling"]
    on_top = plan.loc[["runtime", "adapter, gradients, optimiser"], "sampling"].sum()
    assert plan["sampling"].sum() == pytest.approx(memory.standby_share(size) * size + on_top) and plan["sampling"].sum() < size
    whole = memory_plan(QWEN, PROFILES[name], size, chunked=False)
    assert not verdict(whole, QWEN, PROFILES[name], size).startswith("fits")
    keeping = memory_plan(QWEN, PROFILES[name], size, checkpointing=False)
    assert verdict(keeping, QWEN, PROFILES[name], size).startswith("does not fit: ")


@pytest.mark.parametrize("added, margin", [(0.4e9, 1e9), (8e9, 4e9)])
def test_a_plan_that_ends_near_the_cards_end_cannot_say(added, margin):
    """Within 1 GB, or half of what training adds where that is more."""
    for beyond, word in {-1.01: "fits", -0.99: "too close to say: ", 0.99: "too close to say: ", 1.01: "does not fit: "}.items():
        plan = memory_plan(QWEN, PROFILES["16gb"], 16e9)
        plan.loc[["activations", "logits"], "training"] = added / 2
        plan.loc["runtime"] += 16e9 + beyond * margin - plan.sum().max()
        assert verdict(plan, QWEN, PROFILES["16gb"], 16e9).startswith(word)


def test_the_margin_covers_the_runs_that_were_measured():
    for run, standby in ((H100_RUN, True), (H200_RUN, False)):
        plan = memory_plan(QWEN, replace(PROFILES["16gb"], standby=standby), 16e9, prompt=119)
        found = {"sampling": run["peak, GB"]["generate"], "training": run["peak, GB"]["training"]}
        assert all(abs(plan[when].sum() - 1e9 * peak) <= memory.margin(plan) for when, peak in found.items())


def test_a_model_that_leaves_no_cache_does_not_fit():
    profile = PROFILES["16gb"]
    plan = memory_plan(QWEN, profile, 2.7e9)  # of which vLLM gets 0.6: less than the weights
    assert (plan >= 0).all(axis=None)
    assert verdict(plan, QWEN, profile, 16e9) == "does not fit: no room for one sequence in the KV cache"


def llama(**shape):
    return LlamaConfig(num_key_value_heads=8, head_dim=128, vocab_size=128256, **shape)


def qwen3(**shape):  # without biases, so of Llama's shape
    return LlamaConfig(num_key_value_heads=8, head_dim=128, num_attention_heads=32, num_hidden_layers=36, vocab_size=151936, **shape)


LLAMA_3B = llama(hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24, tie_word_embeddings=True)
PUBLIC = [  # Unsloth's GRPO on a T4, from stored outputs of public notebooks: what vLLM said its weights took, GiB
    ("Llama 3.1 8B", step_time.LLAMA_8B, "NF4", 32, 5.60),
    ("Llama 3.2 3B", LLAMA_3B, "NF4", 32, 2.34),
    ("Qwen2.5 3B", QWEN, "NF4", 64, 2.22),
    ("Qwen3 8B", qwen3(hidden_size=4096, intermediate_size=12288), "NF4", 32, 5.91),
    ("Qwen3 4B", step_time.QWEN3_4B, "16-bit", 32, 7.63),
]


@pytest.mark.parametrize("name, config, weights, rank, gib", PUBLIC, ids=[row[0] for row in PUBLIC])
def test_the_weights_of_public_runs(name, config, weights, rank, gib):
    count = count_parameters(config, rank)
    planned = memory.frozen_bytes(count, weights)
    assert planned + 2 * count["adapter"] == pytest.approx(gib * memory.GIB, rel=0.1)  # vLLM holds the adapter in 16 bits too


H100_RUN, H200_RUN = (json.loads((ROOT / f"notebooks/results/gpu_check_nvidia_{card}.json").read_text("utf-8"))["parts"]["engine"]["640 tokens"]
                      for card in ("h100_80gb_hbm3", "h200"))


@pytest.mark.parametrize("run, standby, error", [(H100_RUN, True, 0.05), (H200_RUN, False, 0.1)])
def test_the_plan_of_the_runs_that_were_measured_on_a_gpu(run, standby, error):
    """A 3B shape, vLLM held to its share of 16 GB; the longest prompt had 119 tokens."""
    plan = memory_plan(QWEN, replace(PROFILES["16gb"], standby=standby), 16e9, prompt=119).sum() / 1e9
    assert plan["sampling"] == pytest.approx(run["peak, GB"]["generate"], rel=error)
    assert plan["training"] == pytest.approx(run["peak, GB"]["training"], rel=error)


def test_the_seconds_of_runs_on_gpus_are_met():
    assert all(5 / 6 < estimated / measured < 7 / 6 for _, estimated, measured in step_time.measured_steps())
    # chapter 01 hands over the formula that its reader may have changed
    assert {estimated for _, estimated, _ in step_time.measured_steps(lambda *_: (1, 2))} == {3}


def test_a_step_takes_longer_for_more_tokens_a_larger_model_and_a_slower_card():
    def seconds(config=QWEN, card="T4", **lengths):
        return step_time.step_seconds(config, PROFILES["16gb"], step_time.CARDS[card], **lengths)

    assert seconds() == seconds(prompt=256, length=640)
    assert all(more > less for more, less in zip(seconds(), seconds(length=320)))
    assert all(more > less for more, less in zip(seconds(step_time.LLAMA_8B), seconds()))
    assert all(more > less for more, less in zip(seconds(), seconds(card="RTX 4090")))


@pytest.mark.parametrize("value, gib", [(None, 1), ("", 1), ("3", 3), ("0", 0), ("0.5", 0), ("-1", 0), ("much", 0)])
def test_the_caches_variable_never_stops_the_import_nor_plans_a_gpus_share(monkeypatch, value, gib):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    if value is not None:
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", value)
    assert memory_here.cache_space() == gib * memory.GIB
    assert cpu_plan(TINY, EMBEDDED).filter(like="KV", axis=0)["sampling"].sum() == gib * memory.GIB


def test_without_standby_the_engine_keeps_the_profiles_share_while_the_model_trains():
    profile = PROFILES["16gb"]
    plan = memory_plan(QWEN, profile, 15.6e9)
    cache = plan.filter(like="KV", axis=0).sum()
    assert cache["sampling"] == cache["training"] == pytest.approx(0.6 * 15.6e9 - plan.loc["weights", "training"])
    assert verdict(plan, QWEN, profile, 15.6e9) == "fits" and plan.sum().max() < 15.6e9  # a T4's 14.56 GiB


def test_on_a_cpu_the_cache_stays_and_the_float32_copies_count():
    plan = cpu_plan(TINY, EMBEDDED, prompt=119)
    cache = plan.filter(like="KV", axis=0).sum()
    assert cache["sampling"] == cache["training"] == memory_here.cache_space()
    count = count_parameters(TINY)
    policy, dense = 0.5159 * count["linear"] + 4 * count["rest"], 4 * count["linear"]
    engine = 4 * (count["linear"] + count["rest"])
    assert plan.loc["weights", "training"] == pytest.approx(policy + dense + engine, rel=1e-3)
    assert plan.loc["adapter, gradients, optimiser", "training"] == 16 * count_parameters(TINY, EMBEDDED.lora_rank)["adapter"]


@pytest.mark.parametrize("gpu", [True, False])
def test_the_plan_here_is_this_machines(monkeypatch, gpu):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda: (15e9, 16e9))
    plan, size = memory_here.plan_here(QWEN, PROFILES["16gb"], 119)
    expected = memory_plan(QWEN, PROFILES["16gb"], 15e9, 119) if gpu else cpu_plan(QWEN, PROFILES["16gb"], 119)
    assert plan.equals(expected) and (size == 15e9) == gpu
    if gpu:  # the memory that was free before the model was loaded
        assert memory_here.plan_here(QWEN, PROFILES["16gb"], 119, 14e9)[0].equals(memory_plan(QWEN, PROFILES["16gb"], 14e9, 119))


def test_the_peak_is_seen_also_when_it_is_over_at_the_end():
    before = memory_here.memory_in_use()
    device = torch.accelerator.current_accelerator()
    with memory_here.measured_peak() as peak:
        # Without a GPU pages of its own: torch would take some that earlier tests freed and the process still holds.
        taken = torch.empty(200_000_000, dtype=torch.uint8, device=device) if device else torch.frombuffer(mmap.mmap(-1, 200_000_000), dtype=torch.uint8)
        taken.fill_(1)
        held = memory_here.memory_in_use()
        for _ in range(5):
            taken.add_(1)
        del taken
    assert peak.bytes - before == pytest.approx(200e6, rel=0.2) and held <= peak.bytes


def test_the_watch_ends_when_the_run_fails():
    threads = threading.active_count()
    with pytest.raises(KeyError), memory_here.measured_peak():
        raise KeyError
    assert threading.active_count() == threads


@pytest.mark.parametrize("files, free", [
    ({}, 8.0),
    ({"memory.max": "max", "memory.current": "5", "memory.stat": "inactive_file 1"}, 8.0),
    ({"memory.max": "4000000000", "memory.current": "3500000000", "memory.stat": "anon 7\ninactive_file 1000000000"}, 1.5),
    ({"memory.max": "4000000000", "memory.current": "4100000000", "memory.stat": "anon 7"}, 0.0),
    ({"memory/memory.limit_in_bytes": "2000000000", "memory/memory.usage_in_bytes": "500000000", "memory/memory.stat": "total_inactive_file 0"}, 1.5),
    ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "5", "memory/memory.stat": "cache 1"}, 8.0),
])
def test_available_memory_is_the_machines_or_the_containers(tmp_path, files, free):
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    7812500 kB\n")
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert available_memory(tmp_path, tmp_path / "meminfo") == pytest.approx(free * 1e9)
