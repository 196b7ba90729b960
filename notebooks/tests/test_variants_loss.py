"""Each option of the nine methods reaches the loss that runs, and a worker of `make variants` trains: with the small model."""

import pytest
import torch

from grpo_kit import FastLanguageModel  # noqa: F401  before trl
from trl import GRPOConfig, GRPOTrainer

from grpo_kit.measure import lenient_accuracy
from grpo_kit.rewards import correctness_reward, format_reward, tag_reward
from grpo_kit.training.variants import METHODS, UNCLIPPED, change_batches, divide_by_own_tokens, reset_adapter, variant_settings
from grpo_kit.workshop import trainings as workshop
from grpo_kit.workshop import variants

BATCH = {"per_device_train_batch_size": 64, "max_completion_length": 48}


@pytest.fixture(scope="module")
def trainings():
    workshop.QUESTIONS, workshop.POOL = 4, 8
    return workshop.Trainings()


@pytest.fixture(scope="module")
def scored(trainings, tmp_path_factory):
    """{method: (its trainer, one batch as it scores it)}: the same completions for all, sampled once from a disturbed adapter.

    A right number in any layout is paid too: the untrained model earns nothing else, and groups that agree have no gradient.
    """
    found, sampled = {}, None
    for method in METHODS | UNCLIPPED:
        reset_adapter(trainings.model, 1)
        disturb(trainings.model, 1)
        training_args = GRPOConfig(output_dir=str(tmp_path_factory.mktemp("x")), reward_weights=[1.0, 2.0, 1.0, 1.0],
                                   **variant_settings(method, 2, 1e-3, 2) | BATCH)
        trainer = GRPOTrainer(model=trainings.model, processing_class=trainings.tokenizer, args=training_args,
                              reward_funcs=[correctness_reward, format_reward, tag_reward, lenient_accuracy], train_dataset=trainings.dataset)
        trainer.current_gradient_accumulation_steps = 1
        change_batches(trainer, method)
        trainings.model.train()
        if sampled is None:
            questions = next(iter(trainer.get_train_dataloader()))
            sampled = trainer._generate([row["prompt"] for row in questions])
            sampled[1][0] = [token for token in sampled[1][0] if token not in trainer.eos_token_ids]  # one that was cut off
        trainer._generate = lambda prompts: sampled
        found[method] = trainer, trainer._generate_and_score_completions(questions)
    return found


@torch.no_grad()
def disturb(model, seed, size=0.05):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            tensor.add_(size * torch.randn(tensor.shape, generator=generator))


def gradient(trainings, trainer, batch, moved, size=0.2):
    reset_adapter(trainings.model, 1)
    disturb(trainings.model, 1)
    if moved:
        disturb(trainings.model, 2, size)
    trainer.compute_loss(trainings.model, batch).backward()
    vector = torch.cat([one.grad.flatten() for one in trainings.model.parameters() if one.requires_grad])
    trainings.model.zero_grad()
    return vector


def cosine(one, other):
    return float(one @ other / one.norm() / other.norm())


def test_an_option_changes_the_gradient_where_theory_says_so_and_nowhere_else(trainings, scored):
    fresh, moved = ({method: gradient(trainings, *pair, later) for method, pair in scored.items()} for later in (False, True))
    for one, other in [("GRPO", "GSPO"), ("TRL's default", "CISPO")]:  # the clip and the ratio alone
        assert torch.allclose(fresh[one], fresh[other], atol=1e-5 * float(fresh[one].norm()))
        assert cosine(moved[one], moved[other]) < 0.999
    free, cispo, clipped = (gradient(trainings, *scored[method], True, 0.06) for method in ("no clip", "CISPO", "TRL's default"))
    assert cosine(free, cispo) > 0.9999 and cosine(free, clipped) < 0.999  # a push so small that no ratio comes near CISPO's bound of 5
    assert cosine(fresh["no deviation"], fresh["Dr. GRPO"]) > 0.99999 > 0.9 > abs(1 - float(fresh["Dr. GRPO"].norm() / fresh["no deviation"].norm()))
    for method in ("GRPO", "no deviation", "batch deviation", "each reward alone"):  # the advantage, or what is divided by
        assert cosine(fresh[method], fresh["TRL's default"]) < 0.9999, method


def test_trls_default_with_both_halves_of_grpos_divisor_is_grpo_and_with_one_is_neither(trainings, scored):
    trainer, batch = scored["TRL's default"]
    found = {}
    for signs in [(1,), (-1,), (1, -1)]:
        trainer._generate_and_score_completions = lambda questions: dict(batch)
        for sign in signs:
            divide_by_own_tokens(trainer, sign)
        found[signs] = gradient(trainings, trainer, trainer._generate_and_score_completions(None), False)
    theirs, default = (gradient(trainings, *scored[method], False) for method in ("GRPO", "TRL's default"))
    assert torch.allclose(found[1, -1], theirs, atol=1e-5 * float(theirs.norm()))
    assert max(cosine(found[one], other) for one in [(1,), (-1,)] for other in (theirs, default)) < 0.999


def test_dapo_leaves_out_what_was_cut_off_and_the_groups_that_agree(scored):
    trainer, batch = scored["DAPO"]
    _, whole = scored["TRL's default"]
    counted, agree = batch["completion_mask"].sum(dim=1) > 0, (whole["advantages"].view(-1, 8).abs() < 1e-3).all(dim=1)
    assert agree.any() and not agree.all(), "choose another seed: the test needs groups of both kinds"
    ended = torch.tensor([int(ids[mask.bool()][-1]) in trainer.eos_token_ids for ids, mask in zip(whole["completion_ids"], whole["completion_mask"])])
    assert ended.any() and not ended[0]
    assert torch.equal(counted, ended & ~agree.repeat_interleave(8))
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum() < whole["num_items_in_batch"]
    assert scored["GRPO"][1]["completion_mask"][0].any()


def test_dapos_upper_bound_acts_once_a_token_has_moved_far_enough(trainings, scored):
    trainer, batch = scored["DAPO"]
    assert trainer.epsilon_high == 0.28
    published, narrow = [], []
    for found, bound in [(published, 0.28), (narrow, 0.2)]:
        trainer.epsilon_high = bound
        found += [gradient(trainings, trainer, batch, True, size) for size in (0.1, 0.2, 0.3, 0.5, 0.7)]
    trainer.epsilon_high = 0.28
    assert any((one - other).norm() > 0.01 * one.norm() for one, other in zip(published, narrow))


def test_on_a_gpu_unsloths_function_gives_the_same_loss_and_gradient(trainings, scored):
    from unsloth_zoo.rl_replacements import grpo_compute_loss

    adapter = [one for one in trainings.model.parameters() if one.requires_grad]
    for method, (trainer, batch) in scored.items():
        reset_adapter(trainings.model, 1)
        disturb(trainings.model, 2)
        ids, mask = (torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], dim=1) for name in ("ids", "mask"))
        theirs = trainer.compute_loss(trainings.model, batch)
        logps = trainer._get_per_token_logps_and_entropies(trainings.model, ids, mask, batch["completion_ids"].shape[1])[0]
        ours = grpo_compute_loss(
            None, logps, batch["old_per_token_logps"], None, batch["completion_ids"], batch["completion_mask"], 0.0, batch["advantages"],
            loss_type=trainer.args.loss_type, importance_sampling_level=trainer.importance_sampling_level, epsilon_low=trainer.epsilon_low,
            epsilon_high=trainer.epsilon_high, max_completion_length=trainer.args.max_completion_length,
            num_items_in_batch=batch["num_items_in_batch"], steps_per_generation=trainer.args.steps_per_generation)[0]
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-3, abs=1e-6), method
        one, other = (torch.cat([part.flatten() for part in torch.autograd.grad(loss, adapter)]) for loss in (ours, theirs))
        assert (one - other).norm() < 1e-3 * other.norm(), method


def test_what_unsloth_fills_in_on_a_gpu_is_said_by_every_method():
    """Its source as installed: where these are left open, "dapo" and "cispo" get bounds and a mask, and "dr_grpo" no deviation."""
    for method in METHODS:
        settings = variant_settings(method, 1, 1e-3, 1)
        assert {"epsilon", "epsilon_high", "mask_truncated_completions", "scale_rewards", "beta"} <= set(settings)
        assert settings["loss_type"] != "dr_grpo" or settings["scale_rewards"] == "none"
        assert settings["loss_type"] != "cispo" or settings["epsilon_high"] >= 1


def test_a_worker_trains_one_adapter_after_another_and_the_same_seed_gives_the_same(trainings):
    kind = {"generations": 2, "model": "x"}
    base, difficulty, rate = variants.jobs([], kind)[:3]
    assert set(trainings.train(base)["results"]["test"]) == {"sampled", "greedy"}
    right = trainings.train(difficulty)["right"]
    assert len(right) == 8 and all(0 <= one <= 8 for one in right)
    first = trainings.train(rate)
    assert len(first["curve"]["strict"]) == 2 and "results" not in first
    other = trainings.train(rate | {"stage": "control", "reward": "random", "updates": 4, "seed": 5})
    assert other["results"]["held_out"]["greedy"]["questions"] == 4 and len(other["curve"]["lenient"]) == 2
    assert trainings.train(rate)["curve"] == first["curve"]
    chosen = trainings.train(rate | {"stage": "data", "data": "easy first"}, right)
    assert len(chosen["curve"]["strict"]) == 2
