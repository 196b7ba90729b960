"""Two hosts on one machine: two network namespaces with a cable between them, for `scale`."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from grpo_kit.training import launch
from .gpu_check import write

HOSTS = ("10.77.0.1", "10.77.0.2")
PATIENCE, WATCHED = 20, 60  # seconds: ddp_timeout of the runs whose cable is cut, and how long they are watched


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


def watch(alive, limit=WATCHED):
    """{"rank 0": seconds until it ended} of those that end within `limit` seconds; `alive`: a function a rank, whether it still runs."""
    began, ended = time.monotonic(), {}
    while len(ended) < len(alive) and time.monotonic() - began < limit:
        ended |= {f"rank {rank}": round(time.monotonic() - began, 1) for rank, runs in enumerate(alive) if f"rank {rank}" not in ended and not runs()}
        time.sleep(0.05)
    return ended


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
        ended = watch([process.is_alive for process in context.processes])
        for process in context.processes:
            process.kill()
    said = {f"rank {rank}": launch.first_error((outputs / f"{folder.name}_{rank}.log").read_text(errors="replace")) for rank in (0, 1)}
    lines = launch.rank_lines(folder)
    last = {f"rank {rank}": [round(steps[-1]["seconds"], 1), round(steps[-1]["cpu"], 1)] for rank, steps in lines.items()}
    return lines, {"last whole step, seconds by the clock and of the processor": last,
                   "seconds until it ended": ended or f"none ended in {WATCHED} s", "its error": said}


def started(outputs, names, folders, **settings):
    """launch/hosts.sh on each of the two hosts, as one would type it there: the running launchers. `folders`: each host's output_dir."""
    launchers = []
    for rank, (name, folder) in enumerate(zip(names, folders)):
        words = launch.command(1, **{name: os.path.relpath(path) for name, path in {"dataset_name": outputs / "data", "output_dir": folder}.items()}, **settings)
        there = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": name, "GPUS": "1",
                 "CONFIG": "launch/embedded.yaml", "MACHINES": "launch/accelerate/processes.yaml"}
        line = ["bash", "launch/hosts.sh", "2", str(rank), HOSTS[0], *words[words.index("launch/embedded.yaml") + 1 :]]
        launchers.append(launch.start(["env", *(f"{key}={value}" for key, value in there.items()), *line], logs(folders)[rank],
                                      prefix=("nsenter", f"--net=/var/run/netns/{name}")))
    return launchers


def logs(folders):
    """The file of each host's launcher, beside its output_dir."""
    return [folder.with_name(f"{folder.name}_host_{rank + 1}.log") for rank, folder in enumerate(folders)]


def killed(outputs, step, folders, **settings):
    """Two launchers, of which the second loses its process after `step` steps, and the same two lines again: how both end, and what is kept."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    with two_hosts() as names:
        launchers = started(outputs, names, folders, **settings)
        try:
            os.kill(launch.wait_for_step(folders[1], 1, step, launchers[1]), signal.SIGKILL)
            first = watch([lambda process=process: process.poll() is None for process in launchers])
            said = {"rank 0": launch.first_error(logs(folders)[0].read_text(errors="replace")),
                    "rank 1": launch.failure(logs(folders)[1].read_text(errors="replace"), folders[1])}
            kept = {f"host {rank + 1}": sorted(str(file.relative_to(folder)) for file in folder.glob("checkpoint-*/*")) for rank, folder in enumerate(folders)}
            for process in launchers:
                launch.end(process, folders[0])
            launchers = started(outputs, names, folders, **settings)
            again = watch([lambda process=process: process.poll() is None for process in launchers], limit=300)
        finally:
            for process in launchers:
                launch.end(process, folders[0])
    errors = [launch.first_error(log.read_text(errors="replace")) for log in logs(folders)]
    lines = [launch.rank_lines(folder).get(rank, []) for rank, folder in enumerate(folders)]
    return {"seconds until its launcher ended": first, "said": said,
            "kept": kept, "the same lines again": {"seconds": again, "errors": errors, "steps": [[line["step"] for line in steps] for steps in lines],
                                                   "adapters": [steps[-1]["adapter"] for steps in lines if steps]}}


def hosts(outputs, step, alone):
    """A process on each of two hosts: the cable is cut, twice; a process is killed, with one disk for both and with one each.

    `alone`: the lines of a run on one host with the same settings. What is finished is kept in `outputs`/hosts.json, part by part.
    """
    file, settings = outputs / "hosts.json", {"max_steps": len(alone), "per_device_train_batch_size": 12}
    found = json.loads(file.read_text()) if file.exists() else {}
    found |= {"addresses": HOSTS, "ddp_timeout": PATIENCE, "watched": WATCHED, "adapters of one host": [line["adapter"] for line in alone]}
    found.pop("not run", None)
    parts = {"left as transformers sets it": lambda: cut(outputs, step, leave=True), "handed on by train.py": lambda: cut(outputs, step, leave=False),
             "a kill, one disk": lambda: killed(outputs, step, [outputs / "one_disk"] * 2, **settings),
             "a kill, two disks": lambda: killed(outputs, step, [outputs / "disk_1", outputs / "disk_2"], **settings)}
    for name, part in parts.items():
        if name not in found:
            try:
                result = part()
            except OSError as error:
                found = {"not run": f"This machine allows no network namespaces ({error})."}
                break
            if name == "handed on by train.py":
                lines, result = result
                found["adapters by rank"] = [lines[rank][step - 1]["adapter"] for rank in lines]
            found[name] = result[1] if isinstance(result, tuple) else result
            write(file, found)
            print(f"two hosts, {name}: done", flush=True)
    return found
