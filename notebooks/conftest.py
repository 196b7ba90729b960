"""Pytest's settings for the tests and, through nbval, the notebooks. Its folder, which pytest puts on sys.path, holds grpo_kit."""

from collections import Counter

seconds = Counter()


def pytest_collectstart(collector):
    if collector.path.suffix == ".ipynb":
        collector.skip_compare += ("stderr",)  # warnings and progress bars differ from run to run


def pytest_runtest_logreport(report):
    seconds[report.nodeid.partition("::")[0]] += report.duration


def pytest_terminal_summary(terminalreporter):
    for path, spent in seconds.items():
        if path.endswith(".ipynb"):
            terminalreporter.write_line(f"{path}: {spent:.0f} s")
