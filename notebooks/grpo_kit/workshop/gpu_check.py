"""What a CUDA GPU makes of this project: `make gpu-check`, or `python -m grpo_kit.workshop.gpu_check`; needs no network.

Parts, in this order, each in a process of its own, as far as the minutes go:

- 00: the quickstart, every cell, with the repository's own small model, through Unsloth's GPU classes and vLLM.
- engine: a model of Qwen2.5-3B's shape with random weights: tokens a second, the parts of a step, memory against the plan.
- generate, vllm: the same batch by TRL alone, with transformers' `generate` and with TRL's own vLLM.
- 02, 03, …: the chapters, every cell; an error does not end a notebook, the third does.

After each part it writes notebooks/results/gpu_check_<card>.json; logs and executed notebooks are in outputs/gpu_check/.
"""

import argparse
import datetime
import importlib.metadata as metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

from .bench import start
from .step_cost import ROOT, SEED

OUT = ROOT / "outputs/gpu_check"
SHAPE = OUT / "shape"
CHAPTERS = ["02", "03", "05", "06", "10", "08", "09", "07", "04", "11", "12", "13", "14", "01"]
STEPS = ["engine", "generate", "vllm"]
PARTS = ["00", *STEPS, *CHAPTERS]
LEAST = 60  # seconds; with fewer left a part is not begun: none of them would be ready in time
COPIED = ["data", "grpo_saved_lora", "notebooks", "requirements.txt", "requirements-cpu.txt", "setup.sh", "Makefile", "README.md"]
PACKAGES = ["torch", "triton", "transformers", "trl", "peft", "bitsandbytes", "unsloth", "unsloth_zoo", "vllm"]


def write(file, value):
    """Writes JSON; a reader never finds half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part.{os.getpid()}")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, file)


def slug(text):
    """`text` as a part of a file's name."""
    return re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")


def save(name, figures):
    """Adds `figures` to the part's own file, so that a part that is ended leaves what it had."""
    file = OUT / f"{name}.json"
    write(file, (json.loads(file.read_text("utf-8")) if file.exists() else {}) | figures)


# --- notebooks --------------------------------------------------------------------------------------------------------


def copied(name, share=None):
    """A copy of the repository for one notebook; `share`: its engine's of the memory, instead of the profile's."""
    whole, target = OUT / f"copy-{name}", OUT / f"copy-{name}.part"
    for folder in (whole, target):
        shutil.rmtree(folder, ignore_errors=True)
    target.mkdir(parents=True)
    for item in COPIED:
        if (ROOT / item).is_dir():
            shutil.copytree(ROOT / item, target / item, ignore=shutil.ignore_patterns("outputs", "__pycache__", ".*"))
        else:
            shutil.copy(ROOT / item, target)
    if share:
        file = target / "notebooks/grpo_kit/machine/profile.py"
        text, changed = re.subn(r'(name="embedded", )', rf"\g<1>gpu_memory_utilization={share}, ", file.read_text("utf-8"))
        assert changed == 1
        file.write_text(text, "utf-8")
    return target.rename(whole)


def run_notebook(source, executed, folder, save):
    """Runs every cell of `source` in `folder`, and goes on after an error; the third ends it. `executed` is written after each."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(source, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    folder.mkdir(exist_ok=True)
    figures = {"cells": len(cells), "run": 0, "errors": {}, "slow cells": {}}
    begin = time.perf_counter()
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            before = time.perf_counter()
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                print(f"cell {index}: {error}", flush=True)
                figures["errors"][index] = f"{error.ename}: {error.evalue}"[:300]
            figures["run"] += 1
            figures["seconds"] = round(time.perf_counter() - begin, 1)
            if (spent := time.perf_counter() - before) > 5:
                figures["slow cells"][index] = round(spent, 1)
            nbformat.write(notebook, executed)
            save(figures)
            if len(figures["errors"]) == 3:
                return


def comparison(folder):
    """Before and after of the quickstart, from the completions it saved: {set: {measure: cells of the table}}."""
    import pandas as pd

    from grpo_kit.measure.score import Evaluation
    from grpo_kit.measure.statistics import compare

    def read(split, when):
        rows = json.loads((folder / f"grpo_evaluation/{split}_{when}.json").read_text("utf-8"))["rows"]
        return Evaluation(pd.DataFrame(rows))

    splits = [file.name.removesuffix("_after.json") for file in sorted(folder.glob("grpo_evaluation/*_after.json"), reverse=True)]
    return {split: compare(read(split, "before"), read(split, "after")).to_dict("index") for split in splits}


# --- parts ------------------------------------------------------------------------------------------------------------


def run_part(name, share):
    """One part, in this process; its figures go to its own file."""
    from . import gpu_steps

    keep = partial(save, name)
    if name in STEPS:
        subprocess.run([sys.executable, "-m", "grpo_kit.workshop.gpu_steps", str(SHAPE)], check=True)  # its memory goes with its process
        return gpu_steps.engine(SHAPE, keep) if name == "engine" else gpu_steps.trl_alone(name, SHAPE, keep)
    copy = copied(name, share)
    [source] = (copy / "notebooks").glob(f"{name}_*.ipynb")
    folder = copy / "outputs" if name == "00" else copy / "notebooks"
    os.environ["GRPO_PROFILE"] = "embedded"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(copy / "notebooks"), *filter(None, [os.environ.get("PYTHONPATH")])])
    run_notebook(source, OUT / f"{name}.ipynb", folder, keep)
    if name == "00":
        keep({"before and after": comparison(folder)})
    shutil.rmtree(copy)


def watched(name, seconds, at_once=1):
    """The figures of one part, run in a process of its own for at most `seconds`; "ended" says why there are no more."""
    if seconds < LEAST:
        return {"ended": "not begun: no time was left"}
    OUT.mkdir(parents=True, exist_ok=True)
    file, log = OUT / f"{name}.json", OUT / f"{name}.log"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "grpo_kit.workshop.gpu_check", "--run", name, "--at-once", str(at_once)]
    with open(log, "w") as output:
        code = start(command, seconds, stdout=output, stderr=subprocess.STDOUT).wait()
    figures = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if code == -signal.SIGALRM:
        figures["ended"] = "cut off: the minutes were over"
    elif code:
        last = log.read_text("utf-8", "replace").strip().split("\n")[-1]
        figures["ended"] = f"failed: {last[:300]} (all of it: {log.relative_to(ROOT)})"
    return figures


def machine():
    """The card, its driver and memory, and the processor's cores."""
    import torch

    card = torch.cuda.get_device_properties(0)
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    return {"gpu": card.name, "memory, GB": round(card.total_memory / 1e9, 1), "driver": driver.stdout.split("\n")[0],
            "cuda": torch.version.cuda, "cores": os.cpu_count(), "python": platform.python_version()}


def table(parts):
    """What the parts found, as text; `parts`: {name: figures}."""
    lines, configurations = [], {}
    for name, figures in parts.items():
        if name in STEPS:
            configurations |= {(name, key): value for key, value in figures.items() if key.endswith(" tokens")}
            plan, peaks = figures.get("plan, GB"), [value["peak, GB"] for key, value in figures.items() if key.endswith(" tokens")]
            if "load" in figures:
                lines.append(f"{name:9} ready after {figures['load']:.0f} s")
            if rates := figures.get("tokens/s of so many prompts"):
                lines.append(f"{name:9} tokens/s: " + ", ".join(f"{rate:.0f} of {count} prompts" for count, rate in rates.items()))
            if plan and peaks:
                sampling, training = (max(peak[part] for peak in peaks) for part in ("generate", "training"))
                lines.append(f"{name:9} memory, GB: planned {plan['sampling']:.1f} sampling, {plan['training']:.1f} training; "
                             f"measured {sampling:.1f}, {training:.1f}: the plan is {plan['sampling'] / sampling:.0%}, "
                             f"{plan['training'] / training:.0%}")
        elif "cells" in figures:
            errors = "".join(f"; cell {index}: {error}" for index, error in figures["errors"].items())
            lines.append(f"{name:9} {figures['run']} of {figures['cells']} cells, {figures['seconds']:.0f} s, {len(figures['errors'])} errors{errors}")
            for split, measures in figures.get("before and after", {}).items():
                lines += [f"{'':9} {split:16} {measure:8} {cells['before']:>20} -> {cells['after']:>20}"
                          for measure, cells in measures.items() if measure in ("layout", "strict", "lenient")]
        if "ended" in figures:
            lines.append(f"{name:9} {figures['ended']}")
    if configurations:
        lines.append(f"\n{'a step':9} {'tokens each':>12} {'first, s':>9} {'then, s':>9} {'generate':>9} {'training':>9} {'tokens/s':>9}")
    for (name, length), figures in configurations.items():
        step, generate, training = (sum(figures[part]) / len(figures[part]) for part in ("step", "generate", "training"))
        made = 16 * figures["tokens a completion"]
        lines.append(f"{name:9} {length.split()[0]:>12} {figures['first step']:9.1f} {step:9.1f} {generate:9.1f} {training:9.1f} {made / step:9.0f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="no part goes on for longer than this after the start (default 10)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {' '.join(PARTS)}; in this order")
    parser.add_argument("--at-once", type=int, default=1, help="chapters beside each other, each engine with a share of the memory")
    parser.add_argument("--run", choices=PARTS, help=argparse.SUPPRESS)  # one part, in a subprocess
    options = parser.parse_args()
    share = round(0.6 / options.at_once, 3) if options.at_once > 1 else None
    if options.run:
        return run_part(options.run, share)
    import torch

    if not torch.cuda.is_available():
        sys.exit("make gpu-check measures what a CUDA GPU does, and PyTorch sees none on this machine: run it on one that has.")
    end = time.monotonic() + 60 * options.minutes
    card, parts, one_at_a_time = machine(), {}, Lock()
    file = ROOT / f"notebooks/results/gpu_check_{slug(card['gpu'])}.json"
    report = {"machine": card, "date": datetime.date.today().isoformat(), "seed": SEED,
              "versions": {name: metadata.version(name) for name in PACKAGES}, "command": f"make gpu-check ARGS={' '.join(sys.argv[1:])!r}"}

    def begin(name):
        found = watched(name, end - time.monotonic(), options.at_once)
        with one_at_a_time:
            parts[name] = found
            write(file, report | {"parts": {name: parts[name] for name in PARTS if name in parts}})
            print(table({name: found}), flush=True)

    for at_once, kind in ((1, [*STEPS, "00"]), (options.at_once, CHAPTERS)):
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(begin, [name for name in options.parts if name in kind]))
    print(f"\n{card['gpu']}, driver {card['driver']}\n{table(parts)}\n\nsaved as {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
