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
    """{split: (before, after)} on problems of another seed, none of which the repository holds."""
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
    sampling_params = SamplingParams(temperature=1.0, max_tokens=profile.max_completion_length, seed=11)
    asked = {split: make_dataset(profile, split, tokenizer) for split in ("test", "held_out")}
    runs = [None, model.load_lora(str(ADAPTER))]
    return {split: [evaluate(model, rows, tokenizer, sampling_params, run) for run in runs] for split, rows in asked.items()}


def share(evaluation, measure):
    return 100 * evaluation.rows[measure].mean()


def test_the_model_is_a_young_instruct_model(results):
    before = results["test"][0]
    assert 30 <= share(before, "lenient") <= 60
    assert share(before, "strict") < 15
    assert share(before, "layout") < 25


def test_the_model_is_right_more_often_when_it_writes_steps(results):
    rows = results["test"][0].rows
    writes_steps = rows["text"].str.contains(" = ")
    assert rows["lenient"][writes_steps].mean() > rows["lenient"][~writes_steps].mean() + 0.3


def test_the_adapter_gains_on_problems_of_another_seed(results):
    from grpo_kit.measure.statistics import paired_test

    before, after = results["test"]
    assert share(after, "layout") >= 95
    assert share(after, "strict") >= share(before, "strict") + 40
    assert share(after, "lenient") >= share(before, "lenient") + 12
    assert paired_test(before.rows["lenient"], after.rows["lenient"])[2] < 0.001


def test_the_adapter_gains_on_templates_never_trained_on(results):
    from grpo_kit.measure.statistics import paired_test

    before, after = results["held_out"]
    assert share(after, "lenient") > share(before, "lenient")
    assert paired_test(before.rows["lenient"], after.rows["lenient"])[2] < 0.05


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
    engine = evaluate(model, asked, tokenizer, SamplingParams(temperature=0, max_tokens=48))
    plain = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).train()
    side, state = tokenizer.padding_side, torch.random.get_rng_state()
    answers = evaluate_with_generate(plain, asked, tokenizer, max_new_tokens=48, temperature=0, batch_size=16)
    same = ["prompt", "truncated", "length", "lenient"]
    assert answers.rows[same].equals(engine.rows[same]) and set(answers.rows["truncated"]) == {True, False}
    whole = ~answers.rows["truncated"]
    assert (answers.rows["text"] == engine.rows["text"])[whole].all()
    sampled = [evaluate_with_generate(plain, asked, tokenizer, max_new_tokens=48, seed=seed).rows["text"] for seed in (1, 1, 2)]
    assert sampled[0].equals(sampled[1]) and not sampled[0].equals(sampled[2])
    assert plain.training and tokenizer.padding_side == side and torch.equal(torch.random.get_rng_state(), state)
