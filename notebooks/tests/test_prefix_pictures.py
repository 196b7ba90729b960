"""Chapter 09's pictures, its stored trainings beside the reader's, where heads look, and attention without a mask: on numbers made by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from grpo_kit.measure.heads import attention_to, without_head
from grpo_kit.plots.prefixes import plot_heads, plot_losses, plot_mixing, plot_solved
from grpo_kit.sft.no_mask import causal_without_mask, note_past
from grpo_kit.sft.stored_prefixes import grpo_table, read_stored, with_stored

SETTINGS = {"virtual tokens": 20}
LINES = [
    {"training": "supervised", "start": "random", "rows": 300, "seed": 3407, "steps": 240, "greedy": [9, 8], "sampled": [[7, 5], [6, 4]]},
    {"training": "supervised", "start": "random", "rows": 300, "seed": 3408, "steps": 240, "greedy": [9, 7], "sampled": [[6, 6]]},
    {"training": "supervised", "adapter": "small LoRA", "start": "random", "rows": 300, "seed": 3408, "steps": 240, "greedy": [9, 9], "sampled": [[8, 9]]},
    {"training": "supervised", "start": "random", "rows": 1920, "seed": 3407, "steps": 240, "greedy": [9, 6], "sampled": []},
    {"training": "GRPO", "seed": 3408, "seen": {"reward": [1.0] * 5 + [2.0] * 5}, "sampled": [[5, 3]]},
    {"training": "GRPO, early prefix", "seed": 3407, "seen": {"reward": [0.5] * 5}, "before": {"sampled": [[1, 2]]}, "sampled": [[3, 4]]},
]


def test_stored_trainings_of_other_settings_are_not_shown_and_that_is_said(tmp_path, capsys):
    file = tmp_path / "stored.json"
    file.write_text(json.dumps({"profiles": {"embedded": {"made with": SETTINGS, "trainings": {"lines": LINES},
                                                          "longer": {"400": {"asked": [9, 7]}},
                                                          "recipe": {"80 steps": {"asked": [9, 6], "training": [0.2, 0.1]}}}}}))
    assert read_stored(file, "embedded", {"virtual tokens": 40}, 240) == read_stored(file, "16gb", SETTINGS, 240) == []
    assert read_stored(file, "embedded", SETTINGS, 60) == []
    assert capsys.readouterr().out.count("other settings than yours") == 3
    *_, longer, recipe = read_stored(file, "embedded", SETTINGS, 240)
    assert longer["greedy"] == [9, 7] and recipe["loss"] == 0.1 and not capsys.readouterr().out


def test_each_training_stands_once_in_its_row():
    found = with_stored({"base": ((0, 1), None), "plain prefix": ([9, 8], [7, 5]), "small LoRA": ([9, 9], [9, 8])}, LINES)
    assert found["plain prefix"] == {"solved, greedy": [8, 7], "solved, sampled": [5, 6]}
    assert found["small LoRA"]["solved, sampled"] == [8, 9] and found["base"]["solved, sampled"] == []
    assert found["prefix, fresh rows"] == {"solved, greedy": [6], "solved, sampled": []}


def test_grpo_is_compared_with_the_start_under_the_same_random_seed():
    table = grpo_table(LINES).set_index("start")
    assert table.loc["prefix of 240 steps", "solved"] == "4 -> 3" and table.loc["prefix of 240 steps", "reward, first and last 5 steps"] == "1.00 -> 2.00"
    assert table.loc["early prefix", "layout kept"] == "1 -> 3" and grpo_table([]).empty


def test_a_prefix_dims_the_text_and_its_share_stands_behind_the_row():
    weights = np.tril(np.ones((3, 3))) / [[1], [2], [3]]
    figure = plot_mixing(weights, np.concatenate([np.full((3, 2), 0.3), 0.4 * weights], axis=1), weights)
    assert [text.get_text() for text in figure.axes[1].texts] == ["λ = 0.60"] * 3


def test_a_loss_is_labelled_with_its_end_and_a_row_with_its_counts():
    curves = {("layout", "small LoRA"): pd.Series([1.0, 0.1], [0, 20]), ("layout", "plain prefix"): pd.Series([1.0, 0.2], [0, 20])}
    assert [text.get_text().strip() for text in plot_losses(curves, "t").axes[0].texts] == ["small LoRA 0.100", "plain prefix 0.200"]
    axis = plot_solved({"base": {"greedy": [3]}, "small LoRA": {"greedy": [8, 9], "sampled": [7]}}, 10, "t").axes[0]
    assert [text.get_text() for text in axis.texts] == ["3", "8, 9"]
    asked_apart = plot_solved({"base": {"a": [3]}, "b": {"c": [1]}}, 10, "t").axes  # a row that was not asked so is not in the panel
    assert [[label.get_text() for label in axis.get_yticklabels()] for axis in asked_apart] == [["base"], ["b"]]
    assert all(line.get_solid_capstyle() == "butt" for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2)


def test_the_head_that_moved_most_is_framed_in_every_panel():
    base, moved = np.zeros((2, 3)), np.zeros((2, 3))
    moved[1, 2] = 0.9
    figure = plot_heads({"base": base, "small LoRA": base, "plain prefix": moved}, "t")
    assert [axis.patches[0].get_xy() for axis in figure.axes[:3]] == [(1.5, 0.5)] * 3


def test_the_share_of_a_stretch_leaves_the_prefix_out():
    given = torch.tensor([[0.5, 0.1, 0.3, 0.1]])  # one key of a prefix, three of the text

    class Tokenizer:
        def apply_chat_template(self, prompt, tokenize, add_generation_prompt):
            return prompt[-1]["content"]

        def __call__(self, text, **options):
            return Batch(input_ids=torch.zeros(1, 3), offset_mapping=torch.tensor([[[0, 1], [1, 3], [3, 4]]]))

    class Batch(dict):
        def to(self, device):
            return self

    class Model:
        device = "cpu"
        set_attn_implementation = print

        def __call__(self, **inputs):
            return SimpleNamespace(attentions=[given[None, None]])

    found = attention_to(Model(), Tokenizer(), [[{"content": "a12b"}]], lambda content: (1, 3))
    assert np.allclose(found, [[0.3 / 0.5]])
    assert np.allclose(attention_to(Model(), Tokenizer(), [[{"content": "a12b"}]], lambda content: (1, 3), whole=True), [[0.3]])
    with pytest.raises(ValueError, match="at least one prompt"):
        attention_to(Model(), Tokenizer(), [], None)


def test_a_head_that_is_switched_off_hands_nothing_on():
    output = torch.nn.Linear(6, 6, bias=False)
    torch.nn.init.eye_(output.weight)
    attention = SimpleNamespace(head_dim=2, o_proj=output)
    decoder = SimpleNamespace(layers=[None, SimpleNamespace(self_attn=attention)])
    without_head(SimpleNamespace(get_decoder=lambda: decoder), 1, 2)
    given = torch.ones(1, 6)
    assert output(given).tolist() == [[1, 1, 1, 1, 0, 0]] and given.sum() == 6


def test_attention_without_a_mask_counts_from_the_last():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)
    seen = torch.ones(3, 5).bool().tril(2)
    expected = ((query @ key.mT / 2).masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(1, 2)
    assert torch.allclose(causal_without_mask(None, query, key, value, None, 0.5)[0], expected, atol=1e-6)


def test_the_keys_in_front_are_counted_at_the_first_layer():
    attention = torch.nn.Identity()
    attention.forward = lambda **given: None
    received = note_past(SimpleNamespace(get_decoder=lambda: SimpleNamespace(layers=[SimpleNamespace(self_attn=attention)])))
    attention(past_key_values=SimpleNamespace(get_seq_length=lambda: 20))
    assert received == {"rows": 20}
    attention(past_key_values=None)
    assert received == {"rows": 0}
