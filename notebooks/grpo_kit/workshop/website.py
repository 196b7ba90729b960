"""Builds the site, `make site`: every chapter with its stored outputs, in English and Chinese, and pages that compute.

    python -m grpo_kit.workshop.website SPHINX      # SPHINX: a Python that has the packages of notebooks/site/requirements-site.txt

The pages are staged in outputs/site.part, in the folders that they have in the repository, so that their links stay as they
are; Sphinx, to which a warning is an error, writes the site; then every link, picture and address of it is looked up.
outputs/site is whole, or the one of the last build. No network but for two npm packages, once.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from grpo_kit.model.whole import whole
from . import website_models
from . import website_pages as pages

ROOT = Path(__file__).resolve().parents[3]
SOURCES, OUTPUTS = ROOT / "notebooks/site", ROOT / "outputs"
LANGUAGES = {"en": "", "zh": "zh"}  # {language: its folder in the site}
LIMIT_MB = 60
NPM = {  # {name@version: (npm's checksum of it, {file in the package: file in the site's _static})}
    "mathjax@3.2.2": ("sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
                      {"es5/tex-svg.js": "mathjax/tex-svg.js"}),
    # Not version 3: its WebAssembly is four times as large, and where a browser lacks two newer features it loads another from a CDN.
    "@wllama/wllama@2.4.0": ("sha512-KuVHeTUXcqHF01d85q3nWaRSVLpszULNGjO+nx4cyZ8sBjZvKSMViWNCfcs/1w2bqjyegERJzWsrdQSHSEoSlQ==",
                             {"esm/index.min.js": "wllama.js", "esm/single-thread/wllama.wasm": "wllama.wasm"}),
}


class SiteError(RuntimeError):
    """Why there is no site, in one sentence."""


def vendored(package, store):
    """The tarball of an npm package, `name@version`, in the folder `store`; fetched once, its checksum compared each time."""
    file = store / f"{package.strip('@').replace('/', '-').replace('@', '-')}.tgz"
    if not file.exists():
        if not shutil.which("npm"):
            raise SiteError(f"{package} is fetched by npm, which is not here: install it (on Debian: apt install npm)")
        store.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["npm", "pack", "--silent", "--pack-destination", store, package], capture_output=True, text=True)
        if done.returncode or not file.exists():
            raise SiteError(f"npm does not give {package}: check the network and npm's registry ({done.stderr.strip()[:200]})")
    checksum = "sha512-" + base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
    if checksum != NPM[package][0]:
        file.unlink()
        raise SiteError(f"{package} is not the package that was tried (its checksum is {checksum}): see what npm's registry is")
    return file


def unpack(packages, store, folder):
    """Put the files of npm's `packages` that the site uses into `folder`."""
    for package in packages:
        with tarfile.open(vendored(package, store)) as archive:
            for name, target in NPM[package][1].items():
                target = folder / target
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(f"package/{name}").read())


def stage(language, folder):
    """Write the pages of one language into the empty `folder`."""
    for name in ("conf.py", "_static", "_templates", "locales"):
        (shutil.copytree if (SOURCES / name).is_dir() else shutil.copy)(SOURCES / name, folder / name)
    pages.write(language, ROOT, SOURCES, folder)
    for name in linked_files(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "grpo_saved_lora/before_after.png", folder / "grpo_saved_lora")


def linked_files(folder):
    """The files of the repository, beside the pages themselves, that pages in `folder` link to, as paths from the root."""
    found = set()
    for page in [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]:
        text = page.read_text("utf-8")
        for target in re.findall(r"\]\(([^()\s#:]+\.(?:json|jsonl|py|txt|sh|yaml|toml))\)", text):
            path = os.path.normpath(page.parent.relative_to(folder) / target)
            found |= {path} if (ROOT / path).is_file() else set()
    return sorted(found)


def build(language, python, staged, target):
    """Run Sphinx on the folder `staged`; SiteError with its warnings unless there are none.

    In one process: with `-j 2` Sphinx 9.0 left pages out after an error, and ended with 0. myst-nb keeps pictures beside `target`,
    so its folder is no other build's.
    """
    command = [python, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-d", f"{staged}.doctrees",
               *(["-t", "zh"] if language == "zh" else []), staged, target]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    if done.returncode:
        raise SiteError(f"Sphinx ended with {done.returncode} ({language}):\n{done.stderr.strip()[-3000:] or 'and said nothing'}")
    (target / ".buildinfo").unlink(missing_ok=True)


class Page(HTMLParser):
    """What a page names: `ids`, `links` that a reader follows, `parts` that the browser fetches by itself."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.parts, self.unnamed = set(), [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag in ("a", "area") and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag == "link" and attributes.get("rel") in ("next", "prev", "index", "search", "canonical", "alternate"):
            self.links.append(attributes["href"])
        elif tag == "link":
            self.parts.append(attributes["href"])
        self.parts += [attributes["src"]] if attributes.get("src") else []
        self.unnamed += tag == "img" and not attributes.get("alt")


def faults(site):
    """What is wrong with the pages under `site`, a sentence each: links and pictures that lead nowhere, parts from elsewhere."""
    found, read = [], {file: Page(file.read_text("utf-8")) for file in sorted(site.rglob("*.html"))}
    for file, page in read.items():
        where = file.relative_to(site)
        found += [f"{where}: {page.unnamed} pictures without a text"] if page.unnamed else []
        for address in [*page.links, *page.parts]:
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//"):
                if address in page.parts and parts.scheme != "data":
                    found.append(f"{where}: {address} comes from another machine")
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.is_file():
                found.append(f"{where}: {address} leads nowhere")
            elif parts.fragment and target in read and unquote(parts.fragment) not in read[target].ids:
                found.append(f"{where}: {address} names no place of its page")
    for file in site.rglob("llms.txt"):
        found += [f"{file.relative_to(site)}: {address} leads nowhere" for address in re.findall(r"\]\((?!\w+:)([^)]+)\)", file.read_text("utf-8"))
                  if not (file.parent / address).is_file()]
    return found


def megabytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def models():
    """The folder with the two models of the page "Talk to both", made once for these weights, by a process of its own."""
    folder = OUTPUTS / "site-models" / website_models.key()
    if not folder.is_dir():
        print("exporting the base and the trained model (half a minute, once)", flush=True)
        command = [sys.executable, "-m", "grpo_kit.workshop.website_models", folder]
        done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True)
        if done.returncode:
            raise SiteError(f"the models were not exported: {done.stderr.strip()[-500:]}")
    return folder


def main(python):
    began, work = time.monotonic(), OUTPUTS / "site.part"
    shutil.rmtree(work, ignore_errors=True)
    for language in LANGUAGES:
        staged = work / language / "pages"
        staged.mkdir(parents=True)
        stage(language, staged)
        unpack(["mathjax@3.2.2"], OUTPUTS / "site-npm", staged / "_static")
    with ThreadPoolExecutor() as pool:  # one after the other would take twice as long
        [one.result() for one in [pool.submit(build, language, python, work / language / "pages", work / language / "html") for language in LANGUAGES]]
    with whole(OUTPUTS / "site") as site:
        for language, place in LANGUAGES.items():
            shutil.copytree(work / language / "html", site / place, dirs_exist_ok=True)
        shutil.copytree(models(), site / "files")  # both languages read them there
        unpack(["@wllama/wllama@2.4.0"], OUTPUTS / "site-npm", site / "files")
        shutil.copy(ROOT / "notebooks/results/glass_box.json", site / "files")
        if found := faults(site):
            raise SiteError("\n".join(found[:20]))
        if (size := megabytes(site)) > LIMIT_MB:
            raise SiteError(f"the site has {size:.0f} MB, and {LIMIT_MB} are its limit")
    shutil.rmtree(work)
    count = len(list((OUTPUTS / "site").rglob("*.html")))
    print(f"outputs/site: {count} pages, {size:.1f} MB, in {time.monotonic() - began:.0f} s.")
    print("Look at it: python3 -m http.server --directory outputs/site, then http://localhost:8000")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except SiteError as error:
        sys.exit(f"make site: {error}")
