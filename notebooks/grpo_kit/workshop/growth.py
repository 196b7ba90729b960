"""How a training step grows, on this machine: its time and memory against the size of what it does, and over many steps.

`python -m grpo_kit.workshop.growth` measures this project's engine on a model of the tiny model's architecture, prints each curve
with its exponent (the slope of a straight line through the logarithms: 1 is linear), draws outputs/growth.png and saves
outputs/growth.json. Completions have their whole length here: the end-of-turn token does not end them.

A curve's sizes rise within one process, so that its peak memory so far is that of the largest size so far; models and
numbers of threads have a process each. A point that would not fit into its curve's share of ten minutes is left out with a
sentence. After the curves, two things that must hold: the memory of a long run does not rise, and of a model that was
trained and deleted nothing stays behind, neither its engine nor a thread.
"""

import argparse
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import time
import weakref
from pathlib import Path

from grpo_kit.machine.threads import cores
from . import bench, step_cost
from .step_cost import GROUP, MODEL, ROOT

COMPLETIONS, LENGTH, PROMPT = 64, 32, 192  # a step's completions and their tokens, where they do not vary; a prompt's, at most
STEPS = 3  # timed at each point, after one of warm-up
WIDTHS = {1: 128, 4: 256, 15: 512, 60: 1024}  # {parameters in millions: hidden size}
SIZES = {
    "completions": [32, 64, 128, 256, 512],
    "length": [32, 64, 128, 256],
    "parameters": list(WIDTHS),
    "threads": sorted({2**i for i in range(cores().bit_length())} | {cores()}),
}
LABELS = dict(zip(SIZES, ["completions a step", "tokens a completion", "million parameters", "threads"], strict=True))
MEASURES = {"step": "step, s", "memory": "peak memory, GB"}
SECONDS = {"completions": 120, "length": 110, "parameters": 110, "threads": 50, "long run": 150, "rounds": 50}  # a part's share
APART = ("parameters", "threads")  # a process a point
STEEP, LINEAR = 1.1, ("completions", "length")  # a larger exponent is steeper than linear, where linear is expected
LONG, SETTLED, BAR = 300, 50, 0.05  # steps of the long run; after how many it is settled; how far memory may rise from there


# --- measured, in a subprocess ----------------------------------------------------------------------------------------


def random_model(folder, width):
    """`folder`, with an untrained model of the tiny model's architecture and tokenizer, `width` wide, written to it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(MODEL)
    config.hidden_size, config.intermediate_size = width, 3 * width
    config.num_attention_heads = config.num_key_value_heads = width // config.head_dim
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder


def too_long(name, size, last, left, start=0.0):
    """Why the point `size` is left out, a sentence, or "" where it fits into the `left` seconds of its curve.

    Guessed from the `last` point, as if it were linear, and `start`: what its process needs before its first step.
    """
    seconds = start + last["seconds"] * size / last["size"]
    return f"{name}: {size} left out, it would take {seconds:.0f} s and {left:.0f} s are left." if seconds > left else ""


def points(name, sizes, seconds):
    """The points of a curve, [{size, step (s), memory (GB), threads, seconds}], and the sentences about those left out."""
    end, found = time.monotonic() + seconds, []
    with tempfile.TemporaryDirectory() as folder:
        source = random_model(folder, WIDTHS[sizes[0]]) if name == "parameters" else MODEL
        model, tokenizer = step_cost.load("ours", source, PROMPT + max(SIZES["length"]))
        dataset = step_cost.dataset_for(MODEL, tokenizer)
        for size in sizes:
            began = time.monotonic()
            if found and (sentence := too_long(name, size, found[-1], end - began)):
                return found, [sentence]
            prompts = (size if name == "completions" else COMPLETIONS) // GROUP
            length = size if name == "length" else LENGTH
            trainer = step_cost.trainer_for("ours", model, tokenizer, dataset, STEPS + 1, prompts, GROUP, length, whole=True)
            figures = step_cost.measure(trainer, STEPS)
            assert set(figures["tokens a completion"]) == {length}, "the engine no longer heeds ignore_eos"
            if name == "parameters":
                size = sum(p.numel() for p in model.cpu_engine.base.values()) / 1e6
            point = {"size": size, "step": statistics.median(figures["step"]), "memory": figures["peak memory, GB"][0]}
            point |= {"threads": statistics.median(figures["threads"]), "seconds": time.monotonic() - began}
            found.append(point)
    return found, []


def resident():
    """The memory of this process that is in RAM, in GB (10^9 bytes)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def long_run(seconds):
    """Resident memory in GB after each step of a training on the embedded default, ended after `seconds`."""
    end, memory = time.monotonic() + seconds, []
    model, tokenizer = step_cost.load("ours", MODEL)
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            memory.append(resident())
            control.should_training_stop |= time.monotonic() > end

    trainer = step_cost.trainer_for("ours", model, tokenizer, step_cost.dataset_for(MODEL, tokenizer), LONG, 4, GROUP, 32)
    trainer.add_callback(Watch())
    trainer.train()
    return memory


def rounds():
    """Three times load, train two steps, delete: [{threads, memory (GB), engine: whether it lives on}] after each."""
    found, dataset = [], None
    for _ in range(3):
        model, tokenizer = step_cost.load("ours", MODEL)
        dataset = dataset or step_cost.dataset_for(MODEL, tokenizer)
        engine = weakref.ref(model.cpu_engine)
        trainer = step_cost.trainer_for("ours", model, tokenizer, dataset, 2, 4, GROUP, 32)
        trainer.train()
        del model, trainer
        gc.collect()
        threads = len(os.listdir("/proc/self/task"))
        found.append({"threads": threads, "memory": resident(), "engine": engine() is not None})
    return found


# --- what the figures say ---------------------------------------------------------------------------------------------


def exponent(points, measure):
    """The slope of log(measure) on log(size) by least squares; None of fewer than two points."""
    if len(points) < 2:
        return None
    logs = [[math.log(point[key]) for point in points] for key in ("size", measure)]
    return statistics.linear_regression(*logs).slope


def curve_text(name, points):
    """A curve as lines of text: its sizes, the two measures with their exponents, and what is wrong with it."""
    lines = [f"{LABELS[name]:22}" + "".join(f"{point['size']:>9.4g}" for point in points)]
    for measure, label in MEASURES.items():
        slope = exponent(points, measure)
        power = "" if slope is None else f"   grows as {name}^{slope:.2f}"
        lines.append(f"  {label:20}" + "".join(f"{point[measure]:>9.2f}" for point in points) + power)
        if name in LINEAR and slope is not None and slope > STEEP:
            lines.append(f"  STEEPER THAN LINEAR: {label.partition(',')[0]} against {LABELS[name]}, exponent {slope:.2f}.")
    if any(point["threads"] < (point["size"] if name == "threads" else cores()) for point in points):
        lines.append("  Others used the cores meanwhile, so that it ran with fewer threads: measure again when it is quiet.")
    return "\n".join(lines)


def held(memory, rounds):
    """What must hold, as [(whether it does, a sentence)]; arguments as `long_run` and `rounds` give them."""
    settled = min(SETTLED, len(memory))
    start, end = memory[settled - 1], memory[-1]
    sizes = f"{start:.2f} GB after step {settled}, {end:.2f} GB after step {len(memory)}"
    long = f"Long run: {sizes}, {100 * (end / start - 1):+.1f} % (bar {100 * BAR:.0f} %)."
    if len(memory) < LONG:
        long += f" There was no time for {LONG} steps."
    engines = sum(after["engine"] for after in rounds)
    gone = not engines and rounds[-1]["threads"] <= rounds[0]["threads"]
    after = ", ".join(f"{after['threads']} threads and {after['memory']:.2f} GB" for after in rounds)
    left = f"Load, train, delete, three times: then {after}; {engines} engines stayed behind."
    return [(end / start - 1 <= BAR, long), (gone, left)]


def draw(curves, file):
    """Saves the curves as a picture: time above, memory below, logarithmic axes, the exponents in the titles."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    from grpo_kit.plots import BLUE, STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(MEASURES), len(curves), figsize=(3.2 * len(curves), 5.6), sharex="col", squeeze=False)
        for column, (name, points) in zip(axes.T, curves.items(), strict=True):
            for axis, (measure, label) in zip(column, MEASURES.items(), strict=True):
                sizes, values = ([point[key] for point in points] for key in ("size", measure))
                axis.loglog(sizes, values, "o-", color=BLUE)
                axis.set(title="one point" if len(points) < 2 else f"exponent {exponent(points, measure):.2f}", ylabel=label)
                middle = math.sqrt(min(values) * max(values))
                axis.set_ylim(min(min(values) / 1.3, middle / 3), max(max(values) * 1.3, middle * 3))  # flat looks flat
                axis.set_xticks(sizes, [f"{size:.3g}" for size in sizes])
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.minorticks_off()
            column[-1].set_xlabel(LABELS[name])
        part = file.with_suffix(".part.png")
        figure.savefig(part)
    plt.close(figure)
    os.replace(part, file)


def part(name, sizes, seconds):
    """What a subprocess measures of the part `name`; it is ended a minute after `seconds`."""
    command = [sys.executable, "-m", "grpo_kit.workshop.growth", "--part", name, str(seconds), *map(str, sizes)]
    env = os.environ | ({"OMP_NUM_THREADS": str(sizes[0])} if name == "threads" else {})
    return bench.result(command, seconds + 60, env=env)


def curve(name):
    """A curve's points, and the sentences about those left out, as `points` gives them."""
    if name not in APART:
        return part(name, SIZES[name], SECONDS[name])
    found, start, end = [], 0.0, time.monotonic() + SECONDS[name]
    for size in SIZES[name]:
        began = time.monotonic()
        if found and (sentence := too_long(name, size, found[-1], end - began, start)):
            return found, [sentence]
        found += part(name, [size], end - began)[0]
        start = time.monotonic() - began - found[-1]["seconds"]
    return found, []


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)  # in a subprocess: name, seconds, sizes
    if arguments := parser.parse_args().part:
        # Here, where no model has a name: the libraries keep exceptions of their import, and with them the frames it was in.
        from grpo_kit import FastLanguageModel  # noqa: F401

        name, seconds, sizes = arguments[0], float(arguments[1]), [int(size) for size in arguments[2:]]
        alone = {"long run": lambda: long_run(seconds), "rounds": rounds}
        return print("\n" + json.dumps(alone[name]() if name in alone else points(name, sizes, seconds)))
    began, curves, left_out = time.monotonic(), {}, []
    print(f"{bench.machine()}\n{COMPLETIONS} completions of {LENGTH} tokens where they do not vary, medians of {STEPS} steps")
    for name in SIZES:
        curves[name], sentences = curve(name)
        left_out += sentences
        print("", curve_text(name, curves[name]), *sentences, sep="\n", flush=True)
    memory, after = (part(name, [], SECONDS[name]) for name in ("long run", "rounds"))
    judged = held(memory, after)
    print("", *(f"{'Holds' if holds else 'DOES NOT HOLD'}. {sentence}" for holds, sentence in judged), sep="\n")
    exponents = {name: {measure: exponent(points, measure) for measure in MEASURES} for name, points in curves.items()}
    results = {"seconds": time.monotonic() - began, "curves": curves, "exponents": exponents, "left out": left_out}
    results |= {"long run, GB": memory, "rounds": after}
    bench.save("growth.json", "python -m grpo_kit.workshop.growth", results)
    draw(curves, ROOT / "outputs/growth.png")
    print("drawn as outputs/growth.png")
    sys.exit(0 if all(holds for holds, _ in judged) else "See what does not hold, above.")


if __name__ == "__main__":
    main()
