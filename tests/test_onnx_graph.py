"""A graph embeds as the method does, whatever the lengths and the batch, by the code on its model card alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from huggingface_hub import ModelCard

import fusebench
from fusebench.run_bench import main
from fusebench.study.onnx_graph import OnnxModel
from tests.tiny_models import folder_of

TEXTS = ["a dog", "the cat sat on the mat.", "w1 w2 w3 " * 60, " ", "THE Cat w30, dogs!", "東京 naïve", "w7"]


# In a process without the tests' check of shapes, which asks symbols for their values while torch traces.
SCRIPT = """
import contextlib, io, json, sys
from fusebench.run_bench import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    print(json.dumps([code, said.getvalue()]))
"""


def command(sentence, to, backbone="bert", *more):
    words = ["export", sentence, "--format", "onnx", "--to", to, "--backbone", folder_of(backbone), *more]
    return [str(word) for word in (*words, "--device", "cpu")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def said(root):
    """Exit code and message by folder: layers, RReLU and a Dense in one graph; a decoder; what cannot be said."""
    commands = {
        "graph": command("layer-attention(untrained)+standardize", root / "graph"),
        "decoder": command("last-token(layer=2)", root / "decoder", "gpt2", "--max-length", 20),
        "gru": command("bigru(untrained)", root / "gru"),
    }
    told = json.dumps(list(commands.values()))
    done = subprocess.run([sys.executable, "-c", SCRIPT, told], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module")
def exported(root, said):
    assert said["graph"][0] == 0, said["graph"]
    return root / "graph"


def test_neither_the_batch_nor_its_padding_matters(exported):
    expected = OnnxModel(exported).encode(TEXTS, batch_size=1)
    for size in (3, len(TEXTS)):
        found = OnnxModel(exported).encode(TEXTS, batch_size=size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert len(np.unique(expected.round(3), axis=0)) == len(TEXTS)


def test_the_code_of_the_model_card_runs_without_torch_and_without_us(exported):
    code = ModelCard.load(exported / "README.md").text.split("```")[1].removeprefix("python\n")
    blocked = "import sys\nfor name in ('torch', 'transformers', 'fusebench'): sys.modules[name] = None\n"
    told = f"{blocked}{code}\nprint(vectors.shape, vectors.dtype)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=exported.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(2, 32) float32"


def test_a_decoder_that_we_pad_on_the_left_is_exported(root, said):
    assert said["decoder"][0] == 0, said["decoder"]
    ours = fusebench.load("last-token(layer=2)", str(folder_of("gpt2")), device="cpu", max_length=20).encode(TEXTS)
    found = OnnxModel(root / "decoder").encode(TEXTS)
    np.testing.assert_allclose(found, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_what_torch_cannot_express_is_refused_in_a_sentence(root, said):
    code, message = said["gru"]
    assert code == 2
    # torch itself prints the graph that it gave up on
    assert "\nerror: torch cannot express this method on BertModel in ONNX (" in f"\n{message}"
    assert "without --format onnx it is exported for sentence-transformers" in message
    assert not (root / "gru").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(command("mean", tmp_path / "m")) == 2
    assert "--format onnx needs the package onnxscript" in capsys.readouterr().err
