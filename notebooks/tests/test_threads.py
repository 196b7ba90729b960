"""The number of threads: what limits it, what is set before torch loads, and how it follows the free cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grpo_kit.machine import threads

NOTEBOOKS = Path(__file__).resolve().parents[1]
TORCH_FIRST = "import torch, warnings; warnings.simplefilter('error'); import grpo_kit"
UNSET = {name: "" for name in ("GOMP_SPINCOUNT", "MKL_CBWR", "OMP_NUM_THREADS")}


def python(source, **settings):
    """Runs `source` in a Python of its own, without what this one has set."""
    env = {name: value for name, value in os.environ.items() if name not in UNSET} | settings
    return subprocess.run([sys.executable, "-c", source], cwd=NOTEBOOKS, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("files, own, right", [
    ({}, "", float("inf")),
    ({"cpu.max": "max 100000"}, "0::/", float("inf")),
    ({"cpu.max": "250000 100000"}, "0::/", 2.5),
    ({"cpu.max": "150000 100000"}, "0::/../other", 1.5),
    ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 4.0),
    ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
    ({"c/cpu.max": "50000 100000"}, "0::/a/b", float("inf")),
    ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", 3.0),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", float("inf")),
])
def test_the_quota_of_a_container(tmp_path, files, own, right):
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert threads.quota(tmp_path / "root", tmp_path / "own") == right


@pytest.mark.parametrize("allowed, limit, right", [({0, 3}, float("inf"), 2), ({0, 1, 2, 3}, 2.5, 2), ({0}, 8.0, 1), ({0, 1}, 0.5, 1)])
def test_cores_are_those_of_the_affinity_and_of_the_quota(monkeypatch, allowed, limit, right):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    monkeypatch.setattr(threads, "quota", lambda: limit)
    assert threads.cores.__wrapped__() == right


def test_importing_the_kit_sets_what_is_read_while_torch_loads():
    source = "import grpo_kit, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    assert python(source).stdout.split() == [threads.SPINCOUNT, "False"]


def test_what_the_reader_has_set_is_kept():
    assert python("import grpo_kit, os; print(os.environ['GOMP_SPINCOUNT'])", GOMP_SPINCOUNT="7").stdout.split() == ["7"]


def test_too_late_is_said_in_a_sentence():
    run = python(TORCH_FIRST)
    assert run.returncode == 1 and "import grpo_kit first, or set GOMP_SPINCOUNT=" in run.stderr
    assert python(TORCH_FIRST, GOMP_SPINCOUNT="0", MKL_CBWR="AVX2,STRICT", OMP_NUM_THREADS="1").returncode == 0


def test_libgomp_learns_of_a_quota(monkeypatch):
    monkeypatch.setattr(threads, "quota", lambda: 1.5)
    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "environ", dict(UNSET, GOMP_SPINCOUNT="0", MKL_CBWR="AVX2,STRICT"))
    del os.environ["OMP_NUM_THREADS"]
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    threads.prepare()
    assert os.environ["OMP_NUM_THREADS"] == "1"


class Neighbours:
    """A clock with which threads wait as long as a neighbour makes them, `waiting` of each second while more than one."""

    def __init__(self, most):
        self.now = self.waited = 0.0
        self.count = threads.ThreadCount(most, 0.0, 0.0)

    def go(self, seconds, waiting):
        counts = []
        for _ in range(round(seconds / threads.INTERVAL)):
            self.now += threads.INTERVAL
            self.waited += threads.INTERVAL * (waiting if self.count.threads > 1 else 0.0)
            counts.append(self.count.look(self.now, self.waited))
        return counts


def test_all_threads_where_nobody_else_computes():
    assert set(Neighbours(4).go(60, waiting=0.05)) == {4}


def test_a_thread_less_beside_a_neighbour_and_one_more_when_it_has_gone():
    machine = Neighbours(2)
    machine.go(3, waiting=0.0)
    beside = machine.go(120, waiting=0.6)
    assert beside[0] == 1 and sum(count == 2 for count in beside) < 0.03 * len(beside)  # trials grow rarer
    assert machine.go(70, waiting=0.0)[-1] == 2
    assert set(machine.go(30, waiting=0.0)) == {2}


def test_many_waiting_threads_go_at_once_and_one_always_stays():
    assert Neighbours(8).go(0.3, waiting=3.2) == [5]
    assert Neighbours(2).go(0.3, waiting=9.0) == [1]


def test_a_pause_between_two_cells_is_no_neighbour():
    count = threads.ThreadCount(2, 0.0, 0.0)
    assert count.look(threads.OLD + 1, 20.0) == 2


def test_threads_give_way_to_busy_processes(all_cores):
    import torch

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(all_cores)]
    try:
        x, end = torch.randn(512, 512), time.monotonic() + 60
        while torch.get_num_threads() > 1 and time.monotonic() < end:
            x @ x
            threads.adapt()
        assert torch.get_num_threads() == 1
    finally:
        for process in busy:
            process.kill()
