"""Local stand-ins for the hubs, on 127.0.0.1 only: one that serves GSM8K, one that never answers.

`Hub(rows)` answers what huggingface_hub and datasets ask of the Hugging Face hub for openai/gsm8k, and what a
plain download asks of ModelScope. `silent_host()` accepts connections and says nothing.
"""

import contextlib
import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

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


class Hub:
    """A server of one dataset. `rows` maps a split to its rows; `asked` lists the requests."""

    def __init__(self, rows):
        self.files = {f"main/{split}-00000-of-00001.parquet": parquet_bytes(some) for split, some in rows.items()}
        self.files["README.md"] = README.encode()
        self.asked = []

    def answer(self, path):
        """The status and body for a request's path."""
        self.asked.append(path)
        if len(self.asked) > MOST_REQUESTS:
            return 429, b""
        for prefix in ("/datasets/openai/gsm8k/resolve/main/", f"/datasets/openai/gsm8k/resolve/{COMMIT}/",
                       "/datasets/AI-ModelScope/gsm8k/resolve/master/"):
            if path.startswith(prefix) and path[len(prefix):] in self.files:
                return 200, self.files[path[len(prefix):]]
        if path.startswith("/api/datasets/openai/gsm8k/revision/"):
            return 200, json.dumps({"id": "openai/gsm8k", "sha": COMMIT, "siblings": self.entries("rfilename")}).encode()
        if path == f"/api/datasets/openai/gsm8k/tree/{COMMIT}":
            return 200, json.dumps([{"type": "directory", "oid": "0", "path": "main", "size": 0}]).encode()
        if path == f"/api/datasets/openai/gsm8k/tree/{COMMIT}/main":
            return 200, json.dumps(self.entries("path")).encode()
        return 404, b""

    def entries(self, name):
        return [{"type": "file", "oid": "0", name: file, "size": len(body)} for file, body in self.files.items() if file != "README.md"]

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self):
                if length := int(self.headers.get("Content-Length", 0)):
                    self.rfile.read(length)
                status, body = hub.answer(urlsplit(self.path).path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 200:
                    self.send_header("ETag", f'"{len(body)}"')
                    self.send_header("X-Repo-Commit", COMMIT)
                else:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def silent_host():
    """The URL of a host that accepts a connection (the kernel does) and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
