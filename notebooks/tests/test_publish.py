"""What `make publish` writes: addresses of the right form to files that exist, all from one value; and taken out, every byte is as before."""

import json
import re
import shutil
from urllib.parse import urlsplit

import pytest
from test_links import ROOT
from test_setup import make

from grpo_kit.workshop import publish, zh

PAGES = ["README.md", "README.zh-CN.md"]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A copy of what is published, published for nobody; `clone()` gives its files' bytes."""
    for name in [*PAGES, *(file.relative_to(ROOT) for file in sorted(ROOT.glob("notebooks/**/[0-9]*.ipynb")) + sorted(ROOT.glob("notebooks/zh/*.po")))]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(zh, "ENGLISH", tmp_path / "notebooks")
    monkeypatch.setattr(zh, "FOLDER", tmp_path / "notebooks/zh")
    publish.main([""])
    return lambda: {str(file.relative_to(tmp_path)): file.read_bytes() for file in sorted(tmp_path.rglob("*")) if file.is_file()}


def shown(name, data):
    """The Markdown of a page or chapter, and the code of a chapter."""
    if not name.endswith(".ipynb"):
        return data.decode(), ""
    cells = json.loads(data)["cells"]
    return tuple("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == kind) for kind in ("markdown", "code"))


def test_every_address_has_its_services_form_and_leads_to_a_file_that_exists(clone):
    before = clone()
    publish.main(["some-one/grpo.notebooks_2"])
    files = {name: data for name, data in clone().items() if not name.endswith(".po")}
    assert files.keys() == {name for name in before if not name.endswith(".po")}
    for name, data in files.items():
        own = name if name.endswith(".ipynb") else f"notebooks/{'zh/' if 'zh' in name else ''}00_quickstart.ipynb"
        text, code = shown(name, data)
        [line] = [line for line in text.splitlines() if "<!-- badges" in line]
        assert text.splitlines()[2] == line and text.startswith("# ")
        links = re.findall(r"\[!\[([^]]+)\]\(([^)\s]+)\)\]\(([^)\s]+)\)", line)
        there = f"some-one/grpo.notebooks_2/blob/main/{own}"
        assert [address for *_, address in links] == [
            f"https://colab.research.google.com/github/{there}", f"https://kaggle.com/kernels/welcome?src=https://github.com/{there}",
            f"https://modelscope.cn/notebook/share/github/{there}", "https://cloudstudio.net#https://github.com/some-one/grpo.notebooks_2"]
        assert own in before and all(urlsplit(address).scheme == "https" for link in links for address in link[1:])
        assert publish.PLACE not in text
        if name.endswith(".md"):
            raw = re.findall(r"wget (\S+)", text)
            assert [re.sub("00.*", "", address) for address in raw] == [
                "https://raw.githubusercontent.com/some-one/grpo.notebooks_2/main/notebooks/", "https://cdn.jsdelivr.net/gh/some-one/grpo.notebooks_2@main/notebooks/"]
            assert all(f"notebooks/{address.rpartition('/')[2]}" in before for address in raw)
        elif "00_quickstart" not in name:
            assert '= os.environ.get("GRPO_REPOSITORY", "https://github.com/some-one/grpo.notebooks_2")  # or' in code


def test_taken_out_again_or_written_for_another_every_byte_is_as_if_it_had_never_been(clone):
    before = clone()
    publish.main(["one/first"])
    first = clone()
    publish.main(["one/first"])
    assert clone() == first != before
    publish.main(["other/second"])
    publish.main(["one/first"])
    assert clone() == first
    publish.main([""])
    assert clone() == before


def test_without_a_value_no_link_leads_to_a_repository_that_is_not_there(clone):
    for name, data in clone().items():
        text, code = shown(name, data)
        assert "<!-- badges" not in text and not re.search(rf"\]\([^)]*{publish.PLACE}|<[a-z]+:[^>]*{publish.PLACE}", text)
        assert "os.environ.get(\"GRPO_REPOSITORY\", \"https" not in code


@pytest.mark.parametrize("name", ["https://github.com/owner/name", "owner", "owner/name/more", "-o/name", "o/na me", "o/", "/n"])
def test_what_is_no_repository_is_refused_before_anything_is_written(clone, name):
    before = clone()
    with pytest.raises(SystemExit, match="is not the owner/name of a repository on GitHub"):
        publish.main([name] if name[0] != "-" else ["--", name])
    assert clone() == before


def test_make_hands_the_value_on_and_asks_for_one():
    commands = [make("-n", "publish", *given).stdout.splitlines()[-1] for given in ([], ["REPOSITORY="], ["REPOSITORY=owner/name"])]
    assert [command.partition("publish")[2].strip() for command in commands] == ["", '""', '"owner/name"']
    with pytest.raises(SystemExit):
        publish.main([])
