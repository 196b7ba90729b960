"""Starting launch/train.py in several processes, and reading what they wrote; chapter 14 and `make scale` do."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from .resume import checkpoints, read_log

NOTEBOOKS = Path(__file__).resolve().parents[2]
WAITING = ("others' rollouts", "gradients")  # the parts of a step in which a process only waits, or sends


class LaunchFailed(RuntimeError):
    """A run whose processes did not all end well; its text is one sentence that names the first to fail."""

    def _render_traceback_(self):
        return [str(self)]


def command(processes, config="launch/embedded.yaml", machines="launch/accelerate/processes.yaml", **settings):
    """The command line, a list, for so many processes. `settings` replace the YAML's; `machines`: accelerate's YAML."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", machines]
    values = {name: value if isinstance(value, (list, tuple)) else [value] for name, value in settings.items()}
    options = [str(word) for name, words in values.items() for word in (f"--{name}", *words)]
    return [*accelerate, "--num_processes", str(processes), "launch/train.py", "--config", config, *options]


def start(words, log, prefix=()):
    """The running launcher, a Popen in a process group of its own, in notebooks/; what it and its processes say goes to the file `log`."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | os.environ  # a thread each, unless told otherwise
    with open(log, "w") as file:
        return subprocess.Popen([*prefix, *words], cwd=NOTEBOOKS, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def end(process, folder):
    """Ends a launcher and the processes that it started, who would outlive it if it were killed itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)  # a script's own children too
    try:
        process.wait(timeout=40)  # it gives its processes 30 seconds
    except subprocess.TimeoutExpired:
        process.kill()
        for lines in rank_lines(folder).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(lines[-1]["pid"], signal.SIGKILL)


def wait_for(process, log, folder):
    """Waits for the launcher. LaunchFailed, with one sentence, where a process failed; `folder` is the run's output_dir."""
    try:
        status = process.wait()
    except BaseException:  # an interrupted cell leaves no training behind
        end(process, folder)
        raise
    if status != 0:
        raise LaunchFailed(failure(Path(log).read_text(errors="replace"), folder))


def failure(log, folder):
    """The sentence: who ended first and of what, after which step, and where the same command will go on."""
    first = log.partition("Root Cause")[2]  # torchrun's table
    found = re.search(r"rank\s*: (\d+) .*?exitcode\s*: (-?\d+) \(pid: (\d+)\)", first, re.S)
    if not found:
        return "The launcher failed before its processes began: " + (log.strip().splitlines() or ["it said nothing."])[-1]
    rank, status, pid = found.groups()
    why = f"was ended by signal {status[1:]}" if status.startswith("-") else f"failed: {first_error(log) or f'status {status}'}"
    done = [line["step"] for line in rank_lines(folder).get(int(rank), [])]
    last = [step for step, _ in checkpoints(folder)]
    on = f"the same command goes on from the checkpoint of step {last[-1]}" if last else "there is no checkpoint yet, so it begins anew"
    return f"Rank {rank} (process {pid}) {why} after step {done[-1] if done else 0}, and the launcher ended the others: {on}."


def first_error(log):
    """The first line of a log that ends a Python traceback, or ""."""
    errors = re.findall(r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*)$", log, re.M)
    return errors[0] if errors else ""


def rank_lines(folder):
    """{rank: the lines that it wrote, a step each} of a run's folder."""
    files = sorted(Path(folder).glob("rank_*.jsonl"), key=lambda file: int(file.stem[5:]))
    return {int(file.stem[5:]): read_log(file) for file in files}


def wait_for_step(folder, rank, step, process, seconds=600):
    """The pid of a rank once it has finished `step`; RuntimeError where the run ends, or the time is over, before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if reached := [line for line in rank_lines(folder).get(rank, []) if line["step"] >= step]:
            return reached[0]["pid"]
        time.sleep(0.05)
    raise RuntimeError(f"Rank {rank} did not reach step {step} in {folder}: see the log of the run.")


def split(line):
    """(rollouts, training, waiting): the seconds of one step of one rank.

    Gradients travel while the backward pass still runs, so only what they take after the last part of them was ready is waiting.
    """
    spans = {name: [part[1:] for part in line["parts"] if part[0] == name] for name in ("rollouts", *WAITING)}
    rollouts = sum(end - began for began, end, _ in spans["rollouts"])
    others = sum(end - began for began, end, _ in spans["others' rollouts"])
    gradients = max((end for _, end, _ in spans["gradients"]), default=0) - max((began for began, _, _ in spans["gradients"]), default=0)
    return rollouts, line["seconds"] - rollouts - others - gradients, others + gradients


def work(line):
    """(rollouts, training): the seconds that the processor worked in one step of one rank, however busy it was with others."""
    rollouts = sum(cpu for name, _, _, cpu in line["parts"] if name == "rollouts")
    return rollouts, line["cpu"] - rollouts
