"""Writes the collapsed cell of the quickstart from the kit's sources: `make sync`, or `python -m grpo_kit.workshop.sync`.

The quickstart is one file that runs alone on a GPU machine. What its cells use, and a reader need not see, stands in one cell
of it: the definitions listed here, copied with the comments above them, and the imports that they need. Nothing of it is
written by hand; a test compares the cell with what this module writes. On top stands what needs the standard library only;
then the packages are installed; then comes what imports them.
"""

import ast
import builtins
import json
import os
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[2] / "00_quickstart.ipynb"
HEADER = """#@title Tools: what the cells below use, and you need not read
# Made from the repository's grpo_kit by `make sync`: change it there. It installs what is missing, then defines functions."""
INSTALL = "short_errors()\nprovide(PACKAGES)"
BEFORE = [("grpo_kit.machine.packages", "Stop says_why show_error short_errors fits nvidia_gpu install provide")]  # before the packages are there
AFTER = [
    ("grpo_kit.machine.profile", "Profile SOURCES GPU PROFILES gpu prepared choose_profile"),
    ("grpo_kit.rewards.answers", "TAGS WRAPPERS FULL_WIDTH LATEX LATEX_TEXT CURRENCY DIGITS SCALE LETTERS UNIT ONE_NUMBER ANY_NUMBER "
     "plain_text plain_digits parse_number gold_number extract_answer last_number gold_answer"),
    ("grpo_kit.data.problems", "FOLDER"),
    ("grpo_kit.data.rows", "unreadable fetch three_tries hub_rows modelscope_file modelscope_rows jsonl_rows whole_characters checked_row read_rows"),
    ("grpo_kit.rewards.ends", "end_tokens"),
    ("grpo_kit.rewards.functions", "ANY_TAG completion_text zero_truncated"),
    ("grpo_kit.measure.score", "MEASURES lenient_accuracy as_bools wilson_shares Evaluation"),
    ("grpo_kit.measure.ask", "own_seeds as_templated evaluate"),
    ("grpo_kit.measure.statistics", "paired_test compare"),
    ("grpo_kit.training.progress", "Watcher LiveTable show_some"),
    ("grpo_kit.training.resume", "HELD INCIDENTAL take_lock free_lock checkpoints ends_early whole_checkpoint training_settings Interrupted Resumable"),
    ("grpo_kit.model.whole", "locked whole put_in_place save_whole"),
    ("grpo_kit.model.identity", "KIT LIBRARIES SHAPE LONGEST_HEADER SAMPLED check_safetensors plain_name base_folder fingerprint _fingerprint sign"),
    ("grpo_kit.plots.style", "GREY BLUE CHINESE_FONTS CHINESE STYLE readable"),
    ("grpo_kit.plots.training", "plot_training _draw_curve completions_table"),
]
# What visible cells write out themselves: its imports stand in the collapsed cell, its source does not.
SHOWN = [
    ("grpo_kit.data.rows", "SYSTEM_PROMPT make_dataset"),
    ("grpo_kit.rewards.functions", "correctness_reward format_reward tag_reward integer_reward"),
]
REPLACED = {"FOLDER": 'FOLDER = Path("../data/problems")  # the repository\'s own'}  # a notebook has no __file__


def module_source(module):
    """The text of a module, found without importing it."""
    return (Path(__file__).resolve().parents[2] / f"{module.replace('.', '/')}.py").read_text("utf-8")


def names_of(node):
    """The names that a statement of a module's top level binds."""
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    return [node.name] if hasattr(node, "name") else []


def free_names(node):
    """The names that a definition reads and does not bind itself."""
    inner = list(ast.walk(node))
    bound = {name.id for name in inner if isinstance(name, ast.Name) and not isinstance(name.ctx, ast.Load)}
    bound |= {arg.arg for arg in inner if isinstance(arg, ast.arg)}
    bound |= {part.name for part in inner if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler))}
    bound |= {name for part in inner if isinstance(part, (ast.Import, ast.ImportFrom)) for name in names_of(part)}
    return {name.id for name in inner if isinstance(name, ast.Name)} - bound - set(dir(builtins))


def definitions(source, names):
    """[(text, what it reads)] of the definitions called `names`, in that order, each with its comments. KeyError without one."""
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        found |= {name: ("\n".join(lines[first : node.end_lineno]), free_names(node)) for name in names_of(node)}
    return [found[name] for name in names]


def imports(source, names):
    """{(module, name or "", its name here)} of the imports at the top of `source` that bind one of `names`; the kit's are left out."""
    found = set()
    for node in ast.parse(source).body:
        for alias in getattr(node, "names", []) if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
            here = alias.asname or alias.name
            if here.partition(".")[0] not in names:
                continue
            if isinstance(node, ast.Import):
                found.add((alias.name, "", here))
            elif not node.level and not node.module.startswith("grpo_kit"):
                found.add((node.module, alias.name, here))
    return found


def import_lines(found):
    """`imports` as lines of code, those of a module merged."""
    plain = [f"import {module}" + (f" as {here}" if here != module else "") for module, name, here in found if not name]
    merged = {}
    for module, name, here in sorted(found):
        if name:
            merged.setdefault(module, []).append(name if name == here else f"{name} as {here}")
    return sorted(plain) + [f"from {module} import {', '.join(names)}" for module, names in sorted(merged.items())]


def generate(before=BEFORE, after=AFTER, shown=SHOWN):
    """The source of the collapsed cell. ValueError where a definition reads something that the notebook would not have."""
    needed, texts = set(), {"before": [], "after": []}
    defined = {name for _, names in [*before, *after, *shown] for name in names.split()}
    for part, table in {"before": before, "after": after, "shown": shown}.items():
        for module, names in table:
            source = module_source(module)
            taken = definitions(source, names.split())
            for name, (text, reads) in zip(names.split(), taken):
                reads = set() if name in REPLACED and (text := REPLACED[name]) else reads
                found = imports(source, reads)
                missing = reads - defined - {here.partition(".")[0] for *_, here in found}
                if missing:
                    raise ValueError(f"{module}.{name} reads {', '.join(sorted(missing))}: add it to a table of grpo_kit/workshop/sync.py.")
                needed |= found
                if part in texts and text not in texts[part]:  # two names may share a line
                    texts[part].append(text)
    standard = {one for one in needed if one[0].partition(".")[0] in sys.stdlib_module_names}
    first, second = ("\n".join(import_lines(some)) for some in (standard, needed - standard))
    return "\n\n\n".join([f"{HEADER}\n{first}", *joined(texts["before"]), f"{INSTALL}\n\n{second}", *joined(texts["after"])])


def joined(texts):
    """`texts`, with constants that follow each other as one piece: no empty lines between them."""
    pieces = []
    for text in texts:
        constant = isinstance(ast.parse(text).body[0], ast.Assign)
        if constant and pieces and pieces[-1][0]:
            pieces[-1] = (True, f"{pieces[-1][1]}\n{text}")
        else:
            pieces.append((constant, text))
    return [text for _, text in pieces]


def collapsed(cell):
    """Whether a cell's source is hidden: by JupyterLab's mark, which is the notebook format's."""
    return cell["metadata"].get("jupyter", {}).get("source_hidden", False)


def main():
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    [cell] = [cell for cell in notebook["cells"] if collapsed(cell)]
    new = generate().splitlines(keepends=True)
    if cell["source"] == new:
        print(f"{NOTEBOOK.name} is up to date.")
        return
    cell["source"] = new
    part = NOTEBOOK.with_name(f"{NOTEBOOK.name}.part")
    part.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(part, NOTEBOOK)
    print(f"{NOTEBOOK.name}: the collapsed cell has {len(new)} lines now. Run the notebook again, so that its outputs belong to it.")


if __name__ == "__main__":
    main()
