"""Sphinx's settings, of both languages: `-t zh` says Chinese. grpo_kit/workshop/website.py runs it on the pages that it staged."""

import re

from sphinx.search.zh import SearchChinese

CHINESE = tags.has("zh")  # noqa: F821  Sphinx gives it
project = "能运行的 GRPO Notebook" if CHINESE else "GRPO notebooks that run"
html_title, language = project, "zh_CN" if CHINESE else "en"
html_search_language = "zh" if CHINESE else "en"
extensions = ["myst_nb"]
templates_path, html_static_path = ["_templates"], ["_static"]

nb_execution_mode = "off"  # the stored outputs are shown
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
mathjax_path = "mathjax/tex-svg.js"  # vendored: nothing comes from a CDN

html_theme = "furo"
html_css_files, html_favicon, html_extra_path = ["site.css"], "_static/favicon.svg", ["llms.txt"]
html_copy_source = html_show_sourcelink = html_show_copyright = html_use_index = False
html_theme_options = {
    "top_of_page_buttons": ["edit"],  # its place has the language switch
    "light_css_variables": {"color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ff", "color-brand-content": "#7cc0ff"},
}
html_context = {"other_language": "English" if CHINESE else "中文", "other_code": "en" if CHINESE else "zh-CN", "chinese": CHINESE}


class SearchByPairs(SearchChinese):
    """Chinese is found by its pairs of characters, which needs no dictionary of words; the rest as in English."""

    language_name = "English"  # of the stemmer: Sphinx 9.0 looks for a Chinese one, which it does not have

    js_splitter_code = """
var splitQuery = (query) => query.match(/[\\u4e00-\\u9fff]+|[a-zA-Z0-9_]+/g)?.flatMap((run) =>
  /[a-zA-Z0-9_]/.test(run) || run.length < 3 ? [run] : Array.from({length: run.length - 1}, (_, i) => run.slice(i, i + 2))) ?? [];
"""

    def split(self, text):
        runs = re.findall("[\u4e00-\u9fff]+", text)
        latin = self.latin1_letters.findall(text)
        self.latin_terms.update(latin)
        return [run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))] + latin


def setup(app):
    app.add_search_language(SearchByPairs)
