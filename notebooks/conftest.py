"""Pytest's settings for the tests and, through nbval, the notebooks. Its folder, which pytest puts on sys.path, holds grpo_kit."""

import os
from collections import Counter

import pytest
from hypothesis import settings

from grpo_kit.machine.packages import nvidia_gpu
from grpo_kit.machine.spare import available_memory
from grpo_kit.machine.threads import cores

WORKER_BYTES = 4e9  # for the largest notebook
seconds = Counter()
settings.register_profile("untimed", deadline=None)  # a busy machine takes longer than hypothesis's 200 ms
settings.load_profile("untimed")


def pytest_xdist_auto_num_workers():
    """How many workers `-n auto` means: one a core, as far as the memory goes; a single one where they would share a GPU."""
    if nvidia_gpu():
        return 1
    return max(1, min(cores(), int(available_memory() // WORKER_BYTES)))


def pytest_xdist_setupnodes(specs):
    """Before the workers start: their share of the cores, which they and the kernels that they start inherit."""
    if len(specs) > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // len(specs)))


def pytest_addoption(parser):
    parser.addoption("--robust", action="store_true", help="run the slow tests of bad input and interruption too (make test-robust)")


def pytest_configure(config):
    config.addinivalue_line("markers", "robust: slow; runs only with --robust")
    config.addinivalue_line("markers", "table: a case of the table that make test-robust prints; it says what was said by record_property")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("robust") and not config.getoption("robust"):
            item.add_marker(pytest.mark.skip(reason="runs in make test-robust"))


def pytest_collectstart(collector):
    if collector.path.suffix == ".ipynb":
        collector.skip_compare += ("stderr",)  # warnings and progress bars differ from run to run


@pytest.hookimpl(trylast=True)  # after the terminal, which is to show the failure
def pytest_runtest_logreport(report):
    """Counts the seconds; with -x, a worker's failure ends the others too, whom xdist would let finish their notebooks."""
    seconds[report.nodeid.partition("::")[0]] += report.duration
    if report.failed and hasattr(report, "node") and report.node.config.getoption("maxfail") == 1:
        raise pytest.Session.Failed(f"{report.nodeid} failed")


def pytest_terminal_summary(terminalreporter):
    for path, spent in seconds.items():
        if path.endswith(".ipynb"):
            terminalreporter.write_line(f"{path}: {spent:.0f} s")


@pytest.fixture
def all_cores():
    """Torch with a thread a core, also in a worker that has a share of them; gives their number, 2 or more."""
    import torch

    from grpo_kit.machine import threads

    before = torch.get_num_threads()
    torch.set_num_threads(threads.cores())
    threads._most.cache_clear()
    if threads._most() < 2:
        pytest.skip("one core, or products whose bits depend on the number of threads, which then stays as it is")
    yield threads._most()
    torch.set_num_threads(before)
    threads._most.cache_clear()
    threads._count = None
