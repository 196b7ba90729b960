"""The problems a run trains and is tested on: read, checked row by row, made into prompts.

Every source gives GSM8K's rows: a `question`, and an `answer` whose steps end in `#### <number>`.
"""

import io
import json
import os
import re
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
from datasets import Dataset, load_dataset
from huggingface_hub import constants, get_session
from pyarrow import ArrowException, parquet

from grpo_kit.machine.profile import SOURCES
from grpo_kit.rewards.answers import gold_answer
from .problems import FOLDER

SYSTEM_PROMPT = """Solve the problem. Reply in exactly this layout:
<reasoning>
your steps, one a line
</reasoning>
<answer>
the final number
</answer>"""
SYSTEM_PROMPT_ZH = "请按以下格式回答：\n<reasoning>\n思考过程\n</reasoning>\n<answer>\n最终答案\n</answer>"


def unreadable(source, reason):
    """The ConnectionError of a source of problems, in one sentence: what is wrong with it, and what to do; no password in a URL."""
    fault = re.sub("//[^/@ ]*@", "//", f"{source} cannot be read ({reason})")
    return ConnectionError(
        f"{fault}. Set HF_ENDPOINT to a mirror of the hub before Python starts, "
        "or GRPO_DATA=modelscope, or GRPO_DATA=/folder with GSM8K's train.jsonl and test.jsonl."
    )


def fetch(url):
    """Return the bytes at `url`. ConnectionError, within seconds, when its host cannot be reached."""
    try:
        # Seconds without an answer. httpx is what the hub's own client uses, so proxies and certificates are the same.
        found = httpx.get(url, timeout=10, follow_redirects=True).raise_for_status()
        if "html" in found.headers.get("content-type", ""):  # with status 200, as a hotel's network answers everything
            raise unreadable(url, "a web page, such as one to log in, answers in its place")
        return found.content
    except httpx.HTTPStatusError as error:
        raise unreadable(url, error.response.reason_phrase or error.response.status_code) from None
    except httpx.HTTPError as error:
        raise unreadable(url, type(error).__name__) from None
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # a proxy that httpx does not know, or no address at all
        raise unreadable(url, f"the address, or a proxy set in the environment: {error}") from None


@contextmanager
def three_tries():
    """In the block, the hub's client waits 3 seconds for a silent host, and for the same thing three times at most: TimeoutError.

    By itself it asks up to 12 times and waits up to a minute for each; so may Xet, its other way for large files, which is passed by.
    """
    last, waits, client = {}, Counter(), get_session()

    def ask(request):
        thing, now = (request.method, request.url), time.monotonic()
        waits[thing] += now - last.get(thing, now) >= 3  # it is asked for again after a silence; at once, too, where nothing is wrong
        last[thing] = now
        if waits[thing] == 3:
            raise TimeoutError("asked three times, it sent nothing whole")
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), 3)

    hooks, xet_disabled = client.event_hooks, constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    client.event_hooks = hooks | {"request": [*hooks["request"], ask]}
    try:
        yield
    finally:
        client.event_hooks, constants.HF_HUB_DISABLE_XET = hooks, xet_disabled


def hub_rows(dataset, *configuration, split):
    """Return the rows of a dataset from the Hugging Face hub, or from HF_ENDPOINT. ConnectionError where it cannot be read."""
    if not constants.HF_HUB_OFFLINE:  # load_dataset asks a silent hub again for minutes, so ask once before it
        fetch(f"{constants.ENDPOINT}/datasets/{dataset}/resolve/main/README.md")
    try:
        with three_tries():
            return load_dataset(dataset, *configuration, split=split).to_list()
    except Exception as error:  # every kind of broken answer has an exception of its own there
        if isinstance(error, ArrowException):  # what was cached is not the data: the next try must ask again
            shutil.rmtree(Path(constants.HF_HUB_CACHE, f"datasets--{dataset.replace('/', '--')}"), ignore_errors=True)
        offline = "HF_HUB_OFFLINE is set and the cache does not hold it: unset it once, with a network"
        reason = error if isinstance(error, TimeoutError) else type(error).__name__
        raise unreadable(dataset, offline if constants.HF_HUB_OFFLINE else reason) from error


def modelscope_file(dataset, path):
    """The address of a dataset's file on ModelScope, or on MODELSCOPE_ENDPOINT."""
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or "https://modelscope.cn"
    return f"{endpoint}/datasets/{dataset}/resolve/master/{path}"


def modelscope_rows(split):
    """Return the rows of GSM8K from ModelScope."""
    # Not modelscope/gsm8k: that is a loading script, which datasets 4 refuses to run.
    url = modelscope_file("AI-ModelScope/gsm8k", f"main/{split}-00000-of-00001.parquet")
    try:
        return parquet.read_table(io.BytesIO(fetch(url))).to_pylist()
    except (ArrowException, OSError) as error:
        if isinstance(error, ConnectionError):
            raise
        raise unreadable(url, "it answers with something that is no parquet file, as a login page does") from None


def jsonl_rows(path):
    """Return the rows of a .jsonl file in UTF-8. ValueError names the first line that is not JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a data folder holds a file for each split, one problem a line.")
    try:
        text = path.read_bytes().rstrip()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}.") from None
    rows = []
    # Not splitlines(): a problem may hold U+2028 (one of GSM8K's does), which it takes for a line's end.
    for number, line in enumerate(text.split(b"\n") if text else [], start=1):
        try:
            rows.append(json.loads(line.decode("utf-8-sig")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}).") from None
    return rows


def whole_characters(text):
    """Whether no character of the text is half of a pair, as where an emoji was cut: no tokenizer or file takes those."""
    return not re.search("[\ud800-\udfff]", text)


def checked_row(row, where):
    """Return `row` if it has a question and an answer that ends in a gold number, else ValueError."""
    texts = [row.get(key) if isinstance(row, dict) else None for key in ("question", "answer")]
    if not all(isinstance(text, str) and text.strip() and whole_characters(text) for text in texts):
        raise ValueError(f"{where}: a problem needs a question and an answer, texts that are not empty.")
    try:
        gold_answer(texts[1])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return {"question": texts[0], "answer": texts[1]}


def read_rows(source, split):
    """Return the problems of a split: dicts with `question` and `answer`.

    `source` is one of `SOURCES` or a folder with {split}.jsonl. ValueError names the first malformed row,
    counted from 1; ConnectionError and FileNotFoundError say what to do.
    """
    if source == "huggingface":
        rows, where = hub_rows("openai/gsm8k", "main", split=split), f"openai/gsm8k, split {split}, row"
    elif source == "modelscope":
        rows, where = modelscope_rows(split), f"AI-ModelScope/gsm8k, split {split}, row"
    else:
        folder = FOLDER if source == "embedded" else Path(source).expanduser()
        if source not in SOURCES and not folder.is_dir():
            raise ValueError(f"The data source {str(source)!r} is neither a folder nor one of {', '.join(SOURCES)}.")
        path = folder / f"{split}.jsonl"
        rows, where = jsonl_rows(path), f"{path}, line"
    if not rows:
        raise ValueError(f"{where.rpartition(',')[0]} holds no problem: write some, or choose another source.")
    return [checked_row(row, f"{where} {number}") for number, row in enumerate(rows, start=1)]


def make_dataset(profile, split, tokenizer):
    """Return the split of the profile's source as the Dataset that GRPOTrainer takes.

    Columns: `prompt` (system and user message), `answer` (the gold number, as "1000"), `question`, and
    `solution` (the worked steps). Prompts of more than `profile.max_prompt_length` tokens are left out.
    """
    rows, fitting = read_rows(profile.data, split), []
    for row in rows:
        prompt = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= profile.max_prompt_length:
            gold = gold_answer(row["answer"])
            fitting.append({"prompt": prompt, "answer": gold, "question": row["question"], "solution": row["answer"]})
    if left_out := len(rows) - len(fitting):
        print(f"left out {left_out:,} of {len(rows):,} prompts longer than {profile.max_prompt_length} tokens")
    if not fitting:
        raise ValueError(f"No prompt of split {split} fits: raise max_prompt_length of the profile.")
    return Dataset.from_list(fitting)
