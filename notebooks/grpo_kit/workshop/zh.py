"""Writes the Chinese edition of the chapters: `make zh`, or `python -m grpo_kit.workshop.zh`.

notebooks/zh/NN_name.po is a chapter's catalogue: a message for each markdown cell, its msgctxt the cell's id, its msgid the
English source. Each catalogue is brought up to date first: where the English changed, the translation is marked fuzzy beside
the text that it was made from; an empty file becomes a catalogue to fill. From a finished one comes the notebook beside it,
which runs: the code and the stored outputs are the English chapter's.
"""

import json
import os
import re
from pathlib import Path

import polib

ENGLISH = Path(__file__).resolve().parents[2]
FOLDER = ENGLISH / "zh"
BADGES = re.compile(r"^\[!\[.*<!-- badges: (\S+) -->\n\n", re.M)  # the line that `make publish` writes; it is not translated
OPENING = """import os

if os.path.isdir("../grpo_kit"):  # 中文版在 notebooks/zh/ 里，单元格和英文版一样在 notebooks/ 里运行
    os.chdir("..")

"""


def updated(old, cells):
    """The catalogue of `cells` (of a notebook read as JSON), with what `old` translates."""
    by_text, by_id = {entry.msgid: entry for entry in old}, {entry.msgctxt: entry for entry in old}
    new = polib.POFile(wrapwidth=0)  # a line of Markdown stays a line
    new.metadata = {"Language": "zh_CN", "Content-Type": "text/plain; charset=UTF-8"}
    for cell in cells:
        if cell["cell_type"] != "markdown":
            continue
        entry = polib.POEntry(msgctxt=cell["id"], msgid=BADGES.sub("", "".join(cell["source"])))
        if kept := by_text.get(entry.msgid) or by_id.get(entry.msgctxt):
            entry.msgstr, entry.flags, entry.previous_msgid = kept.msgstr, kept.flags, kept.previous_msgid
            if kept.msgstr and kept.msgid != entry.msgid:
                entry.flags, entry.previous_msgid = ["fuzzy"], kept.previous_msgid or kept.msgid
        new.append(entry)
    return new


def unfinished(catalogue):
    """The ids of the cells without a translation, or with one of an earlier English text."""
    return [entry.msgctxt for entry in catalogue if entry.fuzzy or not entry.msgstr]


def from_here(text, chapters):
    """A cell's `text`, its relative links led from this folder: to `chapters`, names of files, here; to all else one folder up.

    A README has its Chinese edition beside it. A chapter's headings have other names here, so a link to one leads to the chapter.
    """
    text = re.sub(r"\]\((?![a-z]+:|#)([^()\s#]+)(#[^()\s]*)?", lambda link: f"]({link[1]}" if link[1] in chapters else f"](../{link[1]}{link[2] or ''}", text)
    return re.sub(r"(\]\(\.\./[^()\s#]*README)\.md\b", r"\1.zh-CN.md", text)


def chinese(notebook, catalogue, chapters):
    """The English `notebook`, read as JSON, with the `catalogue`'s text; `chapters` are the files that are here."""
    translated = {entry.msgctxt: from_here(entry.msgstr, chapters) for entry in catalogue}
    if badges := BADGES.search("".join(notebook["cells"][0]["source"])):
        here = badges[0].replace("/notebooks/", "/notebooks/zh/")
        translated[notebook["cells"][0]["id"]] = translated[notebook["cells"][0]["id"]].replace("\n\n", f"\n\n{here}", 1)
    cells = [{**cell, "source": translated[cell["id"]].splitlines(keepends=True)}
             if cell["cell_type"] == "markdown" else dict(cell) for cell in notebook["cells"]]
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    first["source"] = (OPENING + "".join(first["source"])).splitlines(keepends=True)
    return {**notebook, "cells": cells}


def written(file, text):
    part = file.with_name(f"{file.name}.part")
    part.write_text(f"{text}\n", "utf-8")
    os.replace(part, file)


def main():
    files = sorted(FOLDER.glob("*.po"))
    chapters = [f"{file.stem}.ipynb" for file in files]
    todo = []
    for file, chapter in zip(files, chapters):
        notebook = json.loads((ENGLISH / chapter).read_text("utf-8"))
        catalogue = updated(polib.pofile(file), notebook["cells"])
        written(file, str(catalogue).rstrip())
        if cells := unfinished(catalogue):
            todo.append(f"{file.name}: translate {', '.join(cells)} and take off every mark `fuzzy`, then run `make zh` again.")
        else:
            written(FOLDER / chapter, json.dumps(chinese(notebook, catalogue, chapters), indent=1, ensure_ascii=False))
    if todo:
        raise SystemExit("\n".join(todo))
    print(f"notebooks/zh/: {', '.join(chapters)}")


if __name__ == "__main__":
    main()
