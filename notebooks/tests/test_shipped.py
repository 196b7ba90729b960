"""What the repository ships: the small model is what its datasheet says, and its adapter gains on problems never written down."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grpo_kit.data import problems
from grpo_kit.data.problems import FOLDER, SEED
from grpo_kit.machine.profile import PROFILES

ROOT = Path(__file__).resolve().parents[2]
MODEL, ADAPTER = ROOT / "data" / "tiny-model", ROOT / "grpo_saved_lora"
OTHER_SEED = SEED + 1


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{(split, way): (before, after)} on problems of another seed, none of which the repository holds."""
    from grpo_kit import FastLanguageModel
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.measure.ask import evaluate
    from vllm import SamplingParams

    folder = tmp_path_factory.mktemp("problems")
    known = {json.loads(line)["question"] for path in FOLDER.glob("*.jsonl") for line in path.open()}
    for split, count in {"test": 400, "held_out": 200}.items():
        rows = problems.problems(split, count, OTHER_SEED, avoid=known)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    profile = replace(PROFILES["embedded"], data=str(folder))
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(MODEL), max_seq_length=profile.max_seq_length, load_in_4bit=True, fast_inference=True)
    ways = {way: SamplingParams(temperature=temperature, max_tokens=profile.max_completion_length, seed=11)
            for way, temperature in {"sampled": 1.0, "greedy": 0.0}.items()}
    asked = {split: make_dataset(profile, split, tokenizer) for split in ("test", "held_out")}
    runs = [None, model.load_lora(str(ADAPTER))]
    return {(split, way): [evaluate(model, rows, tokenizer, params, run) for run in runs]
            for split, rows in asked.items() for way, params in ways.items()}


def share(evaluation, measure):
    return 100 * evaluation.rows[measure].mean()


def writes_steps(evaluation):
    return evaluation.rows["text"].str.contains(" = ")


def test_the_models_likeliest_reply_is_a_blurted_number(results):
    sampled, greedy = results["test", "sampled"][0], results["test", "greedy"][0]
    assert writes_steps(greedy).mean() < 0.05 and share(greedy, "lenient") < 15
    assert 0.15 < writes_steps(sampled).mean() < 0.4 and 20 < share(sampled, "lenient") < 40
    assert share(sampled, "layout") < 10 and share(sampled, "strict") < 10


def test_the_model_is_right_more_often_when_it_writes_steps(results):
    sampled = results["test", "sampled"][0]
    right, steps = sampled.rows["lenient"], writes_steps(sampled)
    assert right[steps].mean() > 0.7 and right[~steps].mean() < 0.15


@pytest.mark.parametrize("split", ["test", "held_out"])
@pytest.mark.parametrize("way, measure, points", [("greedy", "lenient", 40), ("sampled", "lenient", 30), ("sampled", "strict", 50)])
def test_the_adapter_gains_on_problems_of_another_seed(results, split, way, measure, points):
    from grpo_kit.measure.statistics import paired_test

    before, after = results[split, way]
    assert share(after, measure) >= share(before, measure) + points
    assert paired_test(before.rows[measure], after.rows[measure])[2] < 0.001


def test_the_adapter_keeps_the_layout(results):
    assert share(results["test", "sampled"][1], "layout") > 92 and share(results["test", "greedy"][1], "layout") > 97


def test_the_files_are_small_and_whole():
    weights = MODEL / "model.safetensors"
    assert 4e6 < weights.stat().st_size < 16e6
    assert not list(ROOT.glob("data/**/*.bin")) + list(ROOT.glob("grpo_saved_lora/**/*.bin"))
    config = json.loads((ADAPTER / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../data/tiny-model"


def test_without_an_engine_the_greedy_answers_are_the_same():
    import torch
    from grpo_kit import FastLanguageModel
    from grpo_kit.data.rows import make_dataset
    from grpo_kit.measure.ask import evaluate, evaluate_with_generate
    from transformers import AutoModelForCausalLM
    from vllm import SamplingParams

    model, tokenizer = FastLanguageModel.from_pretrained(
        str(MODEL), max_seq_length=384, load_in_4bit=False, fast_inference=True)
    asked = make_dataset(PROFILES["embedded"], "test", tokenizer).select(range(40))
    engine = evaluate(model, asked, tokenizer, SamplingParams(temperature=0, max_tokens=8))
    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).train()
    side, state = tokenizer.padding_side, torch.random.get_rng_state()
    seen, head = [], plain.requires_grad_(False).get_output_embeddings()  # frozen, as beside an adapter: torch would copy it for a slice's rows
    hook = head.register_forward_hook(lambda head, args, out: seen.append(args[0].is_contiguous()))
    answers = evaluate_with_generate(plain, asked, tokenizer, max_new_tokens=8, temperature=0, batch_size=16)
    hook.remove()
    assert seen and all(seen) and not head._forward_pre_hooks
    same = ["prompt", "truncated", "length", "lenient"]
    assert answers.rows[same].equals(engine.rows[same]) and set(answers.rows["truncated"]) == {True, False}
    whole = ~answers.rows["truncated"]
    assert (answers.rows["text"] == engine.rows["text"])[whole].all()
    sampled = [evaluate_with_generate(plain, asked, tokenizer, max_new_tokens=48, seed=seed).rows["text"] for seed in (1, 1, 2)]
    assert sampled[0].equals(sampled[1]) and not sampled[0].equals(sampled[2])
    assert plain.training and tokenizer.padding_side == side and torch.equal(torch.random.get_rng_state(), state)
