"""The measures of chapters 08 and 09, against transformers' own loss and generate on a small random model."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from grpo_kit.data.problems import FOLDER
from grpo_kit.sft.measures import answer_all, completion_loss, encode, holds, mentions, until_repeat
from grpo_kit.sft.progress import LossTable, loss_curves

ROWS = [
    {"instruction": "Name a colour.", "output": "Blue."},
    {"instruction": "Say something longer about the number 12, please.", "output": "Twelve is 3 times 4, and 2 times 6."},
    {"instruction": "天是什么颜色？", "output": "蓝色。"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER.parent / "tiny-model")


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(3407)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, initializer_range=0.5, **sizes)
    return LlamaForCausalLM(config).train()


def test_the_prompt_bears_no_loss_and_the_reply_with_its_end_does(tokenizer):
    ids, prompt = encode(tokenizer, ROWS[0])
    assert tokenizer.decode(ids[:prompt]).endswith("assistant\n")
    assert tokenizer.decode(ids[prompt:]).rstrip("\n") == "Blue." + tokenizer.eos_token


def test_the_loss_is_the_mean_over_all_tokens_of_all_replies(model, tokenizer):
    nats = tokens = 0
    for row in ROWS:
        ids, prompt = encode(tokenizer, row)
        labels = torch.tensor([[-100] * prompt + ids[prompt:]])
        with torch.no_grad():
            nats += model(input_ids=torch.tensor([ids]), labels=labels).loss.item() * (len(ids) - prompt)
        tokens += len(ids) - prompt
    for batch_size in (1, 3):
        assert completion_loss(model, tokenizer, ROWS, batch_size) == pytest.approx(nats / tokens, rel=1e-5)
    assert model.training
    with pytest.raises(ValueError, match="at least one row"):
        completion_loss(model, tokenizer, [])


def test_a_batch_answers_as_each_row_alone(model, tokenizer):
    tokenizer.padding_side = "right"
    alone = [answer_all(model, tokenizer, [row], max_new_tokens=12)[0] for row in ROWS]
    assert answer_all(model, tokenizer, ROWS, max_new_tokens=12, batch_size=2) == alone
    assert len(set(alone)) > 1
    assert model.training and tokenizer.padding_side == "right"


def test_the_table_averages_the_training_loss_and_marks_the_best(capsys):
    table, args, control = LossTable(), None, None
    state = SimpleNamespace(global_step=0, max_steps=20, is_world_process_zero=True)
    table.on_evaluate(args, state, control, {"eval_loss": 9.0})  # by hand, before the training: not printed
    table.on_train_begin(args, state, control)
    for step, losses, validation in [(0, [], 4.0), (10, [3.0, 2.0], 2.5), (20, [1.0], 2.75)]:
        state.global_step = step
        for loss in losses:
            table.on_log(args, state, control, {"loss": loss})
        table.on_evaluate(args, state, control, {"eval_loss": validation})
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[:3] for line in lines[1:]] == [["10", "2.500", "2.500"], ["20", "1.000", "2.750"]]
    assert ["*" in line for line in lines] == [True, True, False]
    assert "min left" not in lines[-1]
    assert "left" not in lines[0]


def test_the_curves_are_read_by_step():
    training, validation = loss_curves([{"step": 0, "eval_loss": 4.0}, {"step": 5, "loss": 3.0}, {"step": 5, "eval_loss": 2.0}])
    assert training.to_dict() == {5: 3.0} and validation.to_dict() == {0: 4.0, 5: 2.0}


@pytest.mark.parametrize("reply, answers, found", [
    ("The capital of France is Paris.", ["Paris"], True), ("PARIS!", ["Paris"], True), ("Parisians say so.", ["Paris"], False),
    ("It has 4 strings.", ["four", "4"], True), ("It has 40 strings.", ["four", "4"], False), ("In Germany.", ["German"], False),
    ("carbon  dioxide", ["carbon dioxide"], False), ("", ["Paris"], False), ("C++ (it is)", ["C++"], True)])
def test_a_reply_mentions_an_answer_as_words_of_its_own(reply, answers, found):
    assert mentions(reply, answers) is found


def test_the_head_gets_no_slice_that_torch_would_copy_it_for(model, tokenizer):
    seen = []
    head = model.get_output_embeddings()
    model.requires_grad_(False)  # a frozen head, as beside an adapter
    hook = head.register_forward_hook(lambda head, args, out: seen.append(args[0].is_contiguous()))
    answer_all(model, tokenizer, ROWS, max_new_tokens=3)
    hook.remove()
    model.requires_grad_(True)
    assert len(seen) == 3 and all(seen) and not head._forward_pre_hooks


@pytest.mark.parametrize("answer, reply, held", [
    ("3", "It has 3 sides.", True),
    ("3", "It has three sides.", True),
    ("3", "It has 13 sides.", False),
    ("3", "It has 3,000 sides.", False),
    ("1,000", "A thousand grams.", True),
    ("1,000", "1000 grams.", True),
    ("1, 2, 3", "Sorted: 1, 2, and 3.", True),
    ("1, 2, 3", "Sorted: 1, 3, 2.", False),
    ("far", "Farther away.", False),
    ("far", "FAR", True),
    ("HELLO", "hello", False),
])
def test_an_answer_is_held_as_words_of_its_own(answer, reply, held):
    assert holds(reply, answer) is held


def test_a_reply_counts_until_it_repeats_itself():
    assert until_repeat([1, 2, 3, 4]) == 4 and until_repeat([]) == 0
    assert until_repeat([9, 1, 2, 1, 2, 1], run=2) == 3 and until_repeat([1, 2, 1, 2], run=3) == 4
