"""Tools: the calculator against Python's integers, calls written and read, and the engine's log-probs over several turns."""

import copy
import json
import re
from fractions import Fraction

import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, strategies as st

from grpo_kit import FastLanguageModel  # before transformers and trl: it mends what they need on this machine
from grpo_kit.data.large_sums import large_sums
from grpo_kit.data.problems import FOLDER
from grpo_kit.measure import Evaluation
from grpo_kit.rewards import correctness_reward, format_reward
from grpo_kit.tools import (ENDS, STOPS, Busy, ask_with_calls, asked_again, asked_here, calculate, chance, coloured, each, expectations, shown_calls,
                            shown_solutions, stored, to_dataset, told, with_calls)
from grpo_kit.tools.calculator import DEPTH, DIGITS, LENGTH, value
from grpo_kit.tools.calls import READING, _end
from grpo_kit.tools.expected import checked
from grpo_kit.workshop import tool_trainings, tools as workshop
from transformers import AutoTokenizer
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import is_chat_template_prefix_preserving, is_chat_template_stop_token_trained, parse_response, supports_tool_calling
from vllm import SamplingParams

TINY = FOLDER.parent / "tiny-model"
SHOWN = large_sums(4, seed="shown")
CHAPTER = FOLDER.parents[1] / "notebooks/13_tools.ipynb"


def expressions(inner):
    """Pairs (text, value) that join two of `inner`; of unequal strength, so bracketed now and then."""
    def join(pair):
        (left, a), sign, (right, b), bracketed = pair
        b_text = f"({right})" if bracketed or sign in "*/-" else right
        a_text = f"({left})" if sign in "*/" else left
        if sign == "/" and b == 0:
            return f"({a_text})", a
        return f"{a_text} {sign} {b_text}", {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0}[sign]

    return st.tuples(inner, st.sampled_from("+-*/"), inner, st.booleans()).map(join)


numbers = st.tuples(st.integers(0, 10**9), st.booleans()).map(lambda pair: (f"{pair[0]:,}" if pair[1] else str(pair[0]), Fraction(pair[0])))


@given(st.recursive(numbers, expressions, max_leaves=5))
def test_the_calculator_agrees_with_exact_arithmetic(pair):
    text, wanted = pair
    if len(text) <= LENGTH:
        assert value(text) == wanted


@given(st.lists(st.tuples(st.sampled_from(["+", "-", "*"]), st.integers(0, 99_999)), min_size=1, max_size=6), st.integers(0, 99_999))
def test_without_brackets_it_keeps_pythons_order(steps, first):
    text = str(first) + "".join(f" {sign} {number}" for sign, number in steps)
    wanted = first
    terms, signs = [first], []  # products first, then from the left, worked out on Python's integers
    for sign, number in steps:
        if sign == "*":
            terms[-1] *= number
        else:
            signs.append(sign)
            terms.append(number)
    wanted = terms[0]
    for sign, term in zip(signs, terms[1:]):
        wanted = wanted + term if sign == "+" else wanted - term
    if len(text) <= LENGTH:
        assert calculate(text) == f"{wanted:,}"


@given(st.text(alphabet="0123456789+-*/(). ,_axe\n٣７", max_size=2 * LENGTH))
def test_anything_else_is_one_sentence(text):
    try:
        calculate(text)
    except ValueError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


@pytest.mark.parametrize("text, says", [
    ("1 +", "number is missing"), ("", "number is missing"), ("1 2", "sign is missing"), ("(1", "not closed"), ("1)", "not opened"),
    ("1 / (2 - 2)", "division by zero"), ("2 ** 3", "number is missing"), ("__import__('os')", "what is '_'"), ("1_000", "what is '_'"), ("７", "what is"),
    ("1,00", "what is ','"), ("9" * (DIGITS + 1), "digits"), ("(" * (DEPTH + 1) + "1" + ")" * (DEPTH + 1), "within each other"),
    ("-" * (DEPTH + 1) + "1", "within each other"), ("1+" * LENGTH + "1", "characters"), (12, "text"), (None, "text"),
])
def test_what_it_refuses_and_why(text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        calculate(text)


def test_it_writes_results_as_the_problems_do():
    texts = ["347 * 286 - 4,512", "-(2 - 5) * 4", "7 / 2", "1 / 3", "1,000,000 * 1,000,000", "5 - 7"]
    assert [calculate(text) for text in texts] == ["94,730", "12", "3.5", "0.333333", "1,000,000,000,000", "-2"]


def test_large_sums_are_true_large_and_made_from_the_seed():
    rows = large_sums(200, seed="test")
    assert rows == large_sums(200, seed="test") != large_sums(200, seed="other") and len({row["question"] for row in rows}) == 200
    for row in rows:
        assert row["answer"].endswith(f"#### {calculate(row['expression'])}") and value(row["expression"]) >= 0
        assert set(re.findall(r"[0-9][0-9,]*", row["expression"])) == set(re.findall(r"[0-9][0-9,]*[0-9]", row["question"])) or " 1 " in row["question"]
    assert not {row["question"] for row in large_sums(50, seed="test", avoid={row["question"] for row in rows})} & {row["question"] for row in rows}


@pytest.fixture
def tokenizer():
    return with_calls(AutoTokenizer.from_pretrained(TINY))


def test_the_template_adds_calls_and_changes_nothing_else(tokenizer):
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    for count, start in [(2, True), (3, False)]:
        plain = AutoTokenizer.from_pretrained(TINY).apply_chat_template(chat[:count], tokenize=False, add_generation_prompt=start)
        assert tokenizer.apply_chat_template(chat[:count], tokenize=False, add_generation_prompt=start) == plain
    assert supports_tool_calling(tokenizer) and is_chat_template_prefix_preserving(tokenizer) and is_chat_template_stop_token_trained(tokenizer)


def test_a_call_that_is_written_is_read_again(tokenizer):
    row = shown_calls(SHOWN)[0]
    ids = tokenizer.apply_chat_template(row["messages"], tools=row["tools"], return_dict=False)
    begin = tokenizer.apply_chat_template(row["messages"][:2], tools=row["tools"], add_generation_prompt=True, return_dict=False)
    reply = ids[len(begin) : ids.index(tokenizer.eos_token_id, len(begin)) + 1]
    assert parse_response(tokenizer, reply, prefix=begin) == {name: said for name, said in row["messages"][2].items() if said is not None}
    for text in ["The answer is 5.", "Solve", "Solve steps"]:
        parsed = parse_response(tokenizer, tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"], prefix=begin)
        assert parsed == {"role": "assistant", "content": text}


def test_only_the_assistants_words_count_in_sft(tokenizer):
    row = shown_calls(SHOWN)[0]
    out = tokenizer.apply_chat_template(row["messages"], tools=row["tools"], return_dict=True, return_assistant_tokens_mask=True)
    counted = tokenizer.decode([token for token, mask in zip(out["input_ids"], out["assistant_masks"]) if mask])
    expression, result = SHOWN[0]["expression"], calculate(SHOWN[0]["expression"])
    assert counted.startswith(f"Solve steps: {expression}<|im_end|><reasoning>") and counted.endswith(f"{result}\n</answer><|im_end|>")
    assert "tool" not in counted


def test_a_shown_answer_earns_everything():
    rows, dataset = shown_calls(SHOWN), to_dataset(SHOWN)
    texts = [row["messages"][-1]["content"] for row in rows]
    assert correctness_reward(texts, list(dataset["answer"])) == [2.0] * 4 and format_reward(texts) == [0.5] * 4


def test_a_shown_solution_holds_no_call_and_sits_beside_calls(tokenizer):
    rows, dataset = shown_solutions(to_dataset(SHOWN)), to_dataset(SHOWN)
    texts = [row["messages"][-1]["content"] for row in rows]
    assert correctness_reward(texts, list(dataset["answer"])) == [2.0] * 4 and format_reward(texts) == [0.5] * 4
    assert SHOWN[0]["expression"] + " = " in texts[0]
    marked = to_dataset([{"question": "?", "answer": "1 + 1 = <<1+1=2>>2 cakes\n2 * 3 = <<2*3=6>>6 cakes\n#### 6"}])
    assert shown_solutions(marked)[0]["messages"][-1]["content"].startswith("<reasoning>\n1 + 1 = 2 cakes\n2 * 3 = 6 cakes\n</reasoning>\n<answer>\n6\n")
    mixed = Dataset.from_list([*shown_calls(SHOWN), *rows])
    asked = [tokenizer.apply_chat_template(row["messages"][:2], tools=row["tools"], tokenize=False) for row in mixed]
    assert asked[0] == asked[4] and "Solve steps:" not in tokenizer.apply_chat_template(mixed[4]["messages"][2:], tokenize=False)


def test_a_family_with_its_own_format_keeps_it():
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    with_calls(tokenizer)
    chat = shown_calls(SHOWN)[0]
    text = tokenizer.apply_chat_template(chat["messages"], tools=chat["tools"], tokenize=False)
    assert '<tool_call>\n{"name": "calculate", "arguments": {"expression": ' in text and "<tool_response>" in text
    reply = tokenizer(text.split("<|im_start|>assistant\n")[-2].partition("<|im_end|>")[0] + "<|im_end|>", add_special_tokens=False)["input_ids"]
    assert parse_response(tokenizer, reply, prefix=[])["tool_calls"] == chat["messages"][2]["tool_calls"]


# --- with the engine: every reply of this model is a call, so that the loop goes on for several turns ------------------


def echo(text: str) -> str:
    """Says it again.

    Args:
        text: What to say.
    """
    return f"You say: {text[:12]} Now {len(text)}?"


@pytest.mark.parametrize("right, results, calls, end", [
    (True, [], 0, "right"), (True, ["8"], 1, "right"), (False, ["1,234"], 1, "right sum, wrong reply"), (False, ["5", "1,234"], 2, "right sum, wrong reply"),
    (False, ["1,235"], 1, "another sum"), (False, ["?"], 1, "another sum"), (False, [], 2, "call refused"), (False, [], 0, "no call"),
])
def test_what_a_conversation_came_to(right, results, calls, end):
    assert _end({"results": results, "calls": calls}, right, "1234") == end and end in ENDS


def test_a_busy_calculator_answers_the_second_of_two_equal_calls():
    busy = Busy()
    busy.reset(answer="12")
    for expression, says in [("3 * 4", "busy"), ("5 * 5", "busy"), ("5 *", "number is missing"), ("5 * 5", "busy")]:
        with pytest.raises(ValueError, match=says):
            busy.calculate(expression)
    assert not busy.answered and busy.calculate("25") == "25" and busy.answered  # the same result is enough


def test_what_came_of_refusals():
    first, other = {"expression": "3 * 4"}, {"expression": "3 * 5"}
    rows = pd.DataFrame({"asked": [[], [first], [first, other], [first, first], [other, first, first]], "failed": [0, 1, 2, 1, 2]})
    rows["calls"] = rows["asked"].map(len)
    found = asked_again(rows)
    assert found["twice"].tolist() == [False, False, True, True, True] and found["same"].tolist() == [False, False, False, True, False]
    assert found["answered"].tolist() == [False, False, False, True, True]


@pytest.fixture(scope="module")
def talker():
    model, tokenizer = FastLanguageModel.from_pretrained(str(TINY), max_seq_length=768, load_in_4bit=True, fast_inference=True, max_lora_rank=4)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4, target_modules=["q_proj", "down_proj"], random_state=3407)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(3407))  # an adapter that does something
    with_calls(tokenizer)
    reading = copy.deepcopy(READING)
    del reading["fields"]["tool_calls"]["open"]
    reading["fields"]["tool_calls"] |= {"open_pattern": r"(?=[A-Z0-9<$-])", "content": "text", "repeats": True, "close_pattern": r"<\|im_end\|>\s*",
                                        "transform": {"type": "function", "function": {"name": "echo", "arguments": {"text": "{content}"}}}}
    tokenizer.response_template = reading
    return model, tokenizer


def make_trainer(talker, folder, **changes):
    model, tokenizer = talker
    args = GRPOConfig(output_dir=str(folder), use_vllm=True, per_device_train_batch_size=8, num_generations=4, max_steps=1, max_completion_length=160,
                      max_tool_calling_iterations=3, temperature=1.0, report_to="none", disable_tqdm=True, seed=3407, save_strategy="no", **changes)
    return GRPOTrainer(model=model, processing_class=tokenizer, reward_funcs=[format_reward], args=args, tools=[echo], train_dataset=to_dataset(SHOWN))


def test_sampled_logprobs_are_the_policys_over_several_turns(talker, tmp_path):
    trainer = make_trainer(talker, tmp_path, vllm_importance_sampling_correction=True)
    rows = [trainer.train_dataset[n // 4] for n in range(8)]
    trainer.model.train()
    out = trainer._generate_and_score_completions(rows)
    mask = (out["completion_mask"] * out["tool_mask"]).bool()
    turns = [int((row[1:] & ~row[:-1]).sum()) + 1 for row in mask]
    assert max(turns) == 4 and min(turns) >= 2  # three calls were answered, and a last reply followed
    assert (out["completion_mask"].bool() & ~mask).sum() > 100  # the tool's words, which do not count
    ids = torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1)
    attention = torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1)
    for scored in (trainer._get_per_token_logps_and_entropies(trainer.model, ids, attention, mask.shape[1])[0], plain(trainer.model, ids, attention, mask.shape[1])):
        assert (scored - out["sampling_per_token_logps"])[mask].abs().max() < 1e-3


@torch.no_grad()
def plain(model, ids, attention, length):
    """The policy's log-probs by one plain forward over the padded rows: no packing, no engine."""
    positions = (attention.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=attention, position_ids=positions).logits[:, -length - 1 : -1]
    return logits.log_softmax(-1).gather(-1, ids[:, -length:, None])[..., 0]


def test_the_tools_words_bear_no_loss(talker, tmp_path):
    trainer = make_trainer(talker, tmp_path)
    trainer.model.train()
    out = trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(8)])
    out["advantages"] = torch.linspace(-1, 1, 8)
    trainer.current_gradient_accumulation_steps = 1  # which its training loop sets
    own = out["completion_mask"] * out["tool_mask"]
    first = trainer.compute_loss(trainer.model, out)
    first.backward()
    gradient = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.cat([out["prompt_ids"], out["completion_ids"]], 1), torch.cat([out["prompt_mask"], out["completion_mask"]], 1), own.shape[1])[0]
    by_hand = -((logps - logps.detach()).exp() * out["advantages"][:, None] * own).sum() / own.sum()
    by_hand.backward()
    assert float(first) == pytest.approx(float(by_hand), abs=1e-4)
    for name, p in trainer.model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(p.grad, gradient[name], atol=1e-4 + 0.01 * gradient[name].abs().max()), name
    trainer.model.zero_grad()


def test_asking_with_tools_writes_what_trls_loop_writes(talker, tmp_path):
    model, tokenizer = talker
    model.save_lora(str(tmp_path / "adapter"))
    params = SamplingParams(temperature=0.0, max_tokens=160)
    told = ask_with_calls(model, to_dataset(SHOWN), tokenizer, params, [echo], model.load_lora(str(tmp_path / "adapter"))).rows
    trainer = make_trainer(talker, tmp_path, generation_kwargs={"temperature": 0.0})
    trainer.model.train()
    out = trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(8)])
    for row, mask, text in zip(out["completion_ids"][::4], out["completion_mask"][::4], told["conversation"]):
        mine = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(row[mask.bool()]).split("<|im_end|>")[:2] == text.split("<|im_end|>")[:2] and mine
    assert told["calls"].max() == 3 and (told["failed"] == 0).all()
    assert (told["asked"].map(len) == told["calls"]).all() and set(told["asked"][0][0]) == {"text"}
    assert (told["stop"] == [STOPS[2] if cut else STOPS[1] for cut in told["truncated"]]).all()  # for this model every whole reply is a call


class Counting:
    """An environment that says how often it was asked, and by whose question."""

    def reset(self, answer, **row):
        self.answer, self.asked = answer, 0

    def echo(self, text: str) -> str:
        """Says it again.

        Args:
            text: What to say.
        """
        self.asked += 1
        return f"{self.asked} {self.answer}"

    def get_reward(self):
        return 0.0


def test_each_question_has_an_environment_of_its_own(talker):
    model, tokenizer = talker
    params = SamplingParams(temperature=0.0, max_tokens=160)
    told = ask_with_calls(model, to_dataset(SHOWN), tokenizer, params, environment_factory=Counting).rows
    assert (told["calls"] == 3).any() and (told["failed"] == 0).all()
    for answer, conversation, calls in zip(to_dataset(SHOWN)["answer"], told["conversation"], told["calls"]):
        assert re.findall(r"<\|im_start\|>tool\n(.*?)<\|im_end\|>", conversation) == [f"{number} {answer}" for number in range(1, calls + 1)]


# --- `make tools`, without a training ----------------------------------------------------------------------------------

KIND = {"model": "ab12", "settings": "cd34"}
JOBS = [{"calls": calls, "solutions": 0, "ordinary": 0, "SFT": calls, "GRPO": 16, "seed": seed} | KIND for seed in (1, 2) for calls in (0, 50)]


def line(job):
    stages = ("base", "SFT", "GRPO") if job["calls"] else ("base", "GRPO")
    return {"results": {stage: {name: {"strict": 10.0 * job["seed"] + place} for name in ("large sums", "ordinary")} for place, stage in enumerate(stages)}}


def test_a_killed_make_tools_goes_on_where_it_was(tmp_path, capsys):
    file, asked = tmp_path / "runs.jsonl", []
    file.write_text(f"{json.dumps(JOBS[1] | line(JOBS[1]))}\n{json.dumps(JOBS[0] | {'settings': 'others'} | line(JOBS[0]))}\n" + '{"calls": 0, "se')
    runs = workshop.collect(file, JOBS, lambda job: asked.append((job["calls"], job["seed"])) or line(job))
    assert asked == [(0, 1), (0, 2), (50, 2)] and [(run["calls"], run["seed"]) for run in runs] == [(0, 1), (50, 1), (0, 2), (50, 2)]
    assert workshop.collect(file, JOBS, None) == runs and "50 calls, 50 SFT, 16 GRPO, seed 2: done" in capsys.readouterr().out


def test_no_two_trainings_are_taken_for_each_other():
    jobs = workshop.jobs_of({"SFT": {"max_steps": 250}, "GRPO": {"max_steps": 16}}, KIND)
    assert len(jobs) == len(workshop.PLANS) * workshop.SEEDS + len(workshop.FURTHER) and not [(a, b) for a in jobs for b in jobs if a is not b and a.items() <= b.items()]
    assert [(job["SFT"], job["GRPO"]) for job in jobs if job["calls"] == 50 and job["seed"] == 3407] == [(250, 16), (250, 32), (70, 0)]


def test_its_table_leaves_out_what_was_not_run():
    lines = workshop.table([job | line(job) for job in JOBS]).splitlines()
    assert lines[1].split() == ["16", "GRPO,", "2", "seeds", "15.0", "±", "63.5", "16.0", "±", "63.5"]
    assert lines[2].split()[8::3] == ["15.0", "16.0", "17.0"]


def test_figures_are_shares_of_all_questions():
    rows = pd.DataFrame({"strict": [True, False], "lenient": [True, True], "layout": [True, False], "truncated": [False, False],
                         "calls": [2, 0], "failed": [1, 0], "length": [10, 21], "end": ["right", "no call"],
                         "conversation": ["Solve steps: 66 + 2,480", "2,546"]})
    wanted = {"questions": 2, "strict": 50.0, "lenient": 100.0, "layout": 50.0, "truncated": 0.0, "called": 50.0, "refused": 50.0, "copied": 50.0,
              "tokens": 15.5, "right": "10", "ends": {"right": 1, "no call": 1}}
    assert tool_trainings.figures(Evaluation(rows), ["She had 66 and found 2,480."] * 2) == wanted


def test_a_busy_calculators_figures_keep_a_digit_a_question():
    rows = pd.DataFrame({"strict": [True, False], "lenient": [True, True], "layout": [True, False], "truncated": [False, True],
                         "calls": [2, 1], "failed": [1, 1], "asked": [[{"expression": "1"}] * 2, [{"expression": "1"}]], "length": [10, 21],
                         "end": ["right", "call refused"], "stop": ["in the layout", "cut off"], "conversation": ["1", "1"]})
    kept = tool_trainings.busy_figures(Evaluation(rows), ["?"] * 2)
    assert [kept[name] for name in ("twice", "same", "answered", "right", "stop")] == ["10", "10", "10", "10", "02"]


def test_a_text_copies_a_question_when_all_its_numbers_stand_in_it():
    question = "There are 6 bags with 12,480 beads. She gives 7 away."
    assert tool_trainings.copies(question, "6 * 12,480 - 7 = 74,873")
    assert not tool_trainings.copies(question, "6 * 12,480 = 74,880")  # one is missing
    assert not tool_trainings.copies(question, "67 * 12,480")  # 6 and 7 stand there, but as digits of another number
    assert not tool_trainings.copies(question, "6 * 12,4807 - 7")
    assert not tool_trainings.copies(question, "6 * 12,4 80 - 7")


# --- the chapter's bar, on what it stored -------------------------------------------------------------------------------


def test_the_stored_chapter_is_over_its_bar_and_agrees_with_make_tools():
    outputs = {cell["id"]: json.dumps(cell.get("outputs"), ensure_ascii=False) for cell in json.loads(CHAPTER.read_text("utf-8"))["cells"]}
    strict = re.search(r"strict: \+([0-9.]+) points, p <0\.001", outputs["tools-bar"])
    assert strict and float(strict[1]) >= 40  # from base to tool user
    assert "the stored one of seed 3407 agree on 100 of 100 large sums" in outputs["tools-ordinary"]
    answered = re.findall(r"(\d+) → (\d+)", outputs["tools-busy"].partition("answered")[2].partition("twice")[0])
    assert len(answered) == 3 and all(int(after) >= int(before) + 10 for before, after in answered)


# --- what `make tools` stored, as the chapter reads it ------------------------------------------------------------------


def figures_of(strict, **more):
    return {"strict": strict, "lenient": strict + 1, "called": 90.0, "refused": 7.0, "right": "01", **more}


def report_of(tmp_path):
    busy = {"twice": "11", "same": "10", "answered": "10", "right": "10", "stop": "03"}
    runs = [
        {"calls": 0, "solutions": 0, "ordinary": 0, "SFT": 0, "GRPO": 16, "seed": 1, "agree": [1.0],
         "results": {"base": {name: figures_of(3.0) for name in ("large sums", "ordinary")}, "GRPO": {name: figures_of(3.0) for name in ("large sums", "ordinary")}}},
        {"calls": 200, "solutions": 0, "ordinary": 200, "SFT": 500, "GRPO": 32, "seed": 1, "agree": [0.25, 0.75],
         "results": {"SFT": {name: figures_of(48.0) for name in ("large sums", "ordinary")}, "GRPO": {name: figures_of(56.0) for name in ("large sums", "ordinary")}}},
        {"calls": 200, "solutions": 0, "ordinary": 200, "SFT": 500, "GRPO": 0, "more SFT": 400, "Busy": 24, "seed": 1, "agree": [0.5],
         "results": {"SFT": {name: figures_of(48.0, ends={"right": 48}) for name in ("large sums", "ordinary")} | {"busy": busy},
                     "more SFT": {name: figures_of(49.0) for name in ("large sums", "ordinary")}}},
        {"calls": 50, "solutions": 0, "ordinary": 0, "SFT": 70, "GRPO": 0, "seed": 1,
         "results": {"SFT": {name: figures_of(4.0) for name in ("large sums", "ordinary")}}}]
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"machine": "M", "command": "make tools", "runs": [run | {"cpu seconds": 30, "date": "D"} for run in runs]}))
    return file


def test_stored_trainings_have_a_row_for_each_stage_and_none_twice(tmp_path, capsys):
    rows = stored(report_of(tmp_path))
    assert capsys.readouterr().out == "4 trainings by `make tools`, 2 minutes of processor time; M; D\n"
    assert rows[["shown", "stage", "steps"]].apply(tuple, axis=1).tolist() == [
        ("nothing", "SFT", 0), ("nothing", "practice", 16), ("200 calls + 200 ordinary", "practice", 32), ("200 calls + 200 ordinary", "SFT", 500),
        ("200 calls + 200 ordinary", "more SFT", 400), ("50 calls, few steps", "SFT", 70)]
    known = rows.iloc[3]  # of two lines with this SFT, the one that was asked with the busy calculator
    assert known[["large", "ordinary last", "ordinary refused", "twice", "same", "answered", "busy right", "in the layout", "cut off"]].tolist() == [48, 49, 7, 2, 1, 1, 1, 1, 0]
    assert known["busy digits"] == "10" and known["layout digits"] == "10" and known["ordinary digits"] == "01"
    assert rows["agree"][2] == 0.5 and rows["agree"].isna().sum() == 4


def test_numbers_of_several_trainings_are_one_text():
    assert each([48.0, float("nan"), 37.6]) == "48, -, 38"


def test_what_is_asked_here_is_counted_as_what_is_stored():
    plain = Evaluation(pd.DataFrame({"strict": [True, False]}))
    busy = Evaluation(pd.DataFrame({"strict": [False, False], "calls": [2, 1], "failed": [1, 1], "stop": ["in the layout", "cut off"],
                                    "asked": [[{"expression": "1"}] * 2, [{"expression": "1"}]]}))
    assert asked_here(plain, plain, busy) == {
        "large": 50, "ordinary": 50, "twice": 50, "same": 50, "answered": 50, "busy right": 0, "in the layout": 50, "cut off": 50,
        "large right": "10", "ordinary digits": "10", "busy digits": "00", "layout digits": "10"}


def test_chance_is_the_paired_tests_p_of_two_texts_of_digits():
    assert chance("0" * 6, "1" * 5 + "0") == chance("1" * 5 + "0", "0" * 6) == "0.062"  # 2 / 2 ** 5
    assert chance("0" * 11, "1" * 11) == "<0.001" and chance("01", "10") == "1.000"


def test_a_conversation_is_told_a_line_a_turn():
    rows = pd.DataFrame({"conversation": ["Solve steps: 1 + 1<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n2<|im_end|>"]})
    assert told(Evaluation(rows), [{"question": "Q?", "answer": "2"}], 0) == "Q?   [2]\n   [assistant]\n   Solve steps: 1 + 1\n   [tool]\n   2\n   [assistant]\n   2"


def test_the_stored_expectations_are_judged_by_the_stored_figures():
    found = checked(stored(CHAPTER.parent / "results/tools.json"), {"answered": 31.0, "busy right": 14.0})
    judged = {(number, claim): (measured, bool(true)) for number, claim, measured, true in found}
    assert judged[1, "200 sums worked out without a call: fewer than 5 of 100 large sums right"] == ("0, 0, 0", True)
    assert judged[9, "busy calculator, this notebook's practice: at least 20 answered"] == ("31", True)
    assert judged[9, "the same: at least 15 right"] == ("14", False)


def test_an_expectation_is_true_in_every_claim_or_not_at_all(capsys):
    table = expectations(stored(CHAPTER.parent / "results/tools.json"), {"answered": 31.0, "busy right": 14.0}).data
    assert "4 of 12 expectations came true in every claim; of the 22 claims 13." in capsys.readouterr().out
    assert table.count("<td>yes</td>") == 13 and table.count("<b>no</b>") == 9


def test_what_counts_is_blue_and_the_rest_grey(tokenizer, capsys):
    text = coloured(tokenizer, tokenizer("12 < 13", add_special_tokens=False)["input_ids"][:2], [1, 0]).data
    assert text.count("#0072b2") == text.count("#e4e4e4") == 1 and capsys.readouterr().out == "1 of 2 tokens count in the loss\n"
