"""Instruction data for supervised fine-tuning: rows read and checked, made into chat messages, kept as JSON lines.

Every source gives the same rows: an `instruction`, and the `output` to learn.
"""

import json
import os
import random
import re
from pathlib import Path

from grpo_kit.machine.profile import SOURCES
from .problems import FOLDER
from .rows import fetch, hub_rows, jsonl_rows, modelscope_file, unreadable, whole_characters

CHINESE = [("㐀", "䶿"), ("一", "鿿"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff")]  # the blocks of Unicode, and the two planes
INSTRUCTIONS = FOLDER.parent / "instructions.jsonl"
NOT_LEARNED = ["system", "system_prompt", "history", "tools"]  # keys of other formats, without which a reply means something else
ELSEWHERE = "GRPO_DATA to a folder with an instructions.jsonl, before Python starts."


def to_messages(row):
    """The row as TRL's conversational prompt and completion: turns before it (`earlier`), a user's message; the assistant's."""
    return {
        "prompt": [*row.get("earlier", []), {"role": "user", "content": row["instruction"]}],
        "completion": [{"role": "assistant", "content": row["output"]}],
    }


def shown_solution(row):
    """A row of `make_dataset` as one to show in SFT: `prompt`, and as `completion` its own solution in the asked layout, without the marks."""
    steps = re.sub("<<.*?>>", "", row["solution"]).split("\n####")[0]
    text = f"<reasoning>\n{steps}\n</reasoning>\n<answer>\n{row['answer']}\n</answer>"
    return {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": text}]}


def is_chinese(text):
    """Whether the text holds a Chinese character, of any block of them and of the rarest too."""
    return any(first <= character <= last for character in text for first, last in CHINESE)


def write_jsonl(rows, path):
    """Write `rows` to `path`, one JSON object a line; one that fails or is interrupted leaves the old file and nothing else."""
    path, text = Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not whole_characters(text):
        raise ValueError(f"{path} is not written, for a row holds half a character, as of a cut emoji: mend that row.")
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}): free some space, or name another folder.") from error
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def read_jsonl(path):
    """Return the rows of a .jsonl file. ValueError names the first line that is not JSON."""
    return jsonl_rows(Path(path))


def split_rows(rows, share=0.1, seed=3407):
    """(train, validation): `rows` shuffled by `seed` and cut; `share` is the part for validation, at least one row.

    Rows of one instruction stay on one side. ValueError unless both sides get a row.
    """
    instructions = list(dict.fromkeys(row["instruction"] for row in rows))
    random.Random(seed).shuffle(instructions)
    count = max(1, round(share * len(instructions)))
    if not 0 < share < 1 or count >= len(instructions):
        raise ValueError(f"{len(instructions)} instructions cannot be split with a share of {share}: both sides need one.")
    held = set(instructions[:count])
    return [row for row in rows if row["instruction"] not in held], [row for row in rows if row["instruction"] in held]


def checked_instruction(row, where):
    """Return `row` if its instruction and its output are texts that are not empty, else ValueError.

    An `input`, as in Alpaca's rows, stands below the instruction. What of `NOT_LEARNED` a row holds would be lost: ValueError.
    """
    texts = [row.get(key) if isinstance(row, dict) else None for key in ("instruction", "output")]
    if not all(isinstance(text, str) and text.strip() and whole_characters(text) for text in texts):
        raise ValueError(f"{where}: a row needs an instruction and an output, texts that are not empty.")
    if unread := [key for key in NOT_LEARNED if row.get(key)]:
        raise ValueError(f"{where}: the {' and the '.join(unread)} would not be learned: put it into the instruction, or take it out.")
    added = "" if row.get("input") is None else row["input"]
    if not isinstance(added, str) or not whole_characters(added):
        raise ValueError(f"{where}: the input must be a text.")
    return {"instruction": f"{texts[0]}\n\n{added}" if added.strip() else texts[0], "output": texts[1]}


def modelscope_instructions():
    """Return the rows of ruozhiba from ModelScope, whose columns are `query` and `response`; there are others of that name."""
    url = modelscope_file("w10442005/ruozhiba_qa", "ruozhiba_qaswift.json")  # as public notebooks have it
    text = fetch(url).decode("utf-8", "replace")
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.split("\n") if line.strip()]
        return [{"instruction": row.get("query"), "output": row.get("response")} for row in rows]
    except (ValueError, AttributeError):
        raise unreadable(url, "it answers with something that is no JSON rows, as a login page does") from None


def read_instructions(source):
    """Return the instruction rows of a source: dicts with `instruction` and `output`.

    `source` is one of `SOURCES`, or a folder with instructions.jsonl. ValueError names the first malformed row,
    counted from 1; ConnectionError and FileNotFoundError say what to do.
    """
    hubs = {  # some 1,500 rows in Chinese
        "huggingface": (lambda: hub_rows("LooksJuicy/ruozhiba", split="train"), "LooksJuicy/ruozhiba", "GRPO_DATA=modelscope"),
        "modelscope": (modelscope_instructions, "w10442005/ruozhiba_qa", "GRPO_DATA=huggingface"),
    }
    if source in hubs:
        read, name, other = hubs[source]
        try:
            rows, where = read(), f"{name}, row"
        except ConnectionError as error:
            reason = str(error).partition(" Set ")[0]
            raise ConnectionError(f"{reason} Set HF_ENDPOINT to a mirror of the hub, or {other}, or {ELSEWHERE}") from error
    else:
        folder = INSTRUCTIONS.parent if source == "embedded" else Path(source).expanduser()
        if source not in SOURCES and not folder.is_dir():
            raise ValueError(f"The data source {str(source)!r} is neither a folder nor one of {', '.join(SOURCES)}.")
        path = folder / INSTRUCTIONS.name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: write one row a line, with an instruction and an output.")
        rows, where = jsonl_rows(path), f"{path}, line"
    if not rows:
        raise ValueError(f"{where.rpartition(',')[0]} holds no row: write some, or choose another source.")
    return [checked_instruction(row, f"{where} {number}") for number, row in enumerate(rows, start=1)]
