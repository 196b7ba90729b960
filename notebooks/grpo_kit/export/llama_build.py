"""Builds llama.cpp from the source inside the PyPI package llama-cpp-python, where Unsloth's exporter looks for it.

    python -m grpo_kit.export.llama_build        # `make llama.cpp`; chapter 07 does the same

One build serves two. Unsloth's exporter finds its converter and `llama-quantize` in ~/.unsloth/llama.cpp (or
UNSLOTH_LLAMA_CPP_PATH). Beside it, in ~/.unsloth/llama-cpp-python, lies llama-cpp-python itself, which runs GGUF files
from Python, with llama.cpp's own package gguf, which reads them. A second call does nothing, and an llama.cpp that
Unsloth installed itself, which needs GitHub, stays as it is.

The environment variable CMAKE_ARGS adds options to the build, as for llama-cpp-python: -DGGML_CUDA=ON, for one.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from grpo_kit.machine.paths import short
from grpo_kit.machine.threads import share

LLAMA_SOURCE = "llama-cpp-python==0.3.36"
LLAMA_NEEDS = ["diskcache==5.6.3"]  # what llama-cpp-python imports beside this repository's packages
CMAKE_OPTIONS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",  # llama-quantize and Python share one libllama, so it is compiled once
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",  # and find it beside them, wherever the folder is moved
    # Not for this very processor but for any with AVX2: a home folder is often shared by machines, and a library
    # built for the newest of them would kill Python on the others.
    "-DGGML_NATIVE=OFF",
    *(f"-DLLAMA_{part}=OFF" for part in "ALL_WARNINGS BUILD_APP BUILD_EXAMPLES BUILD_SERVER BUILD_TESTS OPENSSL".split()),
]
UNUSED_FOLDERS = set("benches ci docs examples media models scripts tests".split())  # of the source: half its size
KEPT_FILES = "LICENSE common conversion convert_hf_to_gguf.py convert_lora_to_gguf.py ggml gguf-py include src".split()
BUILD_MB = 500


class BuildError(RuntimeError):
    """Why llama.cpp could not be built, in one sentence."""


def places():
    """(folder of Unsloth's exporter, folder of the Python packages beside it); each may be absent."""
    exporter = Path(os.environ.get("UNSLOTH_LLAMA_CPP_PATH") or Path.home() / ".unsloth/llama.cpp").absolute()
    return exporter, exporter.with_name("llama-cpp-python")


def _stamp():
    return " ".join([LLAMA_SOURCE, *LLAMA_NEEDS, *CMAKE_OPTIONS, os.environ.get("CMAKE_ARGS", "")])


def is_built():
    """Whether exporter and packages are here, made with these options; the stamp is written last."""
    exporter, packages = places()
    stamp = packages / "build-stamp"
    return _quantizes(exporter) and stamp.is_file() and stamp.read_text() == _stamp()


def _quantizes(exporter):
    """Whether there is an llama.cpp in `exporter` that can be used, ours or Unsloth's."""
    quantizer, converter = exporter / "llama-quantize", exporter / "convert_hf_to_gguf.py"
    with contextlib.suppress(OSError):
        return converter.is_file() and "usage" in subprocess.run([quantizer, "--help"], capture_output=True, text=True).stdout
    return False


def build_llama_cpp():
    """Build llama.cpp unless it is built, and say what is done and how far it is. BuildError, one sentence, if it cannot be.

    Takes about 3 minutes on two cores and 77 MB from the package index; nothing half-built is left behind.
    """
    exporter, packages = places()
    if is_built():
        print(f"llama.cpp is built: {short(exporter)} and {short(packages)}")
        return
    exporter.parent.mkdir(parents=True, exist_ok=True)
    with open(exporter.with_name(".llama.cpp-build-lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second builder waits here, and then finds it built
        if is_built():
            return
        for leftover in exporter.parent.glob(".llama.cpp-building-*"):
            shutil.rmtree(leftover)  # of a build that was killed
        _check_machine(exporter.parent)
        with tempfile.TemporaryDirectory(dir=exporter.parent, prefix=".llama.cpp-building-") as work:
            _build(Path(work), exporter, packages)


def _check_machine(folder):
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        raise BuildError("llama.cpp needs a C++ compiler and there is none here: install one (on Debian: apt install g++).")
    free = shutil.disk_usage(folder).free // 10**6
    if free < BUILD_MB:
        raise BuildError(f"{short(folder)} has {free} MB free and building llama.cpp takes {BUILD_MB}: free some and try again.")
    flags = Path("/proc/cpuinfo")
    if os.uname().machine == "x86_64" and flags.exists() and " avx2 " not in flags.read_text():
        raise BuildError("llama.cpp is built for processors with AVX2, which this one lacks: use another machine.")


def _run(command, failure, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        reason = next((line for line in reversed(done.stdout.splitlines()) if "error" in line.lower()), "no reason was given")
        raise BuildError(f"{failure} ({reason.strip()[:200]}).")


def _build(work, exporter, packages):
    began = time.monotonic()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    remedy = "check the network or pip's index configuration and try again"
    print(f"1/3 fetching the source, {LLAMA_SOURCE} (77 MB), from the package index", flush=True)
    # pip also asks the package for its name, which takes it a while, in silence.
    _run([*pip, "download", "--no-deps", "--no-binary", LLAMA_SOURCE.split("==")[0], "--dest", work, LLAMA_SOURCE],
         f"pip cannot fetch {LLAMA_SOURCE}: {remedy}")
    new = work / "packages"
    _run([*pip, "install", "--no-deps", "--target", new, *LLAMA_NEEDS], f"pip cannot fetch {' '.join(LLAMA_NEEDS)}: {remedy}")
    if tools := [tool for tool in ("cmake", "ninja") if not shutil.which(tool)]:
        _run([*pip, "install", "--no-deps", "--target", work / "tools", *tools], f"pip cannot fetch {' '.join(tools)}: {remedy}")
    with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
        archive.extractall(work, filter=lambda member, to: tarfile.data_filter(member, to) if _used(member.name) else None)
    root = next(work.glob("llama_cpp_python-*/"))
    source = root / "vendor/llama.cpp"
    print(f"2/3 compiling llama.cpp on {share()} cores", flush=True)
    _compile(source, dict(os.environ, PATH=f"{work / 'tools/bin'}:{os.environ['PATH']}", PYTHONPATH=str(work / "tools")))
    print(f"3/3 putting it into {short(exporter.parent)}", flush=True)
    shutil.move(root / "llama_cpp", new)
    shutil.copytree(source / "gguf-py/gguf", new / "gguf")
    shutil.copytree(source / "build/bin", new / "llama_cpp/lib", symlinks=True, ignore=lambda *_: ["llama-quantize"])
    if not _quantizes(exporter):
        whole = work / "llama.cpp"
        whole.mkdir()
        for name in KEPT_FILES:
            shutil.move(source / name, whole)
        shutil.copytree(source / "build/bin", whole / "build/bin", symlinks=True)
        (whole / "llama-quantize").symlink_to("build/bin/llama-quantize")
        _replace(whole, exporter)
    (new / "build-stamp").write_text(_stamp())
    _replace(new, packages)
    print(f"llama.cpp was built in {time.monotonic() - began:.0f} s")


def _used(name):
    """Whether a file of the source package is wanted: the Python binding, and of llama.cpp what is compiled or converts."""
    parts = name.split("/")[1:]
    return parts[:1] == ["llama_cpp"] or parts[:2] == ["vendor", "llama.cpp"] and not UNUSED_FOLDERS & set(parts[2:3])


def _compile(source, environment):
    build, log = source / "build", []
    configure = ["cmake", "-S", source, "-B", build, "-G", "Ninja", *CMAKE_OPTIONS, *os.environ.get("CMAKE_ARGS", "").split()]
    _run(configure, "cmake does not accept this machine", env=environment)
    command = ["cmake", "--build", build, "--target", "llama-quantize", "--parallel", str(share())]
    began, shown = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        try:
            for line in process.stdout:
                log.append(line)
                if step := re.match(r"\[(\d+)/(\d+)\]", line):
                    done, steps = map(int, step.groups())
                    if 10 * done // steps > shown:
                        shown = 10 * done // steps
                        print(f"    {10 * shown:3} %  after {time.monotonic() - began:.0f} s", flush=True)
        except BaseException:  # an interrupt ends the compiler too
            process.terminate()
            raise
    if process.returncode:
        kept = Path(tempfile.gettempdir()) / "llama.cpp-build.log"
        kept.write_text("".join(log))
        raise BuildError(f"llama.cpp did not compile; what the compiler said is in {kept}.")


def _replace(new, old):
    """Put the folder `new` in the place of `old`, which may be absent."""
    if old.exists():
        old.rename(new.with_name(f"{new.name}-old"))  # goes with the temporary folder
    new.rename(old)


def import_built(name):
    """The module "llama_cpp" or "gguf": an installed one, else the one of the build. RuntimeError when there is none."""
    packages = places()[1]
    if importlib.util.find_spec(name) is None:
        if not (packages / "build-stamp").is_file():
            raise RuntimeError(f"{name} is not here yet: run `make llama.cpp`, or the cell of chapter 07 that builds it.")
        sys.path.append(str(packages))
    return importlib.import_module(name)


if __name__ == "__main__":
    try:
        build_llama_cpp()
    except BuildError as error:
        sys.exit(f"make llama.cpp: {error}")
    except KeyboardInterrupt:
        sys.exit("make llama.cpp: interrupted; nothing was left behind.")
