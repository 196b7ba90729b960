"""The Chinese edition: each catalogue says what today's English cells say, figure for figure, and its notebook runs from its folder."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter

import nbformat
import polib
import pytest
from markdown_it import MarkdownIt
from test_links import ROOT, broken, unknown_targets

from grpo_kit.workshop import zh

CATALOGUES = sorted(zh.FOLDER.glob("*.po"))
ALL = pytest.mark.parametrize("file", CATALOGUES, ids=lambda file: file.stem)
TIMES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "万": 10**4, "亿": 10**8}
SLIPS = "笔记本(?!电脑)|说明书|回合结束|您"  # Notebook, 数据说明, 对话轮次结束, 你
HAN = "[\u4e00-\u9fff]"


def english(file):
    return json.loads((zh.ENGLISH / f"{file.stem}.ipynb").read_text("utf-8"))


def rendered(text):
    """What a translation keeps of Markdown: {the blocks in their order; code, links, formulas and numbers as counts}, and the bare text."""
    blocks = MarkdownIt().enable("table").parse(text)
    inline = [child for block in blocks for child in block.children or []]
    bare = "\n".join(child.content for child in inline if child.type == "text")
    formula = r"\$\$[^$]+\$\$|\$[^$]+\$"
    numbers = re.findall(rf"(\d+(?:,\d{{3}})*(?:\.\d+)?)(?:[ -]?({'|'.join(TIMES)}))?", re.sub(formula, "", bare))
    return {
        "blocks": [(block.type, block.tag, block.content if block.type == "fence" else "") for block in blocks],
        "code": Counter(child.content for child in inline if child.type == "code_inline"),
        "links": Counter(child.attrs["href"] for child in inline if child.type == "link_open"),
        "formulas": Counter(re.findall(formula, bare)),
        "numbers": Counter(round(float(number.replace(",", "")) * TIMES.get(unit, 1), 9) for number, unit in numbers),
        "asterisks": bare.count("*"),  # one more is emphasis that does not show, as in **因此：**我们
    }


def faults(text, translation):
    """What is wrong with a `translation`, a few words each."""
    before, after = rendered(text), rendered(translation)
    found = [f"other {what}: {before[what]} became {after[what]}" for what in before if before[what] != after[what]]
    for what, pattern in {
        "no space between Chinese and Latin": rf"{HAN}[A-Za-z0-9`$]|[A-Za-z0-9%`$]{HAN}",
        "a half-width mark beside Chinese": rf"{HAN}[,;:?!().]|[,;:?!(] ?{HAN}",
        "not how the field says it": SLIPS,
    }.items():
        found += [f"{what}: {translation[max(0, hit.start() - 8) : hit.end() + 8]!r}" for hit in re.finditer(pattern, translation)]
    return found


@ALL
def test_a_catalogue_is_complete_and_current(file):
    catalogue = polib.pofile(file)
    cells = [(cell["id"], zh.BADGES.sub("", "".join(cell["source"]))) for cell in english(file)["cells"] if cell["cell_type"] == "markdown"]
    assert [(entry.msgctxt, entry.msgid) for entry in catalogue] == cells, "the English changed: run `make zh`"
    assert zh.unfinished(catalogue) == []


@ALL
def test_a_translation_has_the_same_parts(file):
    assert [fault for entry in polib.pofile(file) for fault in faults(entry.msgid, entry.msgstr)] == []


@ALL
def test_the_notebook_is_the_one_that_make_zh_writes(file):
    notebook = zh.FOLDER / f"{file.stem}.ipynb"
    made = zh.chinese(english(file), polib.pofile(file), [f"{one.stem}.ipynb" for one in CATALOGUES])
    assert json.loads(notebook.read_text("utf-8")) == made, "run `make zh`"
    text = "\n".join(cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "markdown")
    assert broken(text, zh.FOLDER) == [] and unknown_targets(text) == []


def test_code_and_outputs_are_the_english_ones_behind_the_way_into_the_folder():
    cells = {"a": ("markdown", "x"), "b": ("code", "import sys\n1"), "c": ("code", "2")}
    notebook = {"cells": [{"cell_type": kind, "id": name, "source": [source], "outputs": name} for name, (kind, source) in cells.items()]}
    catalogue = [polib.POEntry(msgctxt="a", msgid="x", msgstr="[是](1.ipynb) [是](1.ipynb#a) [否](2.ipynb#二) [数据](../data/a.md) [说明](../data/README.md#一) [网](https://a.b) [节](#一)")]
    made = zh.chinese(notebook, catalogue, ["1.ipynb"])["cells"]
    assert made[0]["source"] == ["[是](1.ipynb) [是](1.ipynb) [否](../2.ipynb#二) [数据](../../data/a.md) [说明](../../data/README.zh-CN.md#一) [网](https://a.b) [节](#一)"]
    assert "".join(made[1]["source"]) == f"{zh.OPENING}import sys\n1" and made[2] == notebook["cells"][2]
    assert [cell["outputs"] for cell in made] == list("abc") and notebook["cells"][1]["source"] == ["import sys\n1"]


def test_the_first_cell_finds_the_kit_from_the_notebooks_folder_also_run_twice(tmp_path):
    chapter = nbformat.read(zh.FOLDER / f"{CATALOGUES[-1].stem}.ipynb", 4)
    first = next(cell.source for cell in chapter.cells if cell.cell_type == "code")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"GRPO_REPOSITORY": ""}
    code = f"{first}\n{first}\nprint(os.getcwd())"
    ran, alone = (subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
                  for folder in (zh.FOLDER, tmp_path))
    assert ran.stdout.splitlines()[-1] == str(zh.ENGLISH), ran.stderr
    assert "This chapter needs its repository" in alone.stderr


def cell(name, source):
    return {"cell_type": "markdown", "id": name, "source": [source]}


def test_a_changed_cell_marks_its_translation_and_a_new_one_waits_for_one():
    old = zh.updated([], [cell(name, name * 3) for name in "abc"])
    assert zh.unfinished(old) == list("abc")
    for entry in old:
        entry.msgstr = f"译 {entry.msgid}"
    moved = [cell("c", "ccc"), {"cell_type": "code", "id": "x"}, cell("a", "aaa, but"), cell("d", "ddd"), cell("e", "bbb")]
    new = zh.updated(polib.pofile(str(old)), moved)
    assert [(entry.msgctxt, entry.msgstr, entry.fuzzy, entry.previous_msgid) for entry in new] == [
        ("c", "译 ccc", False, None), ("a", "译 aaa", True, "aaa"), ("d", "", False, None), ("e", "译 bbb", False, None)]
    assert zh.unfinished(new) == ["a", "d"]
    again = zh.updated(polib.pofile(str(new)), [cell("a", "aaa, and")])
    assert again[0].fuzzy and again[0].previous_msgid == "aaa" and again[0].msgid == "aaa, and"
    assert zh.updated(polib.pofile(str(new)), moved) == new


def test_make_zh_names_what_is_open_and_writes_what_is_done(tmp_path, monkeypatch, capsys):
    (tmp_path / "zh").mkdir()
    monkeypatch.setattr(zh, "ENGLISH", tmp_path)
    monkeypatch.setattr(zh, "FOLDER", tmp_path / "zh")
    cells = [cell("a", "[2](2.ipynb)"), {"cell_type": "code", "id": "b", "source": ["1"], "outputs": []}]
    for name in "12":
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    catalogue = tmp_path / "zh/1.po"
    catalogue.touch()
    with pytest.raises(SystemExit, match=r"^1.po: translate a and take off every mark `fuzzy`, then run `make zh` again.$"):
        zh.main()
    assert [file.name for file in (tmp_path / "zh").iterdir()] == ["1.po"]
    finished = polib.pofile(catalogue)
    finished[0].msgstr = "第 [2](2.ipynb) 章"
    finished.save()
    zh.main()
    assert capsys.readouterr().out == "notebooks/zh/: 1.ipynb\n"
    assert json.loads((tmp_path / "zh/1.ipynb").read_text("utf-8"))["cells"][0]["source"] == ["第 [2](../2.ipynb) 章"]


@pytest.mark.parametrize("text, translation, fault", [
    ("It is `a`.", "它是 `b`。", "other code"),
    ("See [3](03.ipynb).", "见 [3](04.ipynb)。", "other links"),
    ("$a + b$ is it.", "就是 $a - b$。", "other formulas"),
    ("It takes 2,600 steps.", "要 2,060 步。", "other numbers"),
    ("3.7 million weights", "370 亿个权重", "other numbers"),
    ("| a | b |\n|---|---|\n| c | d |", "| 甲 | 乙 |\n|---|---|", "other blocks"),
    ("## A\n\nB", "### 甲\n\n乙", "other blocks"),
    ("```\na\n```", "```\nb\n```", "other blocks"),
    ("**So:** we", "**因此：**我们", "other asterisks"),
    ("a LoRA", "一个LoRA", "no space"),
    ("`a` is", "`a`是", "no space"),
    ("4 % of it", "其中的 4 %的", "no space"),
    ("yes, it is", "是的,对", "a half-width mark"),
    ("the datasheet", "说明书", "not how"),
    ("the notebook", "这个笔记本", "not how"),
])
def test_each_fault_of_a_translation_is_found(text, translation, fault):
    assert any(one.startswith(fault) for one in faults(text, translation))


def test_a_good_translation_has_none():
    text = "**So:** `a` has 3.7 million of 28,000 weights ($r = 2$), see [05](05.ipynb).\n\n1. On a *laptop*: 4 %."
    assert faults(text, "**因此**，第 [05](05.ipynb) 章的 `a` 有 370 万个权重（$r = 2$），共 2.8 万个。\n\n1. 笔记本电脑上：4 %。") == []


def test_the_chinese_readme_leads_to_the_chapters_that_exist_in_chinese_and_to_the_english_ones_else():
    table = re.findall(r"^\| \[\d\d [^]]+\]\(notebooks/(zh/)?(\w+)\.ipynb\)", (ROOT / "README.zh-CN.md").read_text("utf-8"), re.M)
    assert [name for folder, name in table if folder] == [file.stem for file in CATALOGUES]
    assert broken((zh.FOLDER / "README.md").read_text("utf-8"), zh.FOLDER) == []


def page_faults(english, chinese):
    """What is wrong with the Chinese edition of a page: paragraph by paragraph, and the digest of the English on its last line."""
    *text, digest = chinese.rstrip("\n").split("\n\n")
    here = re.sub(r"README\.zh-CN\.md(#\w+)?", "README.md", "\n\n".join(text)).split("\n\n")
    there = re.sub(r"README(\.zh-CN)?\.md(#[\w-]+)?", "README.md", english.rstrip("\n")).split("\n\n")
    current = f"<!-- README.md: {hashlib.sha256(english.encode()).hexdigest()[:12]} -->"
    found = [] if digest == current else [f"the English changed: read both once more, then let the last line be {current}"]
    if len(here) != len(there):
        return [*found, f"{len(there)} paragraphs became {len(here)}"]
    return found + [fault for pair in zip(there, here) for fault in faults(*pair)]


@pytest.mark.parametrize("folder", ["data", "grpo_saved_lora"])
def test_a_page_says_in_chinese_what_it_says_in_english(folder):
    english, chinese = ((ROOT / folder / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert page_faults(english, chinese) == []
    assert page_faults(english + "\nMore.\n", chinese)[0].startswith("the English changed")
    assert any(fault.startswith("other numbers") for fault in page_faults(english, re.sub(r"\b400\b", "401", chinese)))
