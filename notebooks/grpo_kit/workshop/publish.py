"""Writes where this repository lies into it, or takes that out again: `make publish REPOSITORY=owner/name`, `make publish REPOSITORY=`.

From the one value come: the badges under the titles of both READMEs and of every chapter (Colab, Kaggle, ModelScope,
CloudStudio), the READMEs' commands, where `OWNER/NAME` stands for it, and the address that a chapter opened alone clones.
Without a value no badge stands anywhere, and no link leads to a repository that is not there.
"""

import argparse
import json
import re

from . import zh

PLACE, ADDRESS = "OWNER/NAME", 'os.environ.get("GRPO_REPOSITORY", "{}")'
BADGES = [  # (what is read aloud, its picture, where it leads)
    ("Open in Colab", "https://colab.research.google.com/assets/colab-badge.svg",
     "https://colab.research.google.com/github/{repository}/blob/main/{path}"),
    ("Open in Kaggle", "https://kaggle.com/static/images/open-in-kaggle.svg",
     "https://kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/main/{path}"),
    ("Open in ModelScope", "https://img.shields.io/badge/ModelScope-open%20notebook-624aff",
     "https://modelscope.cn/notebook/share/github/{repository}/blob/main/{path}"),
    ("Open in CloudStudio", "https://cs-res.codehub.cn/common/assets/icon-badge.svg", "https://cloudstudio.net#https://github.com/{repository}"),
]


def badges(repository, path):
    """The line of badges, with its mark, for the notebook at `path` in the repository, and the empty line after it."""
    links = [f"[![{name}]({picture})]({address.format(repository=repository, path=path)})" for name, picture, address in BADGES]
    return f"{' '.join(links)} <!-- badges: {repository} -->\n\n"


def published(text):
    """The owner/name that a page was published for, or ""."""
    return mark[1] if (mark := zh.BADGES.search(text)) else ""


def page(text, repository, path):
    """A page's `text`, its badges behind the title, for `repository` ("": none) instead of what it was published for."""
    text, old = zh.BADGES.sub("", text), published(text)
    if old:
        text = text.replace(old, PLACE)
    if repository:
        text = text.replace("\n\n", f"\n\n{badges(repository, path)}", 1).replace(PLACE, repository)
    return text


def chapter(notebook, repository, path):
    """The `notebook`, read as JSON, likewise; and the address in its first code cell, where it has one."""
    cells = [dict(cell) for cell in notebook["cells"]]
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    old, new = (ADDRESS.format(f"https://github.com/{name}" if name else "") for name in (published("".join(cells[0]["source"])), repository))
    cells[0]["source"] = page("".join(cells[0]["source"]), repository, path).splitlines(keepends=True)
    first["source"] = "".join(first["source"]).replace(old, new).splitlines(keepends=True)
    return {**notebook, "cells": cells}


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="make publish", usage="make publish REPOSITORY=owner/name  (nothing after the = takes it out)")
    parser.add_argument("repository")
    repository = parser.parse_args(arguments).repository
    if repository and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_.-]+", repository):
        raise SystemExit(f"{repository!r} is not the owner/name of a repository on GitHub: make publish REPOSITORY=owner/name.")
    root = zh.ENGLISH.parent
    for name, path in ("README.md", "notebooks/00_quickstart.ipynb"), ("README.zh-CN.md", "notebooks/zh/00_quickstart.ipynb"):
        zh.written(root / name, page((root / name).read_text("utf-8"), repository, path).removesuffix("\n"))
    for file in sorted(zh.ENGLISH.glob("[0-9]*.ipynb")):
        notebook = chapter(json.loads(file.read_text("utf-8")), repository, f"notebooks/{file.name}")
        zh.written(file, json.dumps(notebook, indent=1, ensure_ascii=False))
    zh.main()
    print(f"Published for {repository}." if repository else "Published for no repository: no badge, no address.")


if __name__ == "__main__":
    main()
