"""A graph embeds as the method does, whatever the lengths and the batch, by the code on its model card alone."""

from __future__ import annotations

import subprocess
import sys

import jaxtyping
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


@pytest.fixture(autouse=True, scope="module")
def _unchecked_shapes():
    """torch traces sizes as symbols, and the check of a shape would ask for their values."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def export(sentence, to, backbone="bert", *more):
    words = ["export", sentence, "--format", "onnx", "--to", to, "--backbone", folder_of(backbone), *more]
    return main([str(word) for word in (*words, "--device", "cpu")])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Layers, tokens, weights, RReLU and a Dense in one graph."""
    folder = tmp_path_factory.mktemp("onnx") / "graph"
    assert export("layer-attention(untrained)+standardize", folder) == 0
    return folder


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


def test_a_decoder_that_we_pad_on_the_left_is_exported(tmp_path):
    assert export("last-token(layer=2)", tmp_path / "m", "gpt2", "--max-length", 20) == 0
    ours = fusebench.load("last-token(layer=2)", str(folder_of("gpt2")), device="cpu", max_length=20).encode(TEXTS)
    found = OnnxModel(tmp_path / "m").encode(TEXTS)
    np.testing.assert_allclose(found, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_what_torch_cannot_express_is_refused_in_a_sentence(tmp_path, capsys):
    assert export("bigru(untrained)", tmp_path / "m") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: torch cannot express this method on BertModel in ONNX (")
    assert "without --format onnx it is exported for sentence-transformers" in said
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export("mean", tmp_path / "m") == 2
    assert "--format onnx needs the package onnxscript" in capsys.readouterr().err
