"""Networks that fail: what is said, within 20 seconds, and that the next try completes. Every host is a stand-in on 127.0.0.1."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import Hub, ModelHub

NOTEBOOKS = Path(__file__).resolve().parents[1]
ROW = {"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"}
LIMIT = 20  # seconds
PARQUET = "train-00000-of-00001.parquet"
# Reads at each line on its stdin; what it found, or its error, is a line of JSON.
READER = """
import json, sys, time
from grpo_kit.data.rows import read_rows
for line in sys.stdin:
    start = time.monotonic()
    try:
        found = {"rows": read_rows(line.strip(), "train")}
    except Exception as error:
        found = {"error": type(error).__name__, "said": str(error)}
    print(json.dumps(found | {"seconds": time.monotonic() - start}), flush=True)
"""
FAULTS = {  # (which path, what happens to it)
    "the hub answers 500": ("", "500"), "the hub answers 401": ("", "401"), "the hub answers 429": ("", "429"),
    "a login page for everything": ("", "login page"), "the data answers 500": (PARQUET, "500"), "the data answers 403": (PARQUET, "403"),
    "a login page for the data": (PARQUET, "login page"), "half of the data": (PARQUET, "half a file"),
    "the hub is silent": ("", "stall"), "the data is silent": (PARQUET, "stall"),
    "half of the data, then silence": (PARQUET, "half, then a stall"),
}

# Where a client asks again and again before it gives up.
WAITS = {"the hub is silent", "the data is silent", "the data answers 500", "half of the data", "half of the data, then silence"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A process that reads from the stand-in, with an empty cache; gives (the hub, a function that reads)."""
    with Hub({"train": [ROW] * 3, "test": [ROW]}) as hub:
        env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_HOME": str(tmp_path_factory.mktemp("home")), "NO_PROXY": "127.0.0.1",
                            "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url.replace("//", "//me:planted@"), "HF_TOKEN": "hf_planted"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen([sys.executable, "-c", READER], env=env, **pipes) as process:
            def read(source):
                hub.asked.clear()
                process.stdin.write(source + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            yield hub, read
            process.stdin.close()


CASES = [pytest.param(source, case, id=f"{source}, {case}", marks=[pytest.mark.robust] if case in WAITS else [])
         for source in ("huggingface", "modelscope") for case in FAULTS]


@pytest.mark.table
@pytest.mark.parametrize("source, case", CASES)
def test_data_through_a_network_that_fails(reader, record_property, source, case):
    hub, read = reader
    end, fault = FAULTS[case]
    hub.faults = {end: fault}
    try:
        found = read(source)
    finally:
        hub.faults = {}
    record_property("said", found.get("said", "nothing"))
    assert found.get("error") == "ConnectionError", found
    assert found["seconds"] < LIMIT and "\n" not in found["said"]
    assert "planted" not in found["said"]
    assert "cannot be read (" in found["said"] and "GRPO_DATA=/folder" in found["said"]


@pytest.mark.table
@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_the_next_try_completes(reader, source):
    """After all that failed, in the same process and with the cache that it left."""
    _, read = reader
    found = read(source)
    assert found.get("rows") == [ROW] * 3, found


# --- a model, through the hubs' own clients ----------------------------------------------------------------------------

FETCHES = {
    "huggingface": "from huggingface_hub import snapshot_download; folder = snapshot_download('me/mine')",
    "modelscope": "from modelscope import snapshot_download; folder = snapshot_download('me/mine')",
}


@pytest.mark.robust
@pytest.mark.table
@pytest.mark.parametrize("client", FETCHES)
def test_a_model_arrives_whole_after_a_first_try_that_was_cut_off(tmp_path, record_property, client):
    tiny = NOTEBOOKS.parent / "data/tiny-model"
    code = f"{FETCHES[client]}\nfrom grpo_kit.model.folder import check_model\ncheck_model(folder, engine=False)\nprint('HERE', folder)"
    with ModelHub(tiny) as hub:
        env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_HOME": str(tmp_path / "hf"), "MODELSCOPE_CACHE": str(tmp_path / "ms"),
                            "NO_PROXY": "127.0.0.1", "HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        hub.faults = {"model.safetensors": "403"}
        first = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
        assert first.returncode == 1
        record_property("said", first.stderr.strip().splitlines()[-1])
        hub.faults = {}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    [folder] = [line.removeprefix("HERE ") for line in done.stdout.splitlines() if line.startswith("HERE ")]
    assert all((Path(folder) / file.name).read_bytes() == file.read_bytes() for file in tiny.iterdir())
