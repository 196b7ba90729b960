"""Local stand-ins for the hubs, on 127.0.0.1 only: one that serves GSM8K, one a model, one that takes uploads, one that never answers.

`Hub(rows)` answers what huggingface_hub and datasets ask of the Hugging Face hub for openai/gsm8k or the dataset you
name, and what a plain download asks of ModelScope. `silent_host()` accepts connections and says nothing.
"""

import base64
import contextlib
import hashlib
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow
from pyarrow import parquet

COMMIT = "0" * 39 + "1"
MOST_REQUESTS = 200  # a client that retries for ever is refused
README = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
---
"""


def parquet_bytes(rows):
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


class Silent(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_):
        pass


STATUS = {"401": 401, "403": 403, "429": 429, "500": 500, "503": 503}
LOGIN = b"<!DOCTYPE html><html><title>Sign in to this network</title></html>"


def answer_badly(handler, fault, status, body):
    """(status, body) under a fault: a status, a login page, a stall of 60 s, or half of the body before the line is cut or falls silent."""
    if fault == "login page":
        return 200, LOGIN
    if fault == "stall":
        time.sleep(60)
    if fault in ("half a file", "half, then a stall") and status == 200 and handler.command == "GET":
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        if fault == "half, then a stall":
            time.sleep(60)
        handler.close_connection = True
        raise ConnectionAbortedError
    return (STATUS[fault], b"") if fault in STATUS else (status, body)


class Serving:
    """A server of this machine, in a thread, until the with-block ends; its address is `url`."""

    def serve(self, handler):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Hub(Serving):
    """A server of one dataset. `rows` maps a split to its rows; `asked` lists the requests."""

    def __init__(self, rows, name="openai/gsm8k", on_modelscope="AI-ModelScope/gsm8k"):
        self.name, self.on_modelscope = name, on_modelscope
        self.files = {f"main/{split}-00000-of-00001.parquet": parquet_bytes(some) for split, some in rows.items()}
        self.files["README.md"] = README.encode()
        self.asked, self.faults = [], {}  # faults: {end of a path: fault}, "" for every path

    def answer(self, path):
        """The status and body for a request's path."""
        self.asked.append(path)
        if len(self.asked) > MOST_REQUESTS:
            return 429, b""
        for prefix in (f"/datasets/{self.name}/resolve/main/", f"/datasets/{self.name}/resolve/{COMMIT}/",
                       f"/datasets/{self.on_modelscope}/resolve/master/"):
            if path.startswith(prefix) and path[len(prefix):] in self.files:
                return 200, self.files[path[len(prefix):]]
        if path.startswith(f"/api/datasets/{self.name}/revision/"):
            return 200, json.dumps({"id": self.name, "sha": COMMIT, "siblings": self.entries("rfilename")}).encode()
        if path == f"/api/datasets/{self.name}/tree/{COMMIT}":
            return 200, json.dumps([{"type": "directory", "oid": "0", "path": "main", "size": 0}]).encode()
        if path == f"/api/datasets/{self.name}/tree/{COMMIT}/main":
            return 200, json.dumps(self.entries("path")).encode()
        return 404, b""

    def entries(self, name):
        return [{"type": "file", "oid": "0", name: file, "size": len(body)} for file, body in self.files.items() if file != "README.md"]

    def __enter__(self):
        hub = self

        class Handler(Silent):
            def do_GET(self):
                if length := int(self.headers.get("Content-Length", 0)):
                    self.rfile.read(length)
                path = urlsplit(self.path).path
                fault = next((fault for end, fault in hub.faults.items() if path.endswith(end)), None)
                try:
                    status, body = answer_badly(self, fault, *hub.answer(path))
                except ConnectionAbortedError:
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 200:
                    self.send_header("ETag", f'"{len(body)}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                else:
                    self.send_header("X-Error-Code", "EntryNotFound")
                if body == LOGIN:
                    self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_GET

        return self.serve(Handler)


@contextlib.contextmanager
def silent_host():
    """The URL of a host that accepts a connection (the kernel does) and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class UploadHub(Serving):
    """A hub that takes uploads from the clients of Hugging Face and of ModelScope.

    `repositories` maps a repository to its {path: bytes}, `private` to whether it is private; `fault` is what goes wrong, with
    the paths that hold `faulty`: what `answer_badly` knows, "first bytes, then a stall" of what is sent, or "slow", which it takes
    with a pause of 0.1 s after every 300,000 bytes.
    """

    def __init__(self):
        self.repositories, self.private, self.fault, self.faulty, self.heard = {}, {}, None, "", []
        self.silent_since = None  # when the first stall began, by time.monotonic()
        self.blobs = {}  # the store of large files, which come before the commit that names them: {SHA-256: bytes}

    def create(self, asked):
        name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
        self.repositories.setdefault(name, {})
        self.private[name] = asked.get("private") or asked.get("visibility") == "private"
        return {"url": f"{self.url}/{name}", "id": name}

    def preupload(self, name, asked):
        """Weights are to come by way of the store of large files, all else in the commit itself."""
        mode = lambda path: "lfs" if path.endswith((".safetensors", ".gguf")) else "regular"  # noqa: E731
        return {"files": [{"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False} for file in asked["files"]]}

    def wanted(self, asked):
        """Where to put the large files that are not there yet."""
        upload = lambda oid: {} if oid in self.blobs else {"actions": {"upload": {"href": f"{self.url}/large/{oid}"}}}  # noqa: E731
        return [{"oid": file["oid"], "size": file["size"]} | upload(file["oid"]) for file in asked["objects"]]

    def commit(self, name, lines):
        for line in lines:
            if line["key"] == "file":
                self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                self.repositories[name][line["value"]["path"]] = self.blobs[line["value"]["oid"]]
        return {"success": True, "commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}

    def modelscope(self, path, body):
        """The same for what ModelScope's client asks; or None."""
        if path == "/openapi/v1/users/me":
            return 200, {"success": True, "data": {"preferred_username": "me"}}
        if path == "/api/v1/models":
            asked = json.loads(body)
            if (name := f"{asked['Path']}/{asked['Name']}") in self.repositories:
                return 400, {"Code": 10010101001, "Success": False, "Message": "there is one"}
            self.repositories[name], self.private[name] = {}, asked["Visibility"] == 1
            return 200, {"Code": 200, "Success": True, "Data": {"Id": 1, "Path": asked["Path"], "Name": asked["Name"]}}
        if path.startswith("/large/"):
            self.blobs[hashlib.sha256(body).hexdigest()] = body
            return (200, {}) if path == f"/large/{hashlib.sha256(body).hexdigest()}" else (400, {})
        for name in self.repositories:
            if path == f"/api/v1/repos/models/{name}/info/lfs/objects/batch":
                return 200, {"Code": 200, "Success": True, "Data": {"objects": [{"actions": {}} | one for one in self.wanted(json.loads(body))]}}
            if path == f"/api/v1/repos/models/{name}/commit/master":
                for action in json.loads(body)["actions"]:
                    large = action["type"] == "lfs"
                    self.repositories[name][action["path"]] = self.blobs[action["sha256"]] if large else base64.b64decode(action["content"])
                return 200, {"Code": 200, "Success": True, "Data": {"oid": COMMIT}}
        return None

    def answer(self, path, body):
        """The status and the JSON for a request; body None for GET."""
        if found := self.modelscope(path, body):
            return found
        if body is not None and path == "/api/repos/create":
            return 200, self.create(json.loads(body))
        if body is not None and path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}
        for name in self.repositories:
            if path == f"/api/models/{name}/preupload/main":
                return 200, self.preupload(name, json.loads(body))
            if path == f"/{name}.git/info/lfs/objects/batch":
                return 200, {"transfer": "basic", "objects": self.wanted(json.loads(body))}
            if path == f"/api/models/{name}/commit/main":
                return 200, self.commit(name, [json.loads(line) for line in body.splitlines()])
            if body is None and path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                siblings = [{"rfilename": file} for file in self.repositories[name]]
                return 200, {"id": name, "sha": COMMIT, "private": self.private[name], "siblings": siblings}
        return 404, {"error": "Entry not found"}

    def __enter__(self):
        hub = self

        class Handler(Silent):
            def do_GET(self):
                fault = hub.fault if hub.faulty in self.path else None
                if fault in ("stall", "first bytes, then a stall"):
                    hub.silent_since = hub.silent_since or time.monotonic()
                if fault == "first bytes, then a stall" and self.command in ("POST", "PUT"):
                    self.rfile.read(100)
                    time.sleep(60)
                    self.close_connection = True
                    return
                body = None
                if self.command in ("POST", "PUT"):
                    length = self.headers["Content-Length"]
                    body = self.some(int(length), fault) if length else self.chunks()
                hub.heard.append((self.path, dict(self.headers), body or b""))
                fault = None if fault == "slow" else fault
                status, answer = (200, {}) if fault else hub.answer(urlsplit(self.path).path, body)  # what fails is not kept
                status, answer = answer_badly(self, fault, status, json.dumps(answer).encode())
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                if status == 404:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer)

            do_HEAD = do_POST = do_PUT = do_GET

            def some(self, length, fault):
                if fault != "slow":
                    return self.rfile.read(length)
                body = b""
                while len(body) < length:
                    body += self.rfile.read(min(300_000, length - len(body)))
                    time.sleep(0.1)
                return body

            def chunks(self):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

        return self.serve(Handler)


class ModelHub(Serving):
    """A hub that has one model, for the clients of Hugging Face and of ModelScope; a file that was cut off goes on from there.

    `folder` holds its files, `name` is its id; `faults` as for `Hub`.
    """

    def __init__(self, folder, name="me/mine"):
        self.name, self.faults, self.asked = name, {}, []
        self.files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}

    def answer(self, path, query):
        """The status and body for a request."""
        for prefix in (f"/{self.name}/resolve/main/", f"/{self.name}/resolve/{COMMIT}/"):
            if path.startswith(prefix) and path[len(prefix):] in self.files:
                return 200, self.files[path[len(prefix):]]
        if path in (f"/api/models/{self.name}", f"/api/models/{self.name}/revision/main"):
            siblings = [{"rfilename": file, "size": len(body)} for file, body in self.files.items()]
            return 200, json.dumps({"id": self.name, "sha": COMMIT, "siblings": siblings}).encode()
        if path == f"/api/models/{self.name}/tree/{COMMIT}":
            entries = [{"type": "file", "oid": "0", "path": file, "size": len(body)} for file, body in self.files.items()]
            return 200, json.dumps(entries).encode()
        ours = f"/api/v1/models/{self.name}"
        if path == f"{ours}/repo" and query.get("FilePath", [""])[0] in self.files:
            return 200, self.files[query["FilePath"][0]]
        data = {
            ours: {"Id": 1, "Name": self.name, "Revision": "master"},
            f"{ours}/revisions": {"RevisionMap": {"Branches": [{"Revision": "master", "CreatedAt": 1}], "Tags": []}},
            f"{ours}/repo/files": {"Files": [
                {"Path": file, "Name": file, "Type": "blob", "Size": len(body), "Sha256": hashlib.sha256(body).hexdigest()}
                for file, body in self.files.items()]},
        }
        return (200, json.dumps({"Code": 200, "Success": True, "Data": data[path]}).encode()) if path in data else (404, b"")

    def __enter__(self):
        hub = self

        class Handler(Silent):
            def do_GET(self):
                parts = urlsplit(self.path)
                hub.asked.append(self.path)
                fault = next((fault for end, fault in hub.faults.items() if self.path.endswith(end)), None)
                try:
                    status, body = answer_badly(self, fault, *hub.answer(parts.path, parse_qs(parts.query)))
                except ConnectionAbortedError:
                    return
                first, whole = 0, len(body)
                if status == 200 and (asked := self.headers.get("Range", "")).startswith("bytes="):
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    first, last = int(first), min(int(last or whole), whole - 1)
                    status, body = 206, body[first : last + 1]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 206:
                    self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{whole}")
                if status in (200, 206):
                    self.send_header("ETag", f'"{whole}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_GET

        return self.serve(Handler)
