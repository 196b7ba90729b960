"""Opens outputs/site in a headless Chromium as a reader would, from a plain file server: the second part of `make test-browser`.

Each function below is a check; the first that fails ends the run with one sentence. Screenshots, wide and as on a phone, go to
outputs/browser/site/. A request to anything but the server is a failure. `browser_site.py the_glass_box_computes` runs one check.
"""

import functools
import http.server
import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from browser import Failure, chromium
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE, SHOTS = ROOT / "outputs/site", ROOT / "outputs/browser/site"
CHAPTERS = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
WIDE, PHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
ASKED, SECONDS = 50, 3  # test problems; the most that the first answer may take
READY = "() => !document.querySelector('[data-is=ask]').disabled"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def check(holds, what):
    if not holds:
        raise Failure(what)


def search_finds(page, url):
    for place, word, chapter in (("", "advantage", "05_train_grpo"), ("zh/", "优势", "05_train_grpo"), ("zh/", "量化", "02_load_model_4bit")):
        page.goto(f"{url}/{place}search.html?q={word}")
        page.locator("#search-results ul.search li").first.wait_for()
        page.wait_for_function("() => /\\d/.test(document.querySelector('#search-results .search-summary')?.textContent ?? '')")
        found = page.locator("#search-results ul.search a").evaluate_all("links => links.map(link => link.href)")
        check(any(chapter in link for link in found), f"the search for {word} does not find {chapter}")
    return "advantage, 优势 and 量化 find their chapters"


def pictures_show(page, url):
    count = 0
    for place in ("", "zh/"):
        for chapter in CHAPTERS:
            stored = json.loads((ROOT / f"notebooks/{chapter}.ipynb").read_text("utf-8"))["cells"]
            wanted = sum("image/png" in output.get("data", {}) for cell in stored for output in cell.get("outputs", []))
            page.goto(f"{url}/{place}notebooks/{chapter}.html")
            page.wait_for_function("() => [...document.images].every(image => image.complete)")
            widths = page.locator(".cell_output img").evaluate_all("images => images.map(image => image.naturalWidth)")
            check(len(widths) == wanted and all(widths), f"{place}{chapter} shows {sum(map(bool, widths))} of {wanted} pictures")
            count += wanted
    check(count, "there is no picture")
    return f"{count} pictures of {2 * len(CHAPTERS)} pages"


def formulas_are_set(page, url):
    page.goto(f"{url}/notebooks/05_train_grpo.html")
    page.locator("mjx-container svg").first.wait_for()
    return "MathJax sets chapter 05's"


def the_switch_keeps_the_chapter(page, url):
    page.goto(f"{url}/notebooks/05_train_grpo.html")
    for address, language in (("zh/notebooks/05_train_grpo.html", "zh"), ("notebooks/05_train_grpo.html", "en")):
        page.locator(".language-switch a").click()
        page.wait_for_url(f"{url}/{address}")
        check(page.locator("html").get_attribute("lang").startswith(language), f"{address} is not in {language}")
    check(page.locator(".next-page").count() and page.locator(".prev-page").count(), "a chapter has no way to the next and the previous")
    return "from 05 to 05, and back"


def the_night_is_dark(page, url):
    page.goto(f"{url}/index.html")
    colours = set()
    for _ in range(3):
        page.locator(".theme-toggle-content .theme-toggle").click()
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    check(len(colours) == 2, f"the toggle gives the backgrounds {colours}")
    return "the toggle changes the page"


def a_sheet_is_one_page(page, url):
    for place in ("", "zh/"):
        page.goto(f"{url}/{place}cheatsheet.html")
        page.locator("mjx-container svg").first.wait_for()
        count = len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf(prefer_css_page_size=True)))
        check(count == 1, f"{place}cheatsheet.html prints on {count} pages")
    return "one page of A4 in both languages"


def kit_rewards(text, gold):
    """What the kit pays, by the name that the page gives it."""
    from grpo_kit.rewards import correctness_reward, format_reward, integer_reward, tag_reward

    return [function([text], answer=[gold])[0] for function in (correctness_reward, format_reward, tag_reward, integer_reward)]


def both_models_answer(page, url):
    settings = json.loads((SITE / "files/talk.json").read_text("utf-8"))
    page.goto(f"{url}/talk.html")
    page.wait_for_function(READY, timeout=60_000)
    question, gold = settings["problems"][1]
    page.locator("[data-is=question]").fill(question)
    page.locator("[data-is=gold]").fill(gold)
    page.locator("[data-is=ask]").focus()
    began = time.monotonic()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('[data-is=after] .paid table')", timeout=60_000)
    seconds = time.monotonic() - began
    page.wait_for_function(READY)
    for side in ("before", "after"):
        panel = page.locator(f"[data-is={side}]")
        text = panel.locator(".answer").text_content()
        shown = [float(cell) for cell in panel.locator(".paid tr td:nth-child(2)").all_text_contents()[:4]]
        check(shown == kit_rewards(text, gold), f"for {text!r} the page shows {shown}, the kit pays {kit_rewards(text, gold)}")
    check(shown[0] == 2.0, f"the trained model answers {text!r} to {question!r}, and {gold} is right")
    check(seconds < SECONDS, f"the first answer took {seconds:.1f} s")
    page.locator("[data-is=temperature]").fill("1")
    page.locator("[data-is=sixteen]").click()
    page.wait_for_function(READY, timeout=120_000)
    page.wait_for_function("() => document.querySelectorAll('.strip button').length === 32")
    totals = [float(text) for text in page.locator("[data-is=after] .strip button").all_text_contents()]
    page.locator("[data-is=sixteen]").click()
    page.wait_for_function(READY, timeout=120_000)
    again = [float(text) for text in page.locator("[data-is=after] .strip button").all_text_contents()]
    check(totals == again, f"the same seed gives {totals}, then {again}")
    return f"the trained model is right, its rewards are the kit's, after {seconds:.1f} s; sixteen samples a model, twice the same"


def greedy_answers_are_llama_cpps(page, url):
    from grpo_kit.export.gguf import GGUFModel

    settings = json.loads((SITE / "files/talk.json").read_text("utf-8"))
    questions, said = [question for question, _ in settings["problems"][:ASKED]], {}
    for side, name in settings["files"].items():
        theirs = page.evaluate("""async ([side, questions]) => {
            const model = document.getElementById("talk").models[side], texts = [];
            for (const question of questions) {
                await model.read(question);
                texts.push((await model.answer(0, null, {stopped: false})).text);
            }
            return texts;
        }""", [side, questions])
        prompts = [settings["prompt"].replace("{question}", question) for question in questions]
        with GGUFModel(SITE / "files" / name, settings["context"]) as model:
            greedy = SimpleNamespace(temperature=0.0, max_tokens=settings["reply"])
            ours = [request.outputs[0].text for request in model.fast_generate(prompts, greedy)]
        other = [(one, two) for one, two in zip(theirs, ours) if one != two]
        check(side != "after" or not other, f"{len(other)} of {ASKED} answers are not llama.cpp's: {other[:1]}")
        said[side] = ASKED - len(other)  # the base has nearer ties, so its number is told and not asked for
    return f"letter by letter llama.cpp's: {said['after']} of {ASKED} of the trained model, {said['before']} of the base"


def the_glass_box_computes(page, url):
    page.goto(f"{url}/glassbox.html")
    page.wait_for_function("() => document.getElementById('glassbox').dataset.ready === 'yes'")
    off = page.evaluate("""() => {
        const {record, computed} = document.getElementById("glassbox"), {weights, scale_rewards, epsilon, epsilon_high, group} = record.settings;
        const set = {weights, scale: scale_rewards, low: epsilon, high: epsilon_high};
        return Math.max(...record.steps.flatMap(step => computed(step, group, set).advantages.map((one, i) => Math.abs(one - step.advantages[i]))));
    }""")
    check(off < 2e-4, f"an advantage is {off} from the one that TRL computed")
    advantages = lambda: page.locator(".completion strong").all_text_contents()  # noqa: E731
    for step, group in [(step, group) for step in ("10", "20", "30") for group in range(4)]:  # one in which some are right
        page.locator("[data-is=reset]").click()
        page.locator("[data-is=step]").fill(step)
        page.locator("[data-is=group]").select_option(index=group)
        first = advantages()
        page.locator("[data-is=scale]").select_option("group")
        second = advantages()
        page.locator("[data-weight=correctness]").fill("0")
        if changed := len(first) == 8 and first != second != advantages():
            break
    check(changed, "a change of the settings changes no advantage")
    stopped = page.locator(".token.clipped").count()
    page.locator("[data-is=low]").fill("0")
    page.locator("[data-is=high]").fill("0")
    check(page.locator(".token.clipped").count() > stopped, "a tighter clip stops no more tokens")
    page.locator("[data-is=reset]").click()
    check(page.locator(".completion strong").all_text_contents() == first, "the settings of the training do not come back")
    return f"advantages at most {off:.0e} from TRL's; weights, normalisation and clip change what is shown"


def photographs(browser, url):
    """Wide and as on a phone, light and dark; nothing may stand out of a phone's page."""
    pages = ["index.html", "talk.html", "glassbox.html", "cheatsheet.html", "glossary.html", "figures.html", "errata.html", f"notebooks/{CHAPTERS[5]}.html", "README.html"]
    for place in ("", "zh/"):
        for size, scheme in ((WIDE, "light"), (PHONE, "dark")):
            for name in pages:
                page = browser.new_page(viewport=size, color_scheme=scheme)
                page.goto(f"{url}/{place}{name}")
                page.wait_for_timeout(700)
                if name == "talk.html":  # as it looks with an answer
                    page.wait_for_function(READY, timeout=60_000)
                    page.locator("[data-is=ask]").click()
                    page.wait_for_function(f"() => document.querySelectorAll('.paid table').length === 2 && ({READY})()", timeout=60_000)
                width = page.evaluate("document.documentElement.scrollWidth")
                page.screenshot(path=SHOTS / f"{place}{name}-{size['width']}.png".replace("/", "-"))
                check(width <= size["width"], f"{place}{name} is {width} pixels wide on a screen of {size['width']}")
                page.close()
    return f"{4 * len(pages)} screenshots, none wider than its screen"


CHECKS = [search_finds, pictures_show, formulas_are_set, the_switch_keeps_the_chapter, the_night_is_dark, a_sheet_is_one_page,
          both_models_answer, greedy_answers_are_llama_cpps, the_glass_box_computes]


def main(chosen):
    check((SITE / "index.html").exists(), "there is no outputs/site: run make site")
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, elsewhere, broken = f"http://127.0.0.1:{server.server_port}", [], []
    with sync_playwright() as browsers:
        env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        browser = browsers.chromium.launch(executable_path=chromium(browsers.chromium), env=env)
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith((url, "blob:", "data:")) or elsewhere.append(request.url))
        page.on("response", lambda response: response.status < 400 or broken.append(response.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        for function in CHECKS:
            if chosen and function.__name__ not in chosen:
                continue
            began = time.monotonic()
            print(f"{function.__name__.replace('_', ' ')}: {function(page, url)} ({time.monotonic() - began:.0f} s)", flush=True)
        check(not elsewhere, f"a page asks {elsewhere[:1]}, another machine")
        check(not broken, f"a page fails: {broken[:1]}")
        print(f"photographs: {photographs(browser, url)}" if not chosen or "photographs" in chosen else "photographs: not chosen")
        browser.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failure as failure:
        sys.exit(f"make test-browser: the site: {str(failure).rstrip('.')}.")
