"""What is pushed is the exported folder, whole, to the repository that was named, and no token is ever shown."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from fusebench.run_bench import main
from fusebench.study.model_usage import ONNX, OWN_CODE, STOCK, hub_card
from tests.mock_hub import TOKEN, MockHub
from tests.tiny_models import folder_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp("exported") / "mine"
    assert main(["export", "max-mean", "--to", str(to), "--backbone", str(folder_of("bert")), "--device", "cpu"]) == 0
    (to / ".cache").mkdir()
    (to / ".cache" / "private").write_text("of this machine")
    return to


def push(hub, *words, token=TOKEN):
    """The command in a process that may reach the mock hub and nothing else."""
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token or ""}
    command = [sys.executable, "-m", "fusebench.run_bench", "push", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **online})


def test_a_folder_arrives_whole_in_one_commit_and_says_how_to_load_it_from_there(folder):
    with MockHub() as hub:
        done = push(hub, folder, "--repo", "org/model", "--private")
        assert done.returncode == 0, done.stderr
        assert hub.repositories == {"org/model": "private"}
        assert hub.commits == ["Upload mine, exported by FuseBench"]
        expected = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        del expected[".cache/private"]
        assert {path for _, path in hub.files} == expected.keys()
        card = hub.files.pop(("org/model", "README.md")).decode()
        assert all(content == expected[path].read_bytes() for (_, path), content in hub.files.items())
        assert 'SentenceTransformer("org/model", trust_remote_code=True)\n' in card
        assert f"sent: {hub.address}/org/model" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
        again = push(hub, folder, "--repo", "org/model")
        assert (again.returncode, len(hub.commits), hub.repositories) == (0, 2, {"org/model": "private"})


def test_a_refusal_is_one_sentence_without_the_token(folder):
    with MockHub() as hub:
        done = push(hub, folder, "--repo", "org/model", token="hf_" + "wrong" * 5)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the hub did not take org/model: ")
    assert "wrong" not in done.stdout + done.stderr


def test_a_dry_run_shows_all_and_needs_neither_token_nor_network(folder, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main(["push", str(folder), "--repo", "org/model", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "files to org/model (public" in said
    assert all(path.name in said for path in folder.rglob("*") if path.is_file() and path.name != "private")
    assert "private" not in said
    assert 'SentenceTransformer("org/model", trust_remote_code=True)' in said


def test_a_method_is_exported_on_the_way(capsys):
    words = ["push", "first-last", "--repo", "org/model", "--backbone", str(folder_of("bert")), "--dry-run"]
    assert main([*words, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "differ from ours by at most" in said
    assert "1_WeightedLayerPooling/model.safetensors" in said
    assert "# model\n" in said


@pytest.mark.parametrize(
    ("repo", "said"),
    [("model", "as in my-account/model"), ("a/b/c", "is no name on the hub"), ("a/b b", "is no name")],
)
def test_a_name_that_the_hub_would_refuse_is_refused_first(folder, repo, said, capsys):
    assert main(["push", str(folder), "--repo", repo]) == 2
    assert said in capsys.readouterr().err


def test_without_a_token_nothing_is_exported_or_sent(folder, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for model in (str(folder), "mean"):
        assert main(["push", model, "--repo", "org/model"]) == 2
        assert "hf auth login" in capsys.readouterr().err


def test_links_that_lead_out_and_folders_without_a_card_are_refused(tmp_path, capsys):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "modules.json").write_text("[]")
    assert main(["push", str(tmp_path / "m"), "--repo", "org/model", "--dry-run"]) == 2
    assert "has no README.md" in capsys.readouterr().err
    (tmp_path / "m" / "README.md").write_text("# m")
    (tmp_path / "m" / "weights").symlink_to(tmp_path / "secret")
    assert main(["push", str(tmp_path / "m"), "--repo", "org/model", "--dry-run"]) == 2
    assert "is a link that leads out" in capsys.readouterr().err


@pytest.mark.parametrize("usage", [STOCK, OWN_CODE, ONNX])
def test_code_on_the_hub_fetches_from_the_hub(usage):
    card = f"---\nmodel_name: mine\n---\n# mine\n\n```python\n{usage.code('mine')}\n```\n"
    there = hub_card(card, "org/other")
    compile(ModelCard(there).text.split("```")[1].removeprefix("python\n"), "card", "exec")
    assert '"org/other"' in there
    assert '"mine' not in there
    assert "this folder" not in there
