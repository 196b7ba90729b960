"""Opens notebooks in JupyterLab and a headless Chromium, as a reader would, and chooses Run > Run All Cells: `make test-browser`.

Usage: browser.py 00_quickstart.ipynb …   Each runs in a copy of the repository, stripped of its stored outputs, on a server
of its own. Every cell must end without an error, and each picture and table that the stored notebook holds must appear;
else one sentence names the cell. Screenshots and the server's log go to outputs/browser/.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import playwright
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "outputs/browser"
MADE_BY_RUNS = (".*", "outputs", "grpo_checkpoints", "grpo_evaluation", "unsloth_compiled_cache", "__pycache__")
BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
MINUTES = 30  # the most that one notebook may take
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # every cell is on the page, not only those in view
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
CELL = ".jp-Notebook .jp-Cell"
OUTPUT = ".jp-OutputArea-output"
# What the page shows of each cell; naturalWidth is 0 for a picture that the browser could not draw.
READ = f"""cells => cells.map(cell => {{
    const images = [...cell.querySelectorAll('img')].filter(image => image.complete);
    return {{
        prompt: cell.querySelector('.jp-InputPrompt')?.textContent ?? '',
        broken: images.filter(image => image.naturalWidth == 0).length,
        pictures: images.filter(image => image.naturalWidth > 0 && image.closest('{OUTPUT}')).length,
        tables: [...cell.querySelectorAll('{OUTPUT} table')].filter(table => table.offsetHeight > 0).length,
    }};
}})"""


class Failure(Exception):
    """What is wrong, in one sentence."""


def cells_of(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def stripped_copy(name, folder):
    """Copy the repository to `folder`, the notebook without its outputs; return the stored notebook's cells."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*MADE_BY_RUNS))
    shutil.rmtree(folder / "notebooks/grpo_saved_lora", ignore_errors=True)  # a run's; the repository's lies at its top
    path = folder / "notebooks" / name
    if not path.is_file():
        raise Failure("there is no such file in notebooks")
    notebook = json.loads(path.read_text("utf-8"))
    stored = cells_of(path)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    path.write_text(json.dumps(notebook), "utf-8")
    return stored


@contextmanager
def jupyterlab(folder, settings, log):
    """A JupyterLab on `folder` with nothing of the user's own configuration: yields its address and its token."""
    (settings / "labconfig").mkdir(parents=True)
    (settings / "labconfig/default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env = os.environ | dict.fromkeys(places, str(settings)) | {"JUPYTER_TOKEN": token}
    env.pop("PYTHONPATH", None)  # it leads to Playwright
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--port={port}"]
    with log.open("w") as lines:
        server = subprocess.Popen([*command, folder], env=env, stdout=lines, stderr=lines, start_new_session=True)
    try:
        for _ in range(60):
            time.sleep(1)
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5)
                break
            except (urllib.error.URLError, TimeoutError):
                if server.poll() is not None:
                    break
        else:
            raise Failure("JupyterLab did not answer within a minute")
        if server.poll() is not None:
            raise Failure(f"JupyterLab did not start: {log.read_text().strip().splitlines()[-1]}")
        yield url, token
    finally:
        server.terminate()  # it ends its kernels first
        server.wait(60)


def chromium(browsers):
    """The path of a Chromium: one on PATH, else the one that Playwright downloaded."""
    for path in [*map(shutil.which, BROWSERS), browsers.executable_path]:
        if path and Path(path).exists():
            return path
    packages = os.path.relpath(Path(playwright.__file__).parents[1])
    raise Failure("there is no Chromium: install one (on Debian: apt install chromium), or let Playwright download one "
                  f"(PYTHONPATH={packages} .venv/bin/python -m playwright install chromium)")


def called(cell, shown):
    """How a cell is named to a reader: its number and its first line."""
    return f"cell {shown['prompt'].rstrip(':')} `{''.join(cell['source']).strip().partition(chr(10))[0]}`"


def run_all(page, cells):
    """Choose Run > Run All Cells, wait until nothing runs any more, and save; Failure if the kernel dies or a cell hangs."""
    # The status bar says so when the kernel is connected; cells that are run earlier are dropped without a word.
    page.get_by_text(re.compile(r"\| Idle$")).wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    stop = time.monotonic() + 60 * MINUTES
    running = ["no cell"]
    while running:
        time.sleep(2)
        shown, last = page.locator(CELL).evaluate_all(READ), running[0]
        running = [called(cell, state) for cell, state in zip(cells, shown) if "*" in state["prompt"]]
        if page.locator(".jp-Dialog").count():
            text = " ".join(page.locator(".jp-Dialog").first.inner_text().split())
            raise Failure(f"{last} was running when JupyterLab said: {text}")
        if time.monotonic() > stop:
            raise Failure(f"{running[0]} did not end within {MINUTES} minutes of Run All Cells")
    with page.expect_response(lambda response: response.request.method == "PUT"):
        page.keyboard.press("Control+s")
    return shown


def check(cells, saved, shown):
    """Failure unless all cells ran, none with an error, and what the stored outputs hold is drawn; returns how much that is."""
    if not len(cells) == len(saved) == len(shown):
        raise Failure(f"the page shows {len(shown)} of {len(cells)} cells")
    found = {"pictures": 0, "tables": 0}
    for cell, new, state in zip(cells, saved, shown):
        errors = [output for output in new.get("outputs", []) if output["output_type"] == "error"]
        if errors and "raises-exception" not in cell["metadata"].get("tags", []):
            raise Failure(f"{called(cell, state)} failed with {errors[0]['ename']}: {' '.join(errors[0]['evalue'].split())}")
        if cell["cell_type"] == "code" and new["execution_count"] is None:
            raise Failure(f"{called(cell, state)} was not run")
        if state["broken"]:
            raise Failure(f"{called(cell, state)} holds a picture that is not drawn")
        data = [output["data"] for output in cell.get("outputs", []) if "data" in output]
        stored = {
            "pictures": sum(any(kind.startswith("image/") for kind in one) for one in data),
            "tables": sum("<table" in "".join(one.get("text/html", "")) for one in data),
        }
        for what, count in stored.items():
            found[what] += state[what]
            if state[what] < count:
                raise Failure(f"{called(cell, state)} shows {state[what]} {what}, and its stored outputs hold {count}")
    return found


def photograph(page, shown, folder):
    """Save every picture of the outputs, and the notebook page by page."""
    for number, state in enumerate(shown):
        for picture in range(state["pictures"]):
            image = page.locator(CELL).nth(number).locator(f"{OUTPUT} img").nth(picture)
            image.screenshot(path=folder / f"cell-{number:02}-picture-{picture + 1}.png")
    paper = page.locator(".jp-WindowedPanel-outer").first
    visible = paper.evaluate("it => it.clientHeight")
    height = page.locator(CELL).last.evaluate(  # below it JupyterLab leaves a page empty
        "(cell, paper) => cell.getBoundingClientRect().bottom - paper.getBoundingClientRect().top + paper.scrollTop",
        paper.element_handle())
    for number, top in enumerate(range(0, int(height), visible - 40), start=1):
        paper.evaluate(f"it => it.scrollTop = {top}")
        page.screenshot(path=folder / f"page-{number:02}.png")


def test(name):
    """Run one notebook in the browser; prints a line, or raises Failure."""
    shots = SHOTS / Path(name).stem
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    start = time.monotonic()
    with TemporaryDirectory() as temporary, sync_playwright() as browsers:
        folder = Path(temporary)
        cells = stripped_copy(name, folder / "repository")
        path = chromium(browsers.chromium)
        with jupyterlab(folder / "repository", folder / "settings", shots / "jupyterlab.log") as (url, token):
            env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}  # tcmalloc is for the kernel
            page = browsers.chromium.launch(executable_path=path, env=env).new_page(viewport={"width": 1400, "height": 1200})
            page.route(re.compile(rf"^https?://(?!{url[7:]}/)"), lambda route: route.abort())  # nothing comes from elsewhere
            page.goto(f"{url}/lab/tree/notebooks/{name}?token={token}&reset")
            try:
                shown = run_all(page, cells)
                found = check(cells, cells_of(folder / "repository/notebooks" / name), shown)
                photograph(page, shown, shots)
            except Exception:
                page.screenshot(path=shots / "failure.png")
                raise
            page.context.browser.close()
    ran = sum(cell["cell_type"] == "code" for cell in cells)
    print(f"{name}: {ran} cells ran in the browser, {found['pictures']} pictures and {found['tables']} tables show, "
          f"{time.monotonic() - start:.0f} s; screenshots in {os.path.relpath(shots)}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server and its kernels end too
    for notebook in sys.argv[1:]:
        try:
            test(notebook)
        except Failure as failure:
            sys.exit(f"make test-browser: {notebook}, {str(failure).rstrip('.')}. Look into {os.path.relpath(SHOTS / Path(notebook).stem)}.")
