"""Instruction rows: every source, bad rows, the split, the file on the disk, and the rows that the repository carries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import Hub
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from grpo_kit.data.instructions import (
    INSTRUCTIONS, is_chinese, read_instructions, read_jsonl, split_rows, to_messages, write_jsonl,
)
from grpo_kit.sft.measures import mentions

NOTEBOOKS = Path(__file__).resolve().parents[1]
ROW = {"instruction": "Why?", "output": "Because.\u2028So."}


def folder_with(path, *lines):
    (path / "instructions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_the_repository_s_rows():
    rows = read_instructions("embedded")
    chinese = [row for row in rows if any("\u4e00" <= letter <= "\u9fff" for letter in row["instruction"])]
    assert (len(rows), len(chinese)) == (360, 180)  # as the datasheet says
    assert len({row["instruction"] for row in rows}) == len(rows)
    assert all(text == text.strip() for row in rows for text in row.values())
    assert not [row for row in chinese for text in row.values() if set(text) & set(",?!:;")]  # full width in Chinese
    tokenizer = AutoTokenizer.from_pretrained(INSTRUCTIONS.parent / "tiny-model")
    whole = [tokenizer.apply_chat_template(sum(to_messages(row).values(), []), return_dict=True)["input_ids"] for row in rows]
    lengths = sorted(map(len, whole))
    longest_output = max(len(ids) for ids in tokenizer([row["output"] for row in rows])["input_ids"])
    assert (lengths[-1], lengths[len(rows) // 2], longest_output) == (125, 62, 58)


def test_the_questions_that_nobody_trains_on():
    """As the datasheet says, and none of them is an instruction to learn."""
    folder = INSTRUCTIONS.parent
    facts, questions = read_jsonl(folder / "facts.jsonl"), read_jsonl(folder / "open_questions.jsonl")
    assert (len(facts), len(questions)) == (100, 48)
    asked = [row["question"] for row in facts] + [row["instruction"] for row in questions]
    assert len({*asked, *(row["instruction"] for row in read_instructions("embedded"))}) == 148 + 360
    for row in facts:
        assert row["answers"] and all(answer == answer.strip() != "" for answer in row["answers"])
        assert not any(mentions(row["question"], [answer]) for answer in row["answers"]), row  # repeating the question is no answer


def test_other_columns_are_left_out(tmp_path):
    folder = folder_with(tmp_path, json.dumps({**ROW, "input": "", "system": "", "history": [], "source": "a forum"}), json.dumps(ROW))
    assert read_instructions(folder) == [ROW, ROW]


def test_an_input_stands_in_the_prompt(tmp_path):
    (row,) = read_instructions(folder_with(tmp_path, json.dumps({**ROW, "input": "\u6811 12"})))
    assert row == {"instruction": "Why?\n\n树 12", "output": ROW["output"]}


@pytest.mark.parametrize("line, error", [
    ("{", "line 2: not JSON"),
    ("[]", "line 2: a row needs an instruction and an output"),
    ('{"instruction": "Why?"}', "line 2: a row needs"),
    ('{"instruction": "Why?", "output": " "}', "line 2: a row needs"),
    ('{"instruction": 3, "output": "x"}', "line 2: a row needs"),
    ('{"instruction": "cut \\ud83d", "output": "x"}', "line 2: a row needs"),
    ('{"instruction": "Why?", "output": "x", "input": ["a"]}', "line 2: the input must be a text"),
    ('{"instruction": "Why?", "output": "x", "input": "\\ud83d"}', "line 2: the input must be a text"),
    ('{"instruction": "Why?", "output": "x", "input": 0}', "line 2: the input must be a text"),
    ('{"instruction": "Why?", "output": "x", "tools": [{"name": "sum"}]}', "line 2: the tools would not be learned"),
    ('{"instruction": "Why?", "output": "x", "system_prompt": "Be brief."}', "line 2: the system_prompt would not be learned"),
    ('{"instruction": "Why?", "output": "x", "system": "Be brief."}', "line 2: the system would not be learned"),
    ('{"instruction": "Why?", "output": "x", "system": "Be brief.", "history": [["a", "b"]]}', "the system and the history would not"),
])
def test_a_bad_row_is_named(tmp_path, line, error):
    with pytest.raises(ValueError, match=error):
        read_instructions(folder_with(tmp_path, json.dumps(ROW), line))


def test_bad_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="instructions.jsonl is missing: write one row a line"):
        read_instructions(str(tmp_path))
    with pytest.raises(ValueError, match="neither a folder nor one of embedded, huggingface"):
        read_instructions("nowhere")


def test_huggingface(tmp_path):
    """In a new process: HF_ENDPOINT counts before the first import."""
    code = "import json; from grpo_kit.data.instructions import read_instructions as r; print(json.dumps(r('huggingface')))"
    environment = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code]
    with Hub({}, name="LooksJuicy/ruozhiba") as hub:
        # As on the hub: one JSON file beside a card without a list of files.
        hub.files = {"README.md": b"# ruozhiba", "ruozhiba_qa.json": json.dumps([ROW, ROW]).encode()}
        done = subprocess.run(command, env=environment | {"HF_ENDPOINT": hub.url}, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [ROW] * 2
    nowhere = environment | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=90)
    (*_, last) = done.stderr.strip().splitlines()
    assert "ConnectionError" in last and "or GRPO_DATA=modelscope, or GRPO_DATA to a folder with an instructions.jsonl" in last


MODELSCOPE_ROW = {"system": "00000", "query": "Why?", "response": ROW["output"]}


def from_modelscope(monkeypatch, text):
    with Hub({}, on_modelscope="w10442005/ruozhiba_qa") as hub:
        hub.files = {"ruozhiba_qaswift.json": text.encode()}
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        return read_instructions("modelscope")


@pytest.mark.parametrize("text", [
    json.dumps([MODELSCOPE_ROW] * 2, indent=2, ensure_ascii=False),
    2 * (json.dumps(MODELSCOPE_ROW, ensure_ascii=False) + "\n"),
])
def test_modelscope(monkeypatch, text):
    assert from_modelscope(monkeypatch, text) == [ROW] * 2


@pytest.mark.parametrize("text", ["<html>log in</html>", '["a"]', "[", '{"code": 403}\n"a"'])
def test_an_answer_of_modelscope_that_holds_no_rows_is_told(monkeypatch, text):
    with pytest.raises(ConnectionError, match="no JSON rows.*or GRPO_DATA=huggingface, or GRPO_DATA to a folder with an"):
        from_modelscope(monkeypatch, text)


def test_a_row_of_modelscope_without_its_columns_is_named(monkeypatch):
    with pytest.raises(ValueError, match="w10442005/ruozhiba_qa, row 2: a row needs"):
        from_modelscope(monkeypatch, json.dumps([MODELSCOPE_ROW, {"query": "Why?"}]))


def test_chinese_is_told_by_its_characters():
    assert is_chinese("How is 树 written?") and not is_chinese("“Où?” — 3 × 4。 かな 한글 ①")
    assert all(is_chinese(character) for character in "一龥鿿㐂䶵豈𠮷𮯠𰻞")


def test_messages():
    assert to_messages(ROW) == {
        "prompt": [{"role": "user", "content": "Why?"}],
        "completion": [{"role": "assistant", "content": ROW["output"]}],
    }


@pytest.mark.parametrize("rows, spoil, error", [
    ([{**ROW, "output": "\ud83d"}], None, "for a row holds half a character"),
    ([ROW], lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")), r"cannot be written \(No space left on device\)"),
])
def test_a_write_that_fails_says_so_and_leaves_nothing(tmp_path, monkeypatch, rows, spoil, error):
    path = tmp_path / "new" / "rows.jsonl"
    if spoil:
        monkeypatch.setattr(os, "replace", spoil)
    with pytest.raises((ValueError, OSError), match=error) as raised:
        write_jsonl(rows, path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert not path.parent.exists() or list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        write_jsonl([ROW], tmp_path / "file" / "rows.jsonl")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "new" / "rows.jsonl"
    write_jsonl([ROW, ROW], path)
    assert read_jsonl(path) == [ROW, ROW] and len(path.read_text("utf-8").split("\n")) == 3
    assert list(path.parent.iterdir()) == [path]

    def interrupted(*files):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_jsonl([ROW], path)
    assert read_jsonl(path) == [ROW, ROW] and list(path.parent.iterdir()) == [path]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60).filter(lambda names: len(set(names)) > 2), st.integers(0, 5))
def test_a_split_loses_nothing_and_shares_no_instruction(names, seed):
    rows = [{"instruction": str(name), "output": str(place)} for place, name in enumerate(names)]
    train, validation = split_rows(rows, share=0.2, seed=seed)
    assert sorted(map(str, train + validation)) == sorted(map(str, rows)) and train and validation
    assert not {row["instruction"] for row in train} & {row["instruction"] for row in validation}
    assert split_rows(rows, share=0.2, seed=seed) == (train, validation)


@pytest.mark.parametrize("rows, share", [([ROW], 0.5), ([ROW, ROW], 0.5), ([ROW, {**ROW, "instruction": "b"}], 1.0), ([], 0.1)])
def test_a_split_needs_rows_on_both_sides(rows, share):
    with pytest.raises(ValueError, match="both sides need one"):
        split_rows(rows, share)
