"""Two hosts on one machine: two network namespaces with a cable between them, for `scale`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback

from grpo_kit.training import launch
from .gpu_check import write

HOSTS = ("10.77.0.1", "10.77.0.2")
PATIENCE, WATCHED = 30, 120  # seconds: ddp_timeout of the runs whose cable is cut, and how long they are watched


def said_to(log):
    """Sends what this process and its libraries say to the file `log`."""
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def train(log, words):
    """One process of a run: launch/train.py, whose imports are done."""
    said_to(log)
    sys.modules["train"].main(words)


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_hosts():
    """Two network namespaces, each with an address of `HOSTS`, a cable between them and nothing else. OSError where that is not allowed."""
    names = ("grpo1", "grpo2")
    try:
        ip("link", "add", "grpo1", "type", "veth", "peer", "name", "grpo2")
        for name, address in zip(names, HOSTS):
            ip("netns", "add", name)
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            for device in (name, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for words in (["netns", "del", "grpo1"], ["netns", "del", "grpo2"], ["link", "del", "grpo1"]):
            subprocess.run(["ip", *words], capture_output=True)


def on_host(rank, names, port, log, words):
    """A process that moves to its host, and is told by hand what a launcher would tell it."""
    import ctypes

    with open(f"/var/run/netns/{names[rank]}") as host:
        if ctypes.CDLL(None, use_errno=True).setns(host.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="1", MASTER_ADDR=HOSTS[0], MASTER_PORT=str(port),
                      GLOO_SOCKET_IFNAME=names[rank])
    try:
        train(f"{log}_{rank}.log", words)
    except Exception:
        traceback.print_exc()  # torch keeps it to itself
        raise


def cut(outputs, step, leave):
    """Two processes on two hosts that are cut apart after `step` steps: {rank: its lines}, and how and when each process ended.

    `leave`: with the patience that transformers leaves the processes on a CPU, and not the `PATIENCE` that `ddp_timeout` asks for.
    """
    import torch.multiprocessing

    folder = outputs / f"hosts_{'left' if leave else 'handed_on'}"
    shutil.rmtree(folder, ignore_errors=True)
    words = launch.command(2, dataset_name=outputs / "data", output_dir=folder, max_steps=100, per_device_train_batch_size=12,
                           ddp_timeout=PATIENCE, leave_timeout=leave)
    with two_hosts() as names:
        context = torch.multiprocessing.start_processes(on_host, (names, 29500, folder, words[words.index("launch/train.py") + 1 :]), 2,
                                                        join=False, start_method="fork")
        while any(len(launch.rank_lines(folder).get(rank, [])) < step for rank in (0, 1)):
            if not all(process.is_alive() for process in context.processes):
                raise RuntimeError(f"A process ended before the cable was cut: see {folder}_0.log and {folder}_1.log.")
            time.sleep(0.05)
        ip("-n", names[1], "link", "set", names[1], "down")
        began, ended = time.monotonic(), {}
        while len(ended) < 2 and time.monotonic() - began < WATCHED:
            ended |= {f"rank {rank}": round(time.monotonic() - began, 1) for rank, process in enumerate(context.processes)
                      if f"rank {rank}" not in ended and not process.is_alive()}
            time.sleep(0.05)
        for process in context.processes:
            process.kill()
    said = {f"rank {rank}": launch.first_error((outputs / f"{folder.name}_{rank}.log").read_text(errors="replace")) for rank in (0, 1)}
    lines = launch.rank_lines(folder)
    last = {f"rank {rank}": [round(steps[-1]["seconds"], 1), round(steps[-1]["cpu"], 1)] for rank, steps in lines.items()}
    return lines, {"last whole step, seconds by the clock and of the processor": last,
                   "seconds until it ended": ended or f"none ended in {WATCHED} s", "its error": said}


def hosts(outputs, step, alone):
    """A process on each of two hosts: the adapters after so many steps; then the cable is cut, twice, and how each process ends, and when.

    `alone`: the lines of a run on one host with the same settings. A finished result is kept in `outputs`/hosts.json.
    """
    file = outputs / "hosts.json"
    if not file.exists():
        try:
            lines, left = cut(outputs, step, leave=True)
            lines, handed_on = cut(outputs, step, leave=False)
            found = {"addresses": HOSTS, "adapters by rank": [lines[rank][step - 1]["adapter"] for rank in lines],
                     "adapter of one host": alone[step - 1]["adapter"], "ddp_timeout": PATIENCE, "left as transformers sets it": left,
                     "handed on by train.py": handed_on}
        except OSError as error:
            found = {"not run": f"This machine allows no network namespaces ({error})."}
        write(file, found)
    return json.loads(file.read_text())
