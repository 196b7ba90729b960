"""How a call is written and read, shown calls to learn from, and a conversation with tools, turn by turn."""

import inspect
import re

import numpy as np
import pandas as pd
from datasets import Dataset

from grpo_kit.data.rows import SYSTEM_PROMPT
from grpo_kit.measure.ask import own_seeds
from grpo_kit.measure.score import Evaluation, lenient_accuracy
from grpo_kit.rewards.answers import gold_answer, gold_number, parse_number
from grpo_kit.rewards.functions import correctness_reward, format_reward
from .calculator import calculate

# ChatML as the small model knows it, and a call in words that it has read and written often: letters and brackets, which it never wrote,
# surprise it more (chapter 13 measures it, each form behind a prompt that names it). So its language has one tool, `calculate`: "Solve steps: 12 * 30 - 4".
CALLS = (
    "{% set words = {'calculate': 'Solve', 'expression': 'steps'} %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}{{ '' if loop.first and not message['content'] else '\n' }}"
    "{{ words.get(call['function']['name'], call['function']['name']) }}"
    "{% for name, value in call['function']['arguments'].items() %}{{ ' ' + words.get(name, name) + ': ' + value | string }}{% endfor %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}"
    "{% if loop.first and message['role'] == 'system' %}{% for tool in tools or [] %}{% set tool = tool['function'] %}"
    "{{ '\n' + words.get(tool['name'], tool['name']) }}"
    "{% for name in tool['parameters']['properties'] %}{{ ' ' + words.get(name, name) + ':' }}{% endfor %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
READING = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "Solve steps:",
            "close_pattern": r"\n|<\|im_end\|>\s*",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "calculate", "arguments": {"expression": "{content}"}}},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


ENDS = ("right", "right sum, wrong reply", "another sum", "call refused", "no call")  # what a conversation may come to
STOPS = ("in the layout", "with a call", "cut off", "otherwise")  # and how its last reply may stop


def with_calls(tokenizer):
    """The tokenizer, which now writes calls and tools' words, and reads them: in its family's format where it has one, else in ours."""
    from trl.chat_template_utils import add_response_schema, qwen2_5_chat_template  # here, for Unsloth must come before trl

    if "<tool_call>" in tokenizer.get_vocab():
        tokenizer.chat_template = qwen2_5_chat_template  # Qwen's own; Unsloth gives some models one that differs by a space
        return add_response_schema(tokenizer)
    tokenizer.chat_template, tokenizer.response_template = CALLS, READING
    return tokenizer


def to_dataset(rows):
    """Rows of word problems as the Dataset that GRPOTrainer takes: `prompt`, `answer`, `question`, `solution`."""
    return Dataset.from_list([
        {"prompt": [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": row["question"]}],
         "answer": gold_answer(row["answer"]), "question": row["question"], "solution": row["answer"]} for row in rows])


def shown_calls(rows):
    """Conversations to learn calls from, as the Dataset that SFTTrainer takes: `messages` and `tools`.

    `rows` have a `question`, an `answer` and an `expression`; the assistant calls the calculator with it, and answers in the layout.
    """
    from transformers.utils import get_json_schema

    found = []
    for row in rows:
        result = calculate(row["expression"])
        call = {"type": "function", "function": {"name": "calculate", "arguments": {"expression": row["expression"]}}}
        found.append({"messages": [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "calculate", "content": result},
            {"role": "assistant", "content": f"<reasoning>\n{row['answer'].partition(chr(10))[0].partition(' = ')[2]}\n</reasoning>\n<answer>\n{result}\n</answer>"},
        ], "tools": [get_json_schema(calculate)]})
    return Dataset.from_list(found)


def shown_solutions(dataset):
    """Conversations without a call, as `shown_calls` gives them: the solution's own lines, then the answer, in the layout.

    `dataset`: rows of `make_dataset` or `to_dataset`. The calculator is announced here as well.
    """
    from transformers.utils import get_json_schema

    found = []
    for row in dataset:
        steps, _, answer = re.sub("<<.*?>>", "", row["solution"]).partition("\n#### ")
        reply = {"role": "assistant", "content": f"<reasoning>\n{steps}\n</reasoning>\n<answer>\n{answer}\n</answer>"}
        found.append({"messages": [*row["prompt"], reply], "tools": [get_json_schema(calculate)]})
    return Dataset.from_list(found)


def ask_with_calls(model, dataset, tokenizer, sampling_params, tools=(), lora_request=None, turns=4, environment_factory=None):
    """Asks every question once and lets the model call `tools`, at most `turns` replies each: an `Evaluation`, as `evaluate` gives.

    With `environment_factory`, as in GRPOTrainer, each question gets an object of its own, reset with its row; its public methods
    are tools as well.

    As in GRPO's `max_completion_length`, `sampling_params.max_tokens` counts all replies together, and the tools' words.
    Its rows have also `calls` (how many), `failed` (how many of them the tool refused), `asked` (what each of them passed, a list of dicts),
    `end` (one of `ENDS`), `stop` (one of `STOPS`) and `conversation` (all that was written after the question, as tokens say it). `text` is
    the last reply; `length` counts the model's own tokens.
    """
    from trl.chat_template_utils import parse_response

    template = tokenizer.apply_chat_template
    tools = [[*tools, *_methods(environment_factory, row)] for row in dataset]  # a list for each question
    prompts = template(list(dataset["prompt"]), tools=tools[0] or None, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    params = own_seeds(sampling_params, len(prompts))
    told = [{"ids": list(ids), "length": 0, "calls": 0, "failed": 0, "asked": [], "results": [], "tools": {tool.__name__: tool for tool in given}}
            for ids, given in zip(prompts, tools)]
    open_ones = list(range(len(prompts)))
    for turn in range(turns):
        asked = [{"prompt_token_ids": told[one]["ids"]} for one in open_ones]
        requests = model.fast_generate(asked, sampling_params=[params[one] for one in open_ones], lora_request=lora_request, use_tqdm=False)
        calling = []
        for one, request in zip(open_ones, requests):
            talk, output = told[one], request.outputs[0]
            ids = list(output.token_ids)
            reply = parse_response(tokenizer, ids, prefix=talk["ids"])
            talk.update(text=reply["content"], cut=output.finish_reason == "length", length=talk["length"] + len(ids))
            talk["ids"] += ids
            calls = [] if talk["cut"] else reply.get("tool_calls") or []
            talk["calling"] = bool(calls)
            if calls and talk["tools"] and turn + 1 < turns:
                talk["ids"] += tool_tokens(tokenizer, [_run(call["function"], talk) for call in calls])
                params[one].max_tokens = sampling_params.max_tokens - len(talk["ids"]) + len(prompts[one])
                talk["cut"] = params[one].max_tokens <= 0
                calling += [] if talk["cut"] else [one]
        open_ones = calling
        if not open_ones:
            break
    texts, golds = [talk["text"] for talk in told], list(dataset["answer"])
    strict, layout = np.array(correctness_reward(texts, golds)) > 0, np.array(format_reward(texts)) > 0
    return Evaluation(pd.DataFrame({
        "prompt": [tokenizer.decode(ids) for ids in prompts], "text": texts,
        "layout": layout, "strict": strict,
        "lenient": np.array(lenient_accuracy(texts, golds)) > 0, "truncated": [talk["cut"] for talk in told],
        "length": [talk["length"] for talk in told], "calls": [talk["calls"] for talk in told], "failed": [talk["failed"] for talk in told],
        "asked": [talk["asked"] for talk in told], "end": [_end(*one) for one in zip(told, strict, golds)],
        "stop": [STOPS[2 if talk["cut"] else 0 if fits else 1 if talk["calling"] else 3] for talk, fits in zip(told, layout)],
        "conversation": [tokenizer.decode(talk["ids"][len(ids):]) for talk, ids in zip(told, prompts)]}))


def _end(talk, right, gold):
    """Which of `ENDS` it came to: the reply is right; else, what the tool had been asked, if anything."""
    if right:
        return ENDS[0]
    if gold_number(gold) in map(parse_number, talk["results"]):
        return ENDS[1]
    return ENDS[2] if talk["results"] else ENDS[3] if talk["calls"] else ENDS[4]


def asked_again(rows):
    """What came of a tool's refusals, from rows of `ask_with_calls`: a DataFrame of bool columns.

    `twice`: two calls or more; `same`: the second passes what the first did, word for word; `answered`: not every call was refused.
    """
    same = [len(asked) > 1 and asked[0] == asked[1] for asked in rows["asked"]]
    return pd.DataFrame({"twice": rows["calls"] > 1, "same": same, "answered": rows["calls"] > rows["failed"]})


def _methods(environment_factory, row):
    """The public methods of a new environment for this row, but those that TRL calls itself; none without a factory."""
    if environment_factory is None:
        return []
    environment = environment_factory()
    environment.reset(**row)
    named = inspect.getmembers(type(environment), predicate=inspect.isfunction)  # on the class: nothing is evaluated
    return [getattr(environment, name) for name, _ in named if not name.startswith("_") and name not in ("reset", "get_reward")]


def _run(function, talk):
    """The message with a tool's answer, or with what was wrong, as TRL writes it."""
    talk["calls"] += 1
    talk["asked"].append(function["arguments"])
    try:
        result = talk["tools"][function["name"]](**function["arguments"])
        talk["results"].append(str(result))
    except Exception as error:  # whatever a model may pass: it is told, as in TRL
        talk["failed"] += 1
        result = {"error": str(error)}
    return {"role": "tool", "name": function["name"], "content": str(result)}


def tool_tokens(tokenizer, messages):
    """The tokens between a call's end and the next reply's beginning: the tool's words and their frame; a list of ids.

    `messages`: one for each result, {"role": "tool", "name": ..., "content": ...}. Found as TRL's trainer finds them: the difference of two chats.
    """
    dummy = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": messages[0]["name"], "arguments": {}}}]}]
    before = tokenizer.apply_chat_template(dummy, tokenize=True, return_dict=False)
    after = tokenizer.apply_chat_template(dummy + messages, tokenize=True, return_dict=False, add_generation_prompt=True)
    end = len(before) - before[::-1].index(tokenizer.eos_token_id)
    return after[end:]
