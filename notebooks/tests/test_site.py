"""The site's pages before Sphinx sees them, and what is looked up after it: both languages have the same, and a fault is named."""

import json
import re

import pytest

from grpo_kit.rewards.answers import gold_answer
from grpo_kit.workshop import website, website_models, website_pages

ROOT, SOURCES = website.ROOT, website.SOURCES
CHAPTERS = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module", params=["en", "zh"])
def staged(request, tmp_path_factory):
    """(language, folder) of the pages as Sphinx gets them."""
    folder = tmp_path_factory.mktemp(request.param)
    website.stage(request.param, folder)
    return request.param, folder


def test_every_chapter_is_there_with_its_outputs_and_a_note_where_it_is_not_translated(staged):
    language, folder = staged
    for name in CHAPTERS:
        ours = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))["cells"]
        shown = json.loads((folder / f"notebooks/{name}.ipynb").read_text("utf-8"))["cells"]
        assert [cell.get("outputs") for cell in shown] == [cell.get("outputs") for cell in ours]
        translated = (ROOT / f"notebooks/zh/{name}.ipynb").exists()
        assert ("还没有中文版" in shown[0]["source"]) == (language == "zh" and not translated)
        assert bool(re.search("[\u4e00-\u9fff]", shown[0]["source"])) == (language == "zh")
        pictures = [cell for cell in shown if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))]
        assert all(cell["metadata"]["mystnb"]["image"]["alt"] for cell in pictures)


def test_relative_links_of_staged_pages_lead_to_staged_files(staged):
    _, folder = staged
    for page in [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]:
        text = page.read_text("utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        for target, place in re.findall(r"\]\((?!\w+:|#)([^()\s#]+)(#[^()\s]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            if place and target.endswith(".md"):
                heads = re.findall(r"^#+ (.+)$", (page.parent / target).read_text("utf-8"), re.M)
                assert place[1:] in [re.sub(r"[^\w-]", "", head.lower().replace(" ", "-")) for head in heads], f"{page.name}: {target}{place}"


def test_the_figures_page_has_every_result_and_every_chapter(staged):
    _, folder = staged
    text = (folder / "figures.md").read_text("utf-8")
    for file in (ROOT / "notebooks/results").glob("*.json"):
        result = json.loads(file.read_text("utf-8"))
        assert f"(notebooks/results/{file.name})" in text and f"`{result['command']}`" in text and result["date"] in text
    assert all(f"(notebooks/{name}.ipynb)" in text for name in CHAPTERS)


def test_llms_txt_names_every_page_with_its_address_and_a_line(staged):
    _, folder = staged
    text = (folder / "llms.txt").read_text("utf-8")
    assert re.match(r"# .+\n\n> .+\n\n## ", text)
    named = re.findall(r"^- \[[^]]+\]\(([^)]+)\.html\): \S.+$", text, re.M)
    assert len(named) == len(set(named)) == text.count("\n- ")
    assert {f"notebooks/{name}" for name in CHAPTERS} <= set(named)
    assert {page.stem for page in folder.glob("*.md")} - {"index", "README"} <= set(named)
    assert all((folder / f"{name}.md").exists() or (folder / f"{name}.ipynb").exists() for name in named)


def test_an_erratum_has_its_day_its_chapter_and_both_sides_and_stands_in_both_languages():
    found = []
    for language, words in (("en", ("**Was:** ", "**Is:** ")), ("zh", ("**原来：** ", "**现在：** "))):
        entries = (SOURCES / language / "errata.md").read_text("utf-8").split("\n## ")[1:]
        parts = [entry.strip().split("\n\n") for entry in entries]
        assert all(len(part) == 4 and part[2].startswith(words[0]) and part[3].startswith(words[1]) for part in parts)
        heads = [(re.match(r"2026-\d\d-\d\d", part[1])[0], re.findall(r"\(([^)]+\.(?:md|ipynb))\)", part[1])) for part in parts]
        assert all(places for _, places in heads) and [day for day, _ in heads] == sorted((day for day, _ in heads), reverse=True)
        found.append([(head, sorted(re.findall(r"`[^`]+`|(?<![0-9.])-?[0-9.]*[0-9]", part[3]))) for head, part in zip(heads, parts)])
    assert len(found[0]) > 5 and found[0] == found[1]


def test_the_pages_that_compute_have_the_same_parts_in_both_languages():
    for name in ("talk.md", "glassbox.md"):
        english, chinese = ((SOURCES / language / name).read_text("utf-8") for language in ("en", "zh"))
        for pattern in (r'data-is="([\w-]+)"', r'data-weight="(\w+)"'):
            assert re.findall(pattern, english) == re.findall(pattern, chinese)
        words = [json.loads(re.search(r'id="words">(.+?)</script>', text)[1]) for text in (english, chinese)]
        assert words[0].keys() == words[1].keys()
        for word in words[0]:
            assert [set(re.findall(r"\{\w+\}", str(language[word]))) for language in words].count(set(re.findall(r"\{\w+\}", str(words[0][word])))) == 2, word
        script = (SOURCES / "_static" / name.replace(".md", ".js")).read_text("utf-8")
        assert set(re.findall(r"\bwords\.(\w+)", script)) <= words[0].keys()
        assert set(re.findall(r'one\("([\w-]+)"\)', script)) <= set(re.findall(r'data-is="([\w-]+)"', english))
    assert [file.name for file in sorted((SOURCES / "en").iterdir())] == [file.name for file in sorted((SOURCES / "zh").iterdir())]


def test_a_term_has_the_chinese_word_that_the_chapters_use():
    table = dict(re.findall(r"^\| (.+?) \| (.+?) \|", (ROOT / "notebooks/zh/README.md").read_text("utf-8"), re.M))
    said = {english: chinese.split("（")[0] for pair in table.items() for english, chinese in zip(*(part.split(sep) for part, sep in zip(pair, (", ", "，"))))}
    terms = json.loads((SOURCES / "terms.json").read_text("utf-8"))
    assert {term["en"]: said[term["en"]] for term in terms if term["en"] in said} == {term["en"]: term["zh"] for term in terms if term["en"] in said}
    assert len([term for term in terms if term["en"] in said]) > 15
    assert all((ROOT / f"notebooks/{term['chapter']}.ipynb").exists() for term in terms if "chapter" in term)


def test_the_talk_page_asks_as_the_chapters_do():
    from grpo_kit.data.rows import SYSTEM_PROMPT, jsonl_rows

    settings = website_models.talk_settings({"before": ROOT / "README.md", "after": ROOT / "LICENSE"})
    assert settings["prompt"] == f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{{question}}<|im_end|>\n<|im_start|>assistant\n"
    rows = jsonl_rows(ROOT / "data/problems/test.jsonl")
    assert settings["problems"] == [[row["question"], gold_answer(row["answer"])] for row in rows] and len(settings["held_out"]) == 200
    assert settings["stop"] == [3, 5] and settings["files"] == {"before": "README.md", "after": "LICENSE"}


@pytest.mark.parametrize("page, fault", [
    ('<a href="b.html">b</a>', "a.html: b.html leads nowhere"),
    ('<a href="#x">x</a>', "a.html: #x names no place of its page"),
    ('<img src="x.png" alt="x">', "a.html: x.png leads nowhere"),
    ('<script src="https://cdn.example/x.js"></script>', "a.html: https://cdn.example/x.js comes from another machine"),
    ('<link rel="stylesheet" href="//cdn.example/x.css">', "a.html: //cdn.example/x.css comes from another machine"),
    ('<img src="a.html">', "a.html: 1 pictures without a text"),
])
def test_a_fault_of_the_built_site_is_named(tmp_path, page, fault):
    (tmp_path / "a.html").write_text(page)
    assert website.faults(tmp_path) == [fault]
    (tmp_path / "a.html").write_text('<p id="x"></p><a href="#x">x</a><a href="a.html#x">x</a><a href="https://a.b">c</a><img src="a.html" alt="a">')
    assert website.faults(tmp_path) == []


def test_an_address_of_llms_txt_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "llms.txt").write_text("- [a](a.html): a\n- [b](https://a.b): b\n")
    assert website.faults(tmp_path) == ["llms.txt: a.html leads nowhere"]


def test_a_package_with_another_checksum_is_refused(tmp_path):
    (tmp_path / "mathjax-3.2.2.tgz").write_bytes(b"other")
    with pytest.raises(website.SiteError, match="not the package that was tried"):
        website.vendored("mathjax@3.2.2", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_npm_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(website.SiteError, match="npm, which is not here"):
        website.vendored("mathjax@3.2.2", tmp_path / "store")


def test_a_purpose_is_the_modules_own_first_sentence_and_has_a_chinese_one():
    told = {language: lambda command, language=language: website_pages.purpose(language, ROOT, SOURCES, command) for language in ("en", "zh")}
    assert told["en"]("python -m grpo_kit.workshop.laptop --seeds=1").startswith("What a real model of 135 million parameters")
    assert told["en"]("make scale").startswith("GRPO in one, two and three processes") and "三个进程" in told["zh"]("make scale")
    assert told["en"]("python tea") == told["zh"]("python tea") == ""
    for file in (ROOT / "notebooks/results").glob("*.json"):
        command = json.loads(file.read_text("utf-8"))["command"]
        assert bool(told["en"](command)) == bool(told["zh"](command)), command
