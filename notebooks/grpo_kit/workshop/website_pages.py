"""The pages of the site, as Markdown and notebooks for Sphinx: `write` stages them in the folders that they have in the repository."""

import ast
import base64
import json
import re

WORDS = {  # of the pages that are made here
    "en": {
        "figure": "Figure of the section “{}”", "no chapter": "", "machine": "machine", "date": "date", "what": "what it measured",
        "command": "command", "versions": "versions", "file": "file", "chapter": "The chapter", "colon": ": ",
        "term": "English", "other": "Chinese", "meaning": "what it means", "note": "note", "more": "More terms",
    },
    "zh": {
        "figure": "“{}”一节的图", "machine": "机器", "date": "日期", "what": "测了什么", "command": "命令", "versions": "版本", "file": "文件", "chapter": "这一章", "colon": "：",
        "no chapter": "```{note}\n这一章还没有中文版，下面是英文版。\n```\n\n",
        "term": "英文", "other": "中文", "meaning": "意思", "note": "说明", "more": "其他术语",
    },
}


def write(language, root, sources, folder):
    """Stage the pages of one language from the repository at `root` and from `sources`, the site's own, in `folder`."""
    chapters = [file.stem for file in sorted((root / "notebooks").glob("[0-9]*.ipynb"))]
    (folder / "notebooks").mkdir()
    read = {}
    for name in chapters:
        chapter, text = chapter_of(language, root, name)
        read[name] = chapter
        (folder / f"notebooks/{name}.ipynb").write_text(json.dumps(chapter), "utf-8")
    readme(language, root, folder)
    own = {"chapters": chapter_table(language, root), "figures": figures(language, root, sources, read, folder),
           "terms": terms(language, root, sources)}
    for page in sorted((sources / language).glob("*.md")):
        text = re.sub(r"\{\{ (\w+) \}\}", lambda place: own[place[1]], page.read_text("utf-8"))
        (folder / page.name).write_text(text, "utf-8")
    (folder / "llms.txt").write_text(llms_txt((folder / "index.md").read_text("utf-8")), "utf-8")


def llms_txt(index):
    """The first page as llmstxt.org has it, for programs that read: title, summary, then each page with its address and one line."""
    lines = []
    for line in re.sub(r"\.(?:md|ipynb)\)", ".html)", index).splitlines():
        row = re.match(r"\| (\[[^]]+\]\([^)]+\)) \| (.+?) \|", line)
        if row:
            lines.append(f"- {row[1]}: {row[2]}")
        elif line.startswith("#"):
            lines += ["", line, ""]
        elif re.match(r"\w", line) and not any(kept.startswith((">", "-")) for kept in lines):  # the first paragraph; the toctrees come later
            lines.append(f"> {line}")
    return "\n".join(lines).strip() + "\n"


def chapter_of(language, root, name):
    """(the notebook as the site shows it, its markdown as one text): the Chinese one where there is one, with a note where not."""
    english, translated = root / f"notebooks/{name}.ipynb", root / f"notebooks/zh/{name}.ipynb"
    chinese = language == "zh" and translated.exists()
    notebook = json.loads((translated if chinese else english).read_text("utf-8"))
    heading = ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if chinese:  # its links were led one folder up, from notebooks/zh/
                source = of_one_language(re.sub(r"\]\(\.\./", "](", source))
            elif language == "zh":  # whose READMEs have other headings
                source = re.sub(r"(\]\([\w./-]*README\.md)#[^)]*\)", r"\1)", source)
            cell["source"] = source
            heading = ([heading] + re.findall(r"^#+ (.+)$", source, re.M))[-1]
        elif any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            cell["metadata"]["mystnb"] = {"image": {"alt": WORDS[language]["figure"].format(plain(heading))}}
        if "cellView" in cell["metadata"]:
            cell["metadata"].setdefault("tags", []).append("hide-input")
    if language == "zh" and not chinese:
        title, _, rest = notebook["cells"][0]["source"].partition("\n\n")
        notebook["cells"][0]["source"] = f"{title}\n\n{WORDS['zh']['no chapter']}{rest}"
    notebook["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook, "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def of_one_language(markdown):
    """Each page has its name in both languages, so that a link to the Chinese file leads to the page."""
    return re.sub(r"(\]\([\w./-]*README)\.zh-CN\.md", r"\1.md", markdown)


def plain(markdown):
    return re.sub(r"[`*$]|\[([^]]*)\]\([^)]*\)", r"\1", markdown)


def readme(language, root, folder):
    """The READMEs of the repository, of the data and of the adapter; what they link to in notebooks/zh/ stands elsewhere on the site."""
    for name in ("README.md", "data/README.md", "grpo_saved_lora/README.md"):
        own = root / name.replace(".md", ".zh-CN.md")
        text = (own if language == "zh" and own.exists() else root / name).read_text("utf-8")
        text = re.sub(r"^\[(中文|English)\]\(README[^)]*\)\n\n", "", text, flags=re.M)  # the switch is above the page
        text = text.replace("(notebooks/zh/README.md)", "(glossary.md)").replace("](notebooks/zh/", "](notebooks/")
        text = re.sub(r" ?[（(]\[(?:中文|English)\]\([\w/]*README[\w.-]*\)[)）]", "", text)
        text = re.sub(r"\[([^]]+)\]\((?!\w+:)[\w./-]*(?:AGENTS|CONTRIBUTING)\.md\)", r"\1", text)  # for those who have the repository
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(of_one_language(text), "utf-8")


def chapter_table(language, root):
    """The table of chapters of the README."""
    text = (root / ("README.zh-CN.md" if language == "zh" else "README.md")).read_text("utf-8")
    return re.search(r"^\| [^\n]+\n\|---\|---\|---\|\n\| \[00 .+?\|\n(?=\n)", text, re.S | re.M)[0].replace("(notebooks/zh/", "(notebooks/")


def figures(language, root, sources, chapters, folder):
    """All that was measured: a list a file of notebooks/results/, then chapter by chapter where its figures come from, and its pictures."""
    words = WORDS[language]
    parts = []
    for file in sorted((root / "notebooks/results").glob("*.json")):
        result = json.loads(file.read_text("utf-8"))
        machine = result["machine"] if isinstance(result["machine"], str) else result["machine"]["gpu"]
        versions = ", ".join(f"{package} {version}" for package, version in result.get("versions", {}).items())
        told = {"what": purpose(language, root, sources, result["command"]), "command": f"`{result['command']}`", "machine": machine,
                "date": result["date"], "versions": versions}
        lines = [f"- {words[name]}{words['colon']}{value}" for name, value in told.items() if value]
        lines.append(f"- {words['file']}{words['colon']}[{file.name}](notebooks/results/{file.name})")
        parts.append(f"### {file.stem}\n\n" + "\n".join(lines))
    for name, chapter in chapters.items():
        cells = ["".join(cell["source"]) for cell in chapter["cells"] if cell["cell_type"] == "markdown"]
        title = plain(re.match(r"# (.+)", cells[0])[1])
        parts.append(f"## {title}\n\n{words['chapter']}{words['colon']}[{name}](notebooks/{name}.ipynb)")
        told = [found[0] for cell in cells for found in re.finditer(r"^\*\*(?:Where the figures come from\.|数据来源。)\*\*.*?$", cell, re.M)]
        parts += [re.sub(r"\]\((?!\w+:|#)([^)\s]+)", r"](notebooks/\1", told[0])] if told else []
        parts.append(pictures(name, chapter, folder))
    return "\n\n".join(parts)


def pictures(name, chapter, folder):
    """The pictures of one chapter as a grid of HTML; their files go to `folder`/_static/figures, where both languages have the same names."""
    (folder / "_static/figures").mkdir(parents=True, exist_ok=True)
    shown, number = [], 0
    for cell in chapter["cells"]:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                number += 1
                file = f"_static/figures/{name[:2]}_{number}.png"
                (folder / file).write_bytes(base64.b64decode("".join(png)))
                text = cell["metadata"]["mystnb"]["image"]["alt"]
                shown.append(f'<figure><a href="notebooks/{name}.html"><img src="{file}" alt="{text}" loading="lazy"></a>'
                             f"<figcaption>{text}</figcaption></figure>")
    return "\n".join(['<div class="figures">', *shown, "</div>"]) if shown else ""


def purpose(language, root, sources, command):
    """What a command's module measures, in a sentence: its own first one, in Chinese that of purposes.json; "" where it names none."""
    named = re.search(r"(?:grpo_kit\.workshop\.|make )(\w+)|(gpu_check)", command)
    name = named and (named[1] or named[2])
    if language == "zh":
        return json.loads((sources / "purposes.json").read_text("utf-8"))[name] if name else ""
    file = root / f"notebooks/grpo_kit/workshop/{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) if file.exists() else ""
    return re.split(r"\n\n|(?<=\.) ", text)[0].replace("\n", " ")


def terms(language, root, sources):
    """The glossary: terms with a meaning, from terms.json, then the other rows of the table that the translations follow."""
    words = WORDS[language]
    table = re.findall(r"^\| (?!英文|---)(.+?) \| (.+?) \|(.*)\|$", (root / "notebooks/zh/README.md").read_text("utf-8"), re.M)
    told = json.loads((sources / "terms.json").read_text("utf-8"))
    rows = [f"| {words['term']} | {words['other']} | {words['meaning']} |", "|---|---|---|"]
    for term in told:
        where = f" ([{term['chapter'][:2]}](notebooks/{term['chapter']}.ipynb))" if "chapter" in term else ""
        rows.append(f"| {term['en']} | {term['zh']} | {term['meaning'][language]}{where} |")
    known = {term["en"] for term in told}
    more = [f"| {english} | {chinese} | {note.strip()} |" for english, chinese, note in table if english not in known]
    return "\n".join([*rows, "", f"## {words['more']}", "", f"| {words['term']} | {words['other']} | {words['note']} |", "|---|---|---|", *more])


