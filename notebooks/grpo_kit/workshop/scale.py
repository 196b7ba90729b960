"""GRPO in one, two and three processes, on one host and on two: `make scale`, which chapter 14 reads.

Measured with launch/train.py on the embedded model, without a GPU: how long a step takes and who waits, whether loss and gradient
depend on the number of processes and on FSDP2, what FSDP2 holds of the gradients, what a killed process leaves, and two hosts, played
by two network namespaces. A finished run is kept in outputs/scale/ and not run again, unless its settings have changed; `--again`
forgets them. At the end notebooks/results/scale.json is written; `--only PART` replaces one part of it. The timings want an idle machine; they come first, in about five minutes. The two hosts need
`ip`, `nsenter` and root; without them they are left out, and the result says so.

Expected, before it was run on an idle machine (2026-11-28): two processes with 12 completions each take 0.6 to 0.75 of the seconds of
one with 24; the model of machine/workers.py, fitted to 1 x 8, 1 x 24 and 2 x 8, foretells 1 x 16, 2 x 12, 2 x 16 and 2 x 24 within 10 %,
and says too little for 1 x 48. With two hosts: a kill on the second ends both launchers within 10 seconds; the same lines again end with
the adapter of a run on one host; with a disk each the second host finds no checkpoint, and both refuse to go on.
Expected of FSDP2, before it was run to the end: the gradient of one process but for rounding (below 1e-4 of its length); a run that was
killed ends with the hash of DDP's; a rank holds half of the weights; of the gradients all between two batches, half with `sync_each_batch`,
none after the update. Of threads: one process with two takes longer than two with one each, for generation uses a second thread badly.
"""

import argparse
import datetime
import hashlib
import importlib
import importlib.metadata as metadata
import json
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from safetensors.numpy import load_file

from grpo_kit.data.parquet import write_parquet
from grpo_kit.data.rows import make_dataset
from grpo_kit.machine.profile import choose_profile
from grpo_kit.training import launch
from .bench import machine
from .gpu_check import write
from .scale_hosts import hosts, train
from .step_cost import ROOT, SEED

FOLDER, RESULTS = ROOT / "notebooks/outputs/scale", ROOT / "notebooks/results/scale.json"
LOSSES = ["dapo", "grpo", "dr_grpo", "bnpo"]
COPIES, SHARES = "launch/accelerate/processes.yaml", "launch/accelerate/processes_fsdp2.yaml"
COMPARED = {  # processes, completions each, parts, accelerate's YAML
    "one process": (1, 24, 1, COPIES), "two processes": (2, 12, 1, COPIES), "two processes, FSDP2": (2, 12, 1, SHARES),
    "three processes": (3, 8, 1, COPIES), "one, in three parts": (1, 8, 3, COPIES)}
SETTINGS = {"losses": LOSSES, "optim": "sgd", "learning_rate": 10, "max_grad_norm": 0, "shuffle_dataset": False, "save_strategy": "no"}
STEPS, KILLED_AT = 5, 3
# (processes, completions of each): steps, of which the first warms up and is not counted; more where a step has few questions
TIMED = {(1, 8): 31, (1, 16): 21, (1, 24): 16, (1, 48): 11, (2, 8): 31, (2, 12): 21, (2, 16): 16, (2, 24): 11}


def command(name, processes, **settings):
    return launch.command(processes, dataset_name=FOLDER / "data", output_dir=FOLDER / name, **settings)


def launched(name, processes, **settings):
    """Runs launch/train.py by torchrun's own launcher, with processes that are forked after the imports are done; its ChildFailedError.

    FSDP2 by `accelerate launch` itself, as a reader would; LaunchFailed.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    words = command(name, processes, **settings)
    if SHARES in words:
        return launch.wait_for(launch.start(words, FOLDER / f"{name}.log"), FOLDER / f"{name}.log", FOLDER / name)
    config = LaunchConfig(1, 1, processes, run_id=name, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", max_restarts=0,
                          monitor_interval=0.2, start_method="fork")
    elastic_launch(config, train)(FOLDER / f"{name}.log", words[words.index("launch/train.py") + 1 :])


def run(name, processes, **settings):
    """{rank: lines} of a finished run; runs it where it has not been yet with these settings."""
    folder, done, asked = FOLDER / name, FOLDER / f"{name}.done", [*command(name, processes, **settings)[1:], sources()]
    if not done.exists() or json.loads(done.read_text())["command"] != asked:
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        launched(name, processes, **settings)
        write(done, {"seconds": round(time.monotonic() - began, 1), "command": asked})
    print(f"{name}: {json.loads(done.read_text())['seconds']} s", flush=True)
    return launch.rank_lines(folder)


def sources():
    """A hash of what decides a run beside its command: the model, the settings' YAML and the program."""
    files = [*sorted((ROOT / "data/tiny-model").glob("*.*")), *(ROOT / "notebooks" / name for name in ("launch/embedded.yaml", "launch/train.py", SHARES))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def distance(gradients, reference):
    """The length of the difference of two gradients as a share of the reference's."""
    assert gradients.keys() == reference.keys()
    squares = [(np.square(gradients[name] - tensor).sum(), np.square(tensor).sum()) for name, tensor in reference.items()]
    return float(np.sqrt(sum(one for one, _ in squares) / sum(two for _, two in squares)))


def equality():
    """{run: {loss type: {"loss", "difference of the loss", "difference of the gradient"}}}, all on the same 24 completions."""
    found, reference = {}, None
    for name, (processes, batch, rounds, machines) in COMPARED.items():
        slug = name.replace(",", "").replace(" ", "_")
        lines = run(slug, processes, machines=machines, rollouts=FOLDER / "rollouts.json", max_steps=len(LOSSES), per_device_train_batch_size=batch,
                    gradient_accumulation_steps=rounds, **SETTINGS)
        gradients = {loss: load_file(FOLDER / slug / f"gradient_{loss}.safetensors") for loss in LOSSES}
        losses = [float(np.mean([ranks[step]["loss"] for ranks in lines.values()])) for step in range(len(LOSSES))]
        reference = reference or (dict(zip(LOSSES, losses)), gradients)
        found[name] = {loss: {"loss": value, "difference of the loss": abs(value - reference[0][loss]),
                              "difference of the gradient": distance(gradients[loss], reference[1][loss])}
                       for loss, value in zip(LOSSES, losses)}
    return found


def parts(lines):
    """[{rank: [rollouts, training, waiting]}] of the steps after the first, in seconds by the clock."""
    return [{rank: [round(seconds, 3) for seconds in launch.split(steps[step])] for rank, steps in lines.items()}
            for step in range(1, min(map(len, lines.values())))]


def timed():
    """{"1 x 8": {rank: lines}}: processes x completions of each. The learning rate is 0, so that completions stay of one kind."""
    return {f"{processes} x {each}": run(f"timing_{processes}_{each}", processes, max_steps=steps, learning_rate=0,
                                         per_device_train_batch_size=each, save_strategy="no")
            for (processes, each), steps in TIMED.items()}


def timing(runs):
    """What chapter 14 reads of the `timed` runs: the seconds of their steps by the clock and of the processor.

    "timing": {run: [{rank: [rollouts, training, waiting]}]}; "work": {run: [rollouts, training]}, the processor's, and "longest": {run:
    tokens of a step's longest completion}, means over steps and ranks. On an idle machine clock and processor agree for one process.
    """
    work = {name: np.mean([launch.work(line) for steps in lines.values() for line in steps[1:]], axis=0).round(3).tolist() for name, lines in runs.items()}
    longest = {name: round(float(np.mean([line["longest"] for steps in lines.values() for line in steps[1:]])), 1) for name, lines in runs.items()}
    return {"timing": {name: parts(lines) for name, lines in runs.items()}, "work": work, "longest": longest}


def kill(folder, rank, step):
    """Waits until the rank has finished the step, and sends it signal 9: the moment of it."""
    while not (reached := [line["pid"] for line in launch.rank_lines(folder).get(rank, []) if line["step"] >= step]):
        time.sleep(0.05)
    os.kill(reached[0], signal.SIGKILL)
    return time.monotonic()


def undisturbed_run():
    return run("undisturbed", 2, max_steps=STEPS, per_device_train_batch_size=12)


def held():
    """{what: numbers that rank 0 holds under FSDP2} in a step of two batches."""
    found = {}
    for sync in (False, True):
        options = json.dumps({"gradient_accumulation_kwargs": {"sync_each_batch": sync}})
        [line] = run(f"held_{sync}", 2, machines=SHARES, max_steps=1, per_device_train_batch_size=6, gradient_accumulation_steps=2,
                     accelerator_config=options, save_strategy="no")[0]
        found[f"gradients after the first batch, sync_each_batch {sync}"], _, found["gradients after the update"] = line["gradients"]
    [alone] = run("held_alone", 1, max_steps=1, save_strategy="no")[0]
    return {"weights": line["holds"], **found, "one process": {"weights": alone["holds"], "gradients after the batch": alone["gradients"][0]}}


def threads():
    """{run: seconds of a step, the mean over steps after the first and over ranks}: what a second thread brings, and what a second process."""
    runs = {"1 process x 1 thread": (1, 1), "1 process x 2 threads": (1, 2), "2 processes x 1 thread": (2, 1)}
    lines = {name: run(f"threads_{processes}_{each}", processes, threads=each, max_steps=16, learning_rate=0, save_strategy="no",
                       per_device_train_batch_size=24 // processes) for name, (processes, each) in runs.items()}
    return {name: round(float(np.mean([line["seconds"] for steps in ranks.values() for line in steps[1:]])), 3) for name, ranks in lines.items()}


def killing(name="killed", **settings):
    """A run of two processes, and the same with rank 1 killed and started again: the sentence, and the adapters."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    undisturbed, folder, said = undisturbed_run(), FOLDER / name, FOLDER / f"{name}.said"
    if not said.exists():
        shutil.rmtree(folder, ignore_errors=True)
        (FOLDER / f"{name}.done").unlink(missing_ok=True)
        with ThreadPoolExecutor() as pool:
            killed = pool.submit(kill, folder, 1, KILLED_AT)
            try:
                launched(name, 2, max_steps=STEPS, per_device_train_batch_size=12, **settings)
            except (ChildFailedError, launch.LaunchFailed) as failed:
                sentence = launch.failure(str(failed), folder) if isinstance(failed, ChildFailedError) else str(failed)
                said.write_text(f"{time.monotonic() - killed.result():.1f}\n{sentence}")
    if not (FOLDER / f"{name}.done").exists():
        launched(name, 2, max_steps=STEPS, per_device_train_batch_size=12, **settings)  # the same again
        (FOLDER / f"{name}.done").write_text("resumed")
    resumed = launch.rank_lines(folder)
    seconds, _, sentence = said.read_text().partition("\n")
    hashes = {name: {rank: lines[-1]["adapter"] for rank, lines in ranks.items()} for name, ranks in
              {"undisturbed": undisturbed, "killed and resumed": resumed}.items()}
    return {"sentence": sentence, "seconds until all had ended": float(seconds), "adapters": hashes,
            "steps": {rank: [line["step"] for line in lines] for rank, lines in resumed.items()}}


def table(results):
    """What was measured, as text: the equality table, then the timing table."""
    lines = [f"{'the same 24 completions':26}" + "".join(f"{loss:>22}" for loss in LOSSES), f"{'':26}" + f"{'loss      gradient':>22}" * 4]
    for name, losses in results["equality"].items():
        cells = [f"{one['loss']:+.6f}  {one['difference of the gradient']:.1e}" for one in losses.values()]
        lines.append(f"{name:26}" + "".join(f"{cell:>22}" for cell in cells))
    lines += ["(gradient: length of the difference from one process's, as a share of its length)", "",
              f"{'processes x completions':26}{'rollouts':>10}{'training':>10}{'waiting':>10}{'a step':>10}   seconds, mean over steps and ranks"]
    for name, steps in results["timing"].items():
        mean = np.mean([list(step.values()) for step in steps], axis=(0, 1))
        lines.append(f"{name:26}" + "".join(f"{seconds:10.2f}" for seconds in (*mean, mean.sum())))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m grpo_kit.workshop.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="run everything anew")
    parts = {"timing": lambda: timing(timed()), "equality": lambda: {"equality": equality()}, "killing": lambda: {"killing": killing()},
             "fsdp2": lambda: {"fsdp2": held() | {"killing": killing("killed_fsdp2", machines=SHARES)}},
             "threads": lambda: {"threads": threads()}, "hosts": lambda: {"two hosts": hosts(FOLDER, KILLED_AT, undisturbed_run()[0])}}
    parser.add_argument("--only", nargs="+", choices=parts, metavar="PART", help=f"only these parts of {', '.join(parts)}; the others stay as they are stored")
    options = parser.parse_args()
    if options.again:
        shutil.rmtree(FOLDER, ignore_errors=True)
    os.chdir(ROOT / "notebooks")
    sys.path.insert(0, "launch")
    importlib.import_module("train")  # launch/train.py, before what would import vLLM
    from transformers import AutoTokenizer

    profile = choose_profile(data="embedded", model="../data/tiny-model")
    if not (FOLDER / "data").exists():
        write_parquet(make_dataset(profile, "train", AutoTokenizer.from_pretrained(profile.model)), "embedded", "train", FOLDER / "data")
    results = json.loads(RESULTS.read_text("utf-8")) if options.only else {}
    for name in options.only or parts:
        results |= parts[name]()
    versions = {name: metadata.version(name) for name in ("torch", "accelerate", "transformers", "trl", "peft")}
    header = {"machine": machine(), "date": datetime.date.today().isoformat(), "seed": SEED, "command": "make scale", "versions": versions}
    write(RESULTS, header | results | header)
    print(f"\n{table(results)}\n\n{results['killing']['sentence']}\n{results.get('fsdp2')}\n{results.get('threads')}\n{results['two hosts']}\n\nsaved as {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
