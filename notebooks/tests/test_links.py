"""What the READMEs and the chapters point to exists: links, headings, files, commands; and both READMEs give the same figures."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = [ROOT / name for name in ("README.md", "README.zh-CN.md", "data/README.md", "grpo_saved_lora/README.md",
                                  "data/README.zh-CN.md", "grpo_saved_lora/README.zh-CN.md", "AGENTS.md", ".github/CONTRIBUTING.md")]
MADE_BY_RUNS = ("outputs/", "grpo_checkpoints/", "grpo_evaluation/")
TARGETS = set(re.findall(r"^([a-z][\w.-]*):", (ROOT / "Makefile").read_text(), re.M))


def text_of(file):
    if file.suffix != ".ipynb":
        return file.read_text("utf-8")
    return "\n".join(cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == "markdown")


def broken(text, folder):
    """The relative links of a page in `folder` that lead to no file, or to no heading of it."""
    found = []
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        path, _, heading = target.partition("#")
        file = folder / path if path else None
        if re.match(r"[a-z]+://", target):
            continue
        if file and not file.exists():
            found.append(target)
        elif heading:
            headings = re.findall(r"^#+ (.+)$", text_of(file) if file else text, re.M)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            found += [target] if heading not in slugs else []
    return found


def missing(text, folder):
    """What stands in backticks, looks like a path of the repository, and does not exist."""
    quoted = re.findall(r"`([\w./-]+(?:/|\.(?:py|ipynb|txt|jsonl|md|sh|toml|safetensors|json)))`", text)
    places = [folder, ROOT, ROOT / "notebooks", ROOT / "notebooks/grpo_kit", ROOT / "data", ROOT / "data/problems"]
    return [path for path in quoted if not path.startswith(MADE_BY_RUNS) and not any((place / path).exists() for place in places)]


# What these sentences come from is no file of the repository.
OF_THE_LIBRARIES = {"unexpected keyword argument", "will be IGNORED", "CUDA out of memory", "object has no attribute 'apply'",
                    "0 active drivers", "The size of tensor a … must match …", "lenient_accuracy", "import unsloth", "HF_ENDPOINT"}


def unsaid(text):
    """The messages in the first column of the last table that no code of the repository says; `…` stands for anything."""
    files = [ROOT / "setup.sh", ROOT / "Makefile", *(ROOT / "notebooks/grpo_kit").rglob("*.py")]
    cells = [cell.source for file in NOTEBOOKS for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    code = re.sub(r'"\s+f?"', "", "\n".join([*(file.read_text("utf-8") for file in files), *cells]))
    symptoms = [row.split(" | ")[0] for row in re.findall(r"^\| (.+) \|$", text.rpartition("\n\n|")[2], re.M)]
    messages = {message for symptom in symptoms for message in re.findall(r"`([^`]+)`", symptom)} - OF_THE_LIBRARIES
    said = {message.replace("make setup: ", "make setup: $*") for message in messages}
    return [message for message in said for part in re.split("[… ]*…[… ]*", message) if part not in code]


def unknown_targets(text):
    return [name for name in re.findall(r"(?:^|`)make ([a-z][\w.-]*[\w-])", text, re.M) if name not in TARGETS]


@pytest.mark.parametrize("file", [*PAGES, *NOTEBOOKS], ids=lambda file: str(file.relative_to(ROOT)))
def test_what_it_points_to_exists(file):
    text = text_of(file)
    assert broken(text, file.parent) == [] and unknown_targets(text) == []
    if file in PAGES:
        assert missing(text, file.parent) == []


def test_what_does_not_exist_is_found():
    assert broken("[a](no.ipynb) [b](README.md) [c](https://x.y/z) [d](README.md#nowhere)", ROOT) == ["no.ipynb", "README.md#nowhere"]
    assert missing("`notebooks/nothing.py` and `notebooks/conftest.py`, `outputs/x.md`", ROOT) == ["notebooks/nothing.py"]
    assert unknown_targets("`make setup` and `make tea`\nmake coffee  # strong") == ["tea", "coffee"]
    assert unsaid("…\n\n| you see | do |\n|---|---|\n| `… was trained on …` | a |\n| `0 active drivers`, `Kein Text` | b |\n") == ["Kein Text"]


def result(text):
    """The table of the result and the paragraph under it."""
    return re.search(r"^\|[^\n]+ p \|\n.+?\n\n[^\n]+", text, re.S | re.M)[0]


def figures(text):
    return re.findall(r"\d+(?:\.\d+)?", text)


def shapes(text):
    """[(rows, cells)] of the tables."""
    tables = re.findall(r"^\|.+?\|$(?=\n\n|\n<|\n?\Z)", text, re.S | re.M)
    return [(len(rows := table.split("\n")), {row.count("|") for row in rows}) for table in tables]


def test_both_readmes_give_the_same_figures_commands_and_links():
    english, chinese = (re.sub(r"(?<=notebooks/)zh/(?=\d)|(?<=/README)\.zh-CN(?=\.md)", "", file.read_text("utf-8")) for file in PAGES[:2])
    assert figures(result(english)) == figures(result(chinese)) and len(figures(result(english))) > 40
    assert shapes(english) == shapes(chinese) and len(shapes(english)) > 4
    for pattern in (r"```\n([^`]*)```", r"\]\((?!README)([^)]+)\)", r"^(\d\.) ", r"^(#+) "):
        assert re.findall(pattern, english, re.M) == re.findall(pattern, chinese, re.M)
    for command in (r"\b(make [a-z][\w.-]*[\w-])`", r"`(export [^`]+|\w+=\w+)`"):
        assert set(re.findall(command, english)) == set(re.findall(command, chinese))
    assert re.findall(r"\| ([^|]+) min \|", english) == re.findall(r"\| ([^|]+) 分钟 \|", chinese)


def test_the_result_is_the_one_on_the_adapters_card():
    for readme, card in (PAGES[0], PAGES[3]), (PAGES[1], PAGES[5]):
        assert result(readme.read_text("utf-8")) == result(card.read_text("utf-8"))


@pytest.mark.parametrize("file", PAGES[:2], ids=lambda file: file.name)
def test_the_messages_that_the_readme_explains_are_said_somewhere(file):
    assert unsaid(file.read_text("utf-8")) == []
