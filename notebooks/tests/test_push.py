"""Pushes to a hub that refuses, breaks or falls silent, wherever it does: what is said, within 20 seconds of silence, and that a second one arrives.

Both hubs' own clients, on their real time-outs, against a stand-in on 127.0.0.1; no model.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import UploadHub

NOTEBOOKS = Path(__file__).resolve().parents[1]
LIMIT = 20  # seconds
# For each line (the hub; the seconds of silence that are too many, or 0 for the real ones) a process that pushes. A line of JSON
# says its exit status, when it began, and when it arrived or said why not.
PUSHES = """
import contextlib, json, os, sys, time
from pathlib import Path
import grpo_kit.workshop  # whose processes end in a sentence too
from grpo_kit.export import hub

class Model:
    def save_pretrained_merged(self, folder, tokenizer, save_method):
        Path(folder).mkdir()
        Path(folder, "model.safetensors").write_bytes(bytes(30_000_000))  # more than the buffers on the way take in, and sent first
        for shard in range(12):  # more than are sent at a time
            Path(folder, f"part_{shard}.safetensors").write_text(f"{shard}")
        Path(folder, "config.json").write_text("{}")

hub.complete_tokenizer = lambda tokenizer: contextlib.nullcontext()
hub.save_gguf = lambda model, tokenizer, folder, methods: Path(folder, "x.Q8_0.gguf").write_bytes(b"quantised")
says = sys.excepthook

def timed(*error):
    Path("end").write_text(str(time.monotonic()))
    says(*error)

sys.excepthook = timed
for line in sys.stdin:
    to, silence = line.split()
    start = time.monotonic()
    if not os.fork():
        os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        hub.SILENCE = int(silence) or hub.SILENCE
        hub.publish(Model(), None, "me/mine", ["q8_0"], "hf_planted", to)
        Path("end").write_text(str(time.monotonic()))
        os._exit(0)  # spares the second that Python's tidying takes
    status = os.waitstatus_to_exitcode(os.wait()[1])
    print("\\nCASE " + json.dumps({"status": status, "start": start, "end": float(Path("end").read_text())}), flush=True)
"""
TOKENS, NETWORK = "give a token that may write", "check the network and try again; nothing here is lost"
SILENT = f"(silent for 15 seconds): {NETWORK}"
REFUSED = [  # (hub, which paths, what happens to them, words)
    ("huggingface", "", "401", f"(401): {TOKENS}"), ("huggingface", "", "403", f"(403): {TOKENS}"), ("huggingface", "", "500", NETWORK),
    ("huggingface", "", "stall", SILENT), ("huggingface", "", "login page", NETWORK), ("huggingface", "/create", "stall", SILENT),
    ("huggingface", "/preupload/", "stall", SILENT), ("huggingface", "/preupload/", "first bytes, then a stall", SILENT),
    ("huggingface", "objects/batch", "stall", SILENT), ("huggingface", "objects/batch", "login page", NETWORK),
    ("huggingface", "/large/", "stall", SILENT), ("huggingface", "/large/", "first bytes, then a stall", SILENT),
    ("huggingface", "/large/", "403", f"(403): {TOKENS}"), ("huggingface", "/commit/", "stall", SILENT), ("huggingface", "/commit/", "500", NETWORK),
    ("modelscope", "", "401", f"(401): {TOKENS}"), ("modelscope", "", "403", f"(403): {TOKENS}"), ("modelscope", "", "500", NETWORK),
    ("modelscope", "", "stall", SILENT), ("modelscope", "", "login page", NETWORK), ("modelscope", "/api/v1/models", "403", f"(403): {TOKENS}"),
    ("modelscope", "objects/batch", "stall", SILENT), ("modelscope", "objects/batch", "login page", NETWORK),
    ("modelscope", "/large/", "stall", SILENT), ("modelscope", "/large/", "first bytes, then a stall", SILENT), ("modelscope", "/large/", "500", NETWORK),
    ("modelscope", "/commit/", "stall", SILENT),
]


@pytest.fixture(scope="module")
def pusher(tmp_path_factory):
    """(the hub, a function that pushes and gives what PUSHES says and the lines on stderr, the folder where it works)."""
    folder = tmp_path_factory.mktemp("push")
    (folder / "tmp").mkdir()
    with UploadHub() as hub:
        env = os.environ | {"PYTHONPATH": str(NOTEBOOKS), "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1", "HF_ENDPOINT": hub.url,
                            "MODELSCOPE_ENDPOINT": hub.url, "MODELSCOPE_CACHE": str(folder / "ms"), "TMPDIR": str(folder / "tmp")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen([sys.executable, "-c", PUSHES, folder / "stderr"], env=env, cwd=folder, **pipes) as process:
            def push(to, silence=0):
                process.stdin.write(f"{to} {silence}\n")
                process.stdin.flush()
                for line in process.stdout:  # the clients print too
                    assert "hf_planted" not in line
                    if line.startswith("CASE "):
                        noise = (folder / "stderr").read_text()
                        assert "hf_planted" not in noise
                        return json.loads(line.removeprefix("CASE ")) | {"stderr": noise.splitlines()}
                raise AssertionError("the process is gone")

            yield hub, push, folder
            process.stdin.close()


@pytest.fixture
def empty(pusher):
    """The hub, as on its first day."""
    hub, _, folder = pusher
    for kept in (hub.repositories, hub.private, hub.blobs, hub.heard):
        kept.clear()
    yield hub
    hub.fault, hub.faulty, hub.silent_since = None, "", None
    assert not list((folder / "tmp").glob("tmp*"))  # what was made to be sent is gone


@pytest.mark.table
@pytest.mark.parametrize("to, path, fault, words", [
    pytest.param(*case, id=" ".join(filter(None, case[:3])), marks=[] if case[2] == "401" else [pytest.mark.robust]) for case in REFUSED])
def test_a_push_that_fails_says_so_keeps_the_token_and_the_next_one_arrives(pusher, empty, record_property, to, path, fault, words):
    _, push, folder = pusher
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine/model.safetensors").write_bytes(b"an export of before")
    empty.fault, empty.faulty = fault, path
    first = push(to)
    said = first["stderr"][-1]
    record_property("said", said)
    assert first["end"] - (empty.silent_since or first["start"]) < LIMIT
    assert first["status"] == 1 and "Traceback (most recent call last):" not in first["stderr"]
    assert said.startswith(f"ConnectionError: {empty.url} did not take me/mine") and words in said
    empty.fault, taken, heard = None, set(empty.blobs), len(empty.heard)
    assert push(to)["status"] == 0 and empty.private == {"me/mine": True, "me/mine-GGUF": True}
    assert set(empty.repositories["me/mine"]) >= {"model.safetensors", "config.json", *(f"part_{shard}.safetensors" for shard in range(12))}
    assert empty.repositories["me/mine"]["model.safetensors"] == bytes(30_000_000)
    assert empty.repositories["me/mine-GGUF"] == {"x.Q8_0.gguf": b"quantised"}
    sent = {path.removeprefix("/large/") for path, _, _ in empty.heard[heard:] if path.startswith("/large/")}
    assert sent == set(empty.blobs) - taken  # what it has is not sent again
    assert "Bearer hf_planted" in [headers.get("authorization", headers.get("Authorization")) for _, headers, _ in empty.heard]
    assert (folder / "mine/model.safetensors").read_bytes() == b"an export of before"


@pytest.mark.robust
@pytest.mark.table
@pytest.mark.parametrize("to", ["huggingface", "modelscope"])
def test_a_slow_push_goes_on_however_long_it_takes(pusher, empty, record_property, to):
    empty.fault, empty.faulty = "slow", "/large/"
    done = pusher[1](to, silence=5)
    seconds = done["end"] - done["start"]
    record_property("said", f"arrived after {seconds:.0f} s, with 5 s of silence allowed")
    assert done["status"] == 0, done["stderr"][-1]
    assert seconds > 9 and len(empty.repositories["me/mine"]["model.safetensors"]) == 30_000_000


@pytest.mark.table
@pytest.mark.parametrize("given, words", [
    ({"hub": "github"}, "'github' is no hub that is known here: choose among huggingface, modelscope."),
    ({"repository": "mine"}, "'mine' is no repository: write your name on the hub, a slash"), ({"repository": "me/mine/2"}, "'me/mine/2' is no"),
    ({"repository": "https://huggingface.co/me/mine"}, "is no repository"), ({"methods": []}, "Nothing is no quantisation that is made here"),
    ({"token": ""}, "The token is empty, or holds a space or a line end"), ({"token": None}, "The token is empty"), ({"token": "hf_planted\n"}, "a line end"),
])
def test_what_cannot_be_pushed_is_told_before_the_hub_is_asked(record_property, given, words):
    from grpo_kit.export.hub import publish

    with pytest.raises(ValueError) as raised:
        publish(**{"model": None, "tokenizer": None, "repository": "me/mine", "methods": ["q8_0"], "token": "hf_planted"} | given)
    record_property("said", str(raised.value))
    assert words in str(raised.value) and "\n" not in str(raised.value) and "planted" not in str(raised.value)


@pytest.mark.table
@pytest.mark.parametrize("hub, environment, words", [
    ("huggingface", {"ALL_PROXY": "socks5://127.0.0.1:9"}, "SOCKS proxy"), ("huggingface", {"HTTP_PROXY": "nonsense://127.0.0.1"}, "proxy"),
    ("huggingface", {"HTTP_PROXY": "http://127.0.0.1:bad"}, "(InvalidURL): Invalid port"), ("huggingface", {"HTTP_PROXY": "http://127.0.0.1:9"}, "check the network"),
    ("huggingface", {}, "unset HF_HUB_OFFLINE before Python starts"), ("modelscope", {"HTTP_PROXY": "http://127.0.0.1:9"}, "check the network")])
def test_a_push_through_a_proxy_that_cannot_be_used_or_offline_is_told(monkeypatch, record_property, hub, environment, words):
    from grpo_kit.export.hub import publish
    from huggingface_hub import close_session, constants

    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not environment)
    close_session()  # the client reads the proxies when it is made
    with pytest.raises(ConnectionError, match="http://hub.invalid did not take me/mine") as raised:
        publish(None, None, "me/mine", ["q8_0"], "hf_planted", hub)
    close_session()
    record_property("said", str(raised.value))
    assert words in str(raised.value) and "\n" not in str(raised.value) and "planted" not in str(raised.value)
