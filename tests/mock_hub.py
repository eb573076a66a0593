"""A hub on the loopback interface: what creating a repository and committing to it need, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_" + "a1B2" * 8


class MockHub(ThreadingHTTPServer):
    """Keeps what it is sent.

    Attributes:
        repositories: visibility by name.
        files: contents by repository and path, of the commits.
        commits: messages of the commits.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.repositories: dict[str, str] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.large: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> MockHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Requests(BaseHTTPRequestHandler):
    server: MockHub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") not in (f"Bearer {TOKEN}",):
            self._answer({"error": f"token {self.headers.get('Authorization')} may not write"}, 403)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in self.path:
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith((".safetensors", ".onnx")) else "regular" for path in paths}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self._answer({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            sent = json.loads(body)["objects"]
            upload = {"upload": {"href": f"{self.server.address}/large"}}
            self._answer({"transfer": "basic", "objects": [{**one, "actions": upload} for one in sent]})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": f"no {self.path}"}, 404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def _create(self, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.server.repositories
        self.server.repositories.setdefault(name, asked.get("visibility", "public"))
        self._answer({"url": f"{self.server.address}/{name}"}, 409 if known else 200)

    def _commit(self, lines: list[dict[str, dict[str, str]]]) -> None:
        repository = "/".join(self.path.split("/")[3:5])
        for line in lines:
            held = line["value"]
            if line["key"] == "header":
                self.server.commits.append(held["summary"])
            elif line["key"] == "file":
                self.server.files[repository, held["path"]] = base64.b64decode(held["content"])
            elif line["key"] == "lfsFile":
                self.server.files[repository, held["path"]] = self.server.large[held["oid"]]
        self._answer({"commitUrl": f"{self.server.address}/{repository}/commit/1", "commitOid": "1" * 40})

    def _answer(self, held: dict[str, object], status: int = 200) -> None:
        content = json.dumps(held).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Keeps quiet."""
