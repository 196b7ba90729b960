"""grpo_kit.data: every source, every malformed row, the length limit, and hubs that do not answer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from grpo_kit.data.rows import SYSTEM_PROMPT, make_dataset, read_rows
from hub_stand_in import Hub, silent_host
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NOTEBOOKS = Path(__file__).resolve().parents[1]
GSM8K = NOTEBOOKS.parents[1] / "shared" / "gsm8k"
needs_gsm8k = pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K's files are not beside the repository (../shared/gsm8k)")
ROW = {"question": "Mia has 2 shells. She finds 1,000 more.", "answer": "2 + 1,000 = <<2+1000=1002>>1,002\n#### 1,002"}
NOWHERE = "http://127.0.0.1:9"  # the discard port: connections are refused
CHATML = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    """A real tokenizer whose tokens are words and single marks; it knows none, which is enough for counting."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", chat_template=CHATML)


def profile(data, max_prompt_length=10_000):
    return SimpleNamespace(data=str(data), max_prompt_length=max_prompt_length)


def folder_with(tmp_path, *lines):
    (tmp_path / "train.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return tmp_path


def jsonl(**row):
    return json.dumps(row).encode()


# The repository's problems, and GSM8K's files


@pytest.mark.parametrize("split, count", [("train", 4000), ("test", 400), ("held_out", 200)])
def test_embedded(split, count):
    rows = read_rows("embedded", split)
    assert len(rows) >= count
    assert all(row.keys() == {"question", "answer"} for row in rows)


@needs_gsm8k
@pytest.mark.parametrize("split, count, commas, negatives", [("train", 7473, 79, 3), ("test", 1319, 14, 2)])
def test_gsm8k(tokenizer, split, count, commas, negatives):
    dataset = make_dataset(profile(GSM8K), split, tokenizer)
    assert len(dataset) == count
    assert sum(str(int(gold)) == gold for gold in dataset["answer"]) == count
    assert sum(int(gold) < 0 for gold in dataset["answer"]) == negatives
    assert sum("," in solution.rpartition("####")[2] for solution in dataset["solution"]) == commas


@needs_gsm8k
def test_gsm8k_length_limit(tokenizer, capsys):
    lengths = [
        len(tokenizer(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))["input_ids"])
        for prompt in make_dataset(profile(GSM8K), "test", tokenizer)["prompt"]
    ]
    limit = sorted(lengths)[-10]
    fitting = sum(length <= limit for length in lengths)
    assert len(make_dataset(profile(GSM8K, limit), "test", tokenizer)) == fitting < 1319
    assert capsys.readouterr().out == f"left out {1319 - fitting} of 1,319 prompts longer than {limit} tokens\n"


# A folder


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\r"])
def test_a_row_ends_at_a_newline_only(tmp_path, separator):
    row = {**ROW, "question": f"one{separator}two"}
    line = json.dumps(row, ensure_ascii=separator in "\x0b\r").encode()
    assert read_rows(str(folder_with(tmp_path, line, line)), "train") == [row, row]


@needs_gsm8k
def test_gsm8k_keeps_its_line_separators():
    assert "".join(row["question"] for row in read_rows(GSM8K, "train")).count("\u2028") == 2  # both in one row


@settings(deadline=None)
@given(questions=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1),
       gold=st.integers(), ensure_ascii=st.booleans(), end=st.sampled_from(["\n", "\r\n"]))
def test_any_text_comes_back(tmp_path_factory, questions, gold, ensure_ascii, end):
    rows = [{"question": question, "answer": f"{question}\n#### {gold:,}"} for question in questions]
    text = end.join(json.dumps(row, ensure_ascii=ensure_ascii) for row in rows)
    folder = tmp_path_factory.mktemp("rows")
    (folder / "test.jsonl").write_bytes(text.encode())
    assert read_rows(folder, "test") == rows


@pytest.mark.parametrize("line, complaint", [
    (b"{'question': 1}", "not JSON"),
    (b"", "not JSON"),
    (b'{"question": "a', "not JSON"),
    (b'{"question": "\xff", "answer": "#### 1"}', "not JSON"),
    (b"[1, 2]", "question and an answer"),
    (b"null", "question and an answer"),
    (b"{}", "question and an answer"),
    (jsonl(question="a"), "question and an answer"),
    (jsonl(answer="#### 1"), "question and an answer"),
    (jsonl(question="", answer="#### 1"), "question and an answer"),
    (jsonl(question=" \n", answer="#### 1"), "question and an answer"),
    (jsonl(question="a", answer=""), "question and an answer"),
    (jsonl(question=5, answer="#### 1"), "question and an answer"),
    (jsonl(question="a", answer=5), "question and an answer"),
    (jsonl(question="a", answer=None), "question and an answer"),
    (jsonl(question="a", answer="so it is 5"), "####"),
    (jsonl(question="a", answer="#### "), "####"),
    (jsonl(question="a", answer="#### five"), "####"),
    (jsonl(question="a", answer="#### 7 2"), "####"),
])
def test_a_malformed_row_is_named(tmp_path, line, complaint):
    folder = folder_with(tmp_path, jsonl(**ROW), jsonl(**ROW), line, jsonl(**ROW))
    with pytest.raises(ValueError) as error:
        read_rows(str(folder), "train")
    assert f"{folder / 'train.jsonl'}, line 3: " in str(error.value) and complaint in str(error.value)


def test_an_empty_file_is_malformed(tmp_path):
    with pytest.raises(ValueError, match="train.jsonl holds no problem: write some"):
        read_rows(str(folder_with(tmp_path)), "train")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_rows(str(folder_with(tmp_path, jsonl(**ROW))), "test")
    assert f"{tmp_path / 'test.jsonl'} is missing" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_source_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="gsm9k.*folder.*embedded, huggingface, modelscope"):
        read_rows(str(tmp_path / "gsm9k"), "train")


# The dataset


def test_columns(tokenizer, tmp_path, capsys):
    (row,) = make_dataset(profile(folder_with(tmp_path, jsonl(**ROW))), "train", tokenizer)
    assert row == {
        "prompt": [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": ROW["question"]}],
        "answer": "1002",
        "question": ROW["question"],
        "solution": ROW["answer"],
    }
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words, fits", [(19, True), (20, True), (21, False)])
def test_the_limit_counts_the_whole_prompt(tokenizer, tmp_path, capsys, words, fits):
    around = tokenizer.apply_chat_template(
        [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": ""}],
        tokenize=False, add_generation_prompt=True)
    limit = len(tokenizer(around)["input_ids"]) + 20
    long = {**ROW, "question": "word " * words}
    folder = folder_with(tmp_path, jsonl(**long), jsonl(**{**ROW, "question": "short"}))
    assert len(make_dataset(profile(folder, limit), "train", tokenizer)) == 1 + fits
    assert capsys.readouterr().out == ("" if fits else f"left out 1 of 2 prompts longer than {limit} tokens\n")


def test_nothing_left_is_an_error(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="No prompt of split train fits.*max_prompt_length"):
        make_dataset(profile(folder_with(tmp_path, jsonl(**ROW)), 5), "train", tokenizer)


# The hubs. In a new process: HF_ENDPOINT counts before the first import


def read_in_new_process(source, home, **environment):
    """What read_rows(source, "train") does in a new Python: its rows, or its error's name and text, and its seconds."""
    code = f"""if True:
        import json, time
        from grpo_kit.data.rows import read_rows
        start = time.monotonic()
        try:
            found = {{"rows": read_rows({source!r}, "train")}}
        except Exception as error:
            found = {{"error": type(error).__name__, "text": str(error)}}
        print(json.dumps({{**found, "seconds": time.monotonic() - start}}))"""
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOKS), "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().split("\n")[-1])


def test_huggingface_then_offline_from_its_cache(tmp_path):
    with Hub({"train": [ROW, {**ROW, "question": "one\u2028two"}], "test": [ROW]}) as hub:
        rows = read_in_new_process("huggingface", tmp_path, HF_ENDPOINT=hub.url)["rows"]
    assert rows == [ROW, {**ROW, "question": "one\u2028two"}]
    assert any(path.endswith("main/train-00000-of-00001.parquet") for path in hub.asked)
    assert read_in_new_process("huggingface", tmp_path, HF_ENDPOINT=NOWHERE, HF_HUB_OFFLINE="1")["rows"] == rows


@pytest.mark.parametrize("host, seconds", [("refusing", 5), ("silent", 20)])
def test_an_unreachable_hub_ends_in_seconds_and_says_what_to_do(tmp_path, host, seconds):
    with silent_host() as url:
        endpoint = url if host == "silent" else NOWHERE
        found = read_in_new_process("huggingface", tmp_path, HF_ENDPOINT=endpoint)
    assert found["error"] == "ConnectionError" and found["seconds"] < seconds
    assert all(word in found["text"] for word in (endpoint, "HF_ENDPOINT", "GRPO_DATA=modelscope", "GRPO_DATA=/folder"))
    assert "\n" not in found["text"]


def test_modelscope(monkeypatch):
    with Hub({"train": [ROW] * 3}) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        assert read_rows("modelscope", "train") == [ROW] * 3
        with pytest.raises(ConnectionError, match="test-00000-of-00001.parquet cannot be read .Not Found."):
            read_rows("modelscope", "test")
    assert hub.asked[0] == "/datasets/AI-ModelScope/gsm8k/resolve/master/main/train-00000-of-00001.parquet"


@pytest.mark.parametrize("broken", [b"<!DOCTYPE html><title>Sign in</title>", b"", b'{"code": 403}', b"PAR1 cut off", None])
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_an_answer_that_is_no_parquet_file_is_told(tmp_path, source, broken):
    with Hub({"train": [ROW] * 50, "test": [ROW]}) as hub:
        file = "main/train-00000-of-00001.parquet"
        hub.files[file] = hub.files[file][:200] if broken is None else broken
        found = read_in_new_process(source, tmp_path, HF_ENDPOINT=hub.url, MODELSCOPE_ENDPOINT=hub.url)
    assert found.get("error") == "ConnectionError", found
    assert "cannot be read (" in found["text"] and "GRPO_DATA=/folder" in found["text"] and "\n" not in found["text"]


@pytest.mark.parametrize("variable, value", [
    ("ALL_PROXY", "socks5://127.0.0.1:9"), ("HTTP_PROXY", "socks4://127.0.0.1:9"), ("all_proxy", "nonsense://127.0.0.1"),
    ("HTTP_PROXY", "http://127.0.0.1:9"), ("HTTP_PROXY", "http://[")])
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_a_proxy_that_cannot_be_used_is_told(tmp_path, source, variable, value):
    around = {"HF_ENDPOINT": "http://hub.invalid", "MODELSCOPE_ENDPOINT": "http://hub.invalid", "NO_PROXY": "", variable: value}
    found = read_in_new_process(source, tmp_path, **around)
    assert found["error"] == "ConnectionError" and found["seconds"] < 20
    assert "http://hub.invalid" in found["text"] and "GRPO_DATA=/folder" in found["text"] and "\n" not in found["text"]


@pytest.mark.parametrize("value", ["1", "ON", "true"])
def test_offline_without_a_cache_says_how_to_fill_it(tmp_path, value):
    found = read_in_new_process("huggingface", tmp_path, HF_ENDPOINT=NOWHERE, HF_HUB_OFFLINE=value)
    assert found["error"] == "ConnectionError" and "HF_HUB_OFFLINE is set and the cache does not hold it: unset it once" in found["text"]


def test_modelscope_refusing(monkeypatch):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", NOWHERE)
    with pytest.raises(ConnectionError, match=f"{NOWHERE}.*HF_ENDPOINT.*GRPO_DATA=/folder"):
        read_rows("modelscope", "train")


@pytest.mark.parametrize("row", [{"question": "a", "answer": "no gold"}, {"question": "a", "answer": None}])
def test_a_malformed_row_of_a_hub_is_named(monkeypatch, row):
    with Hub({"train": [ROW, row, ROW]}) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        with pytest.raises(ValueError, match="AI-ModelScope/gsm8k, split train, row 2: "):
            read_rows("modelscope", "train")
