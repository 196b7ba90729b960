"""`make test-robust`: bad input, interruption, networks and secrets tried in earnest, as a table: case, what was said, seconds.

    python -m grpo_kit.workshop.robust [pytest's arguments]        # make test-robust ARGS="-n0 notebooks/tests/test_network.py"

Runs the tests that are marked robust, and the tables of cases whose quick part `make test` runs too, on all cores, or those that
the arguments name. Interrupted, it prints what it has tried. Ends with a status that is not 0 if a case failed.
"""

import contextlib
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests"
MARKS = ("robust", "table")  # what runs only here; what `make test` runs too, a case a row


def files(folder=TESTS):
    """The test files that hold such tests."""
    return [file for file in sorted(folder.glob("test_*.py")) if any(f"pytest.mark.{mark}" in file.read_text("utf-8") for mark in MARKS)]


def table(report):
    """[(case, what was said, seconds)] of a JUnit report, in its order; a failed case says so."""
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None or not case.get("name"):  # the one that Ctrl-C ended has none
            continue
        said = [prop.get("value") for prop in case.iter("property") if prop.get("name") == "said"]
        failed = case.find("failure") is not None or case.find("error") is not None
        name = re.sub(r"^test_", "", case.get("name")).replace("_", " ")
        rows.append((name, "FAILED" if failed else " ".join(said) or "as it should", float(case.get("time"))))
    return rows


def main(arguments=()):
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, *"-m pytest --robust -q -p no:warnings -o junit_family=xunit1 -n auto --dist loadscope -m".split(), " or ".join(MARKS)]
        with subprocess.Popen([*command, f"--junitxml={report}", *(arguments or files())]) as tests:
            with contextlib.suppress(KeyboardInterrupt):  # which the tests get too, and end
                tests.wait()
        rows = table(report) if report.is_file() else []
    print(f"\n{'case':70} {'s':>6}  what was said")
    for name, said, seconds in rows:
        print(f"{name[:70]:70} {seconds:6.1f}  {said}")
    print(f"{len(rows)} cases in {(time.monotonic() - began) / 60:.0f} minutes")
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
