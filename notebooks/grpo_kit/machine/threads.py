"""As many threads as there are free cores: a busy neighbour must not cost a training more than the core that it takes.

A training step is thousands of small parallel regions, and each waits for its slowest thread. Where another process
takes a core away, a thread more is slower than a thread less, and libgomp's threads, which spin at the end of a region,
take from the one that is waited for. So `prepare` shortens the spinning, and `adapt` lowers the number of threads while
others use the cores. Neither changes a result: MKL is told to compute the same bits with any number of threads, and
`adapt` does nothing where a trial at its first call shows that it does not.
"""

import contextlib
import glob
import os
import sys
import time
import warnings
from functools import cache
from pathlib import Path

SPINCOUNT = "500"  # turns of libgomp's waiting loop; its own default is 300,000
INTERVAL = 0.3  # seconds between two looks at the threads
OLD = 10  # seconds after which a look says nothing about now
TOO_LONG = 0.25  # seconds of waiting a second, of all threads together: a busy neighbour made it 0.5 in a trial
PAUSE = 2  # seconds before a thread more is tried
_count = None


def quota(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """The CPU seconds a second that this process's control groups allow, a float; infinity where none limits it."""
    root, own = Path(root), Path(own)
    lines = own.read_text().splitlines() if own.is_file() else []
    groups = [root / line[len("0::/") :] for line in lines if line.startswith("0::/")]  # version 2
    groups = [folder for group in groups or [root] for folder in (group, *group.parents) if folder.is_relative_to(root)]
    limits = [(group / "cpu.max").read_text().split() for group in groups if (group / "cpu.max").is_file()]
    version_1 = [root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
    if all(file.is_file() for file in version_1):
        limits.append([file.read_text().strip() for file in version_1])
    allowed = [int(limit) / int(period) for limit, period in limits if limit not in ("max", "-1")]
    return min(allowed, default=float("inf"))


@cache
def cores():
    """How many cores this process may use at once, by its affinity and its quota; at least 1."""
    return max(1, int(min(len(os.sched_getaffinity(0)), quota())))


def share():
    """How many threads a program started from here should use: OMP_NUM_THREADS where it is set, or all `cores`."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())


def prepare():
    """Sets what libgomp and MKL read while they are loaded; what the reader has set already is kept.

    Where torch was loaded before, it is too late, and a sentence says so.
    """
    wanted = {"GOMP_SPINCOUNT": SPINCOUNT}
    if quota() < len(os.sched_getaffinity(0)):  # libgomp knows the affinity, not the quota
        wanted["OMP_NUM_THREADS"] = str(cores())
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "GenuineIntel" in flags:
        wanted["MKL_CBWR"] = f"{'AVX512' if 'avx512dq' in flags else 'AVX2'},STRICT"
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    torch = sys.modules.get("torch")
    if missing and torch and not torch.cuda.is_available():
        settings = " ".join(f"{name}={value}" for name, value in missing.items())
        warnings.warn(
            "torch was imported before grpo_kit, so that a busy neighbour will slow a training several times over: "
            f"import grpo_kit first, or set {settings} before Python starts.",
            stacklevel=2,
        )
    os.environ.update(missing)


def _waited():
    """Seconds that the threads of this process have been ready to compute and had no core, all together."""
    fields = []
    for file in glob.glob("/proc/self/task/*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            fields.append(Path(file).read_text().split())
    return sum(int(nanoseconds) for _, nanoseconds, _ in fields) / 1e9


@cache
def _most():
    """The number of threads at first, or 0 where fewer of them would change the bits of a product."""
    import torch

    threads, same = min(torch.get_num_threads(), cores()), True
    generator = torch.Generator().manual_seed(0)
    for m, k, n in ((16, 2048, 256), (256, 2048, 16), (64, 256, 256)):  # long sums, as in the gradient of an adapter
        a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
        torch.set_num_threads(1)
        one = a @ b
        torch.set_num_threads(threads)
        same &= torch.equal(one, a @ b)
    return threads if same else 0


class ThreadCount:
    """Chooses the number of threads, 1 to `most`, from how long they wait for cores; starts with `most`.

    A thread less where they wait, a thread more on trial where they do not: after PAUSE seconds, and after twice as
    long each time that a trial fails, up to a minute.
    """

    def __init__(self, most, now, waited):
        self.most = self.threads = most
        self.pause, self.changed, self.last = PAUSE, now, (now, waited)

    def look(self, now, waited):
        """The number of threads from now on; `waited` as `_waited` gives it, both in seconds."""
        seconds, share = now - self.last[0], (waited - self.last[1]) / (now - self.last[0])
        self.last = now, waited
        if seconds > OLD:  # between two cells, say: an average over that time says nothing about now
            return self.threads
        if share > TOO_LONG:
            failed = now - self.changed < 3 * INTERVAL and self.threads > 1
            self.pause = min(2 * self.pause, 60) if failed else PAUSE
            self.threads, self.changed = max(1, self.threads - max(1, round(share))), now
        elif self.threads < self.most and now - self.changed > self.pause:
            self.threads, self.changed = self.threads + 1, now
        return self.threads


def adapt():
    """Sets torch's threads to as many as find a core; cheap enough for every token."""
    global _count
    now = time.monotonic()
    if _count and now - _count.last[0] < INTERVAL or _most() < 2:
        return
    if _count is None:
        _count = ThreadCount(_most(), now, _waited())
        return
    import torch

    threads = _count.look(now, _waited())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
