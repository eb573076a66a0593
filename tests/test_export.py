"""An exported folder is the method itself to sentence-transformers, or is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

import fusebench
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.encoder import Encoder
from fusebench.methods.grammar import parse
from fusebench.methods.native_pooling import native_sentence
from fusebench.methods.scaling import Standardize
from fusebench.run_bench import main
from fusebench.study import export, saved_methods, text_sets
from fusebench.study.loading import LoadedMethod, load_method
from fusebench.study.text_sets import load_texts
from tests.tiny_gate import bench, make_world, options
from tests.tiny_models import WORDS, backbone_of, copy_of, folder_of, one_thread

POOLINGS = ("cls", "mean", "max", "mean-sqrt-len", "weighted-mean", "last-token")
LAYERED = (
    *("mean(layer=0)", "cls(layer=2)", "max(layer=1)", "last-token(layer=2)", "first-last(first=0)"),
    *("last-k-mean(k=2)", "last-k-sum(k=3)", "layer-mean", "weighted-layers(untrained)"),
)
MAPPED = (
    *("mean+whiten(k=7)", "cls+abtt(d=2)", "max+standardize", "mean+normalize+whiten(k=9)"),
    "last-k-sum(k=2)+whiten(k=5)+normalize",
)
OWN_CODE = (
    *("hire(untrained)", "layer-attention(untrained)", "max-mean", "last-k-concat(k=2)", "sbert-wk"),
    *("scalar-mix(untrained,layer_norm=text)", "latent-attention(untrained)+whiten(k=5)", "dwatt(untrained)"),
    *("layer-graph(untrained)", "cls-lstm(untrained)", "max-cls+normalize"),
)
TEXTS = ["the cat sat on the mat.", "a dog", " ", "THE Cat w30, dogs!", "w1 w2 w3 " * 60, "東京 naïve", "w7"]
SCRIPT = """
import sys
sys.modules["fusebench"] = None  # importing it fails
import json, numpy as np
from sentence_transformers import SentenceTransformer
texts, folders, trusted, out = json.loads(sys.argv[1])
models = [SentenceTransformer(one, device="cpu", trust_remote_code=one in trusted) for one in folders + trusted]
np.savez(out, *[model.encode(texts, batch_size=3, show_progress_bar=False) for model in models])
"""


@pytest.fixture(autouse=True)
def _on_one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("fit") / "fit.txt"
    path.write_text("\n".join(" ".join(draw.choice(WORDS, size=draw.integers(2, 9))) for _ in range(60)))
    return str(path)


def loaded(sentence, fit, backbone="bert", max_length=None):
    """By name an architecture's tiny model, loaded once for all; else a folder."""
    if isinstance(backbone, str) and max_length is None:
        once, method = backbone_of(backbone), parse(sentence)
        (method,) = method.on(once.shape)
        return LoadedMethod(
            once, method, method.build_fusion(once.shape), load_texts(fit or text_sets.DEFAULT, None), None
        )
    folder = folder_of(backbone) if isinstance(backbone, str) else backbone
    return load_method(sentence, str(folder), device="cpu", max_length=max_length, fit=fit)


def ours(one, texts=TEXTS):
    return Encoder(one.backbone, one.method, fusion=one.fusion, fit_texts=one.fit.texts).encode(texts)


def theirs(folder, texts=TEXTS):
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(
        texts, show_progress_bar=False
    )


def assert_alike(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def exported(one, folder, out=None):
    assert export.export(one, folder, out or folder.parent / "no-results").passed
    return folder


# ---- the same vectors


@pytest.fixture(scope="module")
def without_us(tmp_path_factory, fit):
    """Every exportable method with our vectors, and those of a process in which fusebench cannot be imported."""
    root = tmp_path_factory.mktemp("exported")
    cases = {sentence: loaded(sentence, fit) for sentence in (*POOLINGS, *LAYERED, *MAPPED, *OWN_CODE)}
    folders = {one: str(exported(cases[one], root / str(number))) for number, one in enumerate(cases)}
    trusted = [folders.pop(sentence) for sentence in OWN_CODE]
    told = json.dumps([TEXTS, list(folders.values()), trusted, str(root / "vectors.npz")])
    done = subprocess.run([sys.executable, "-c", SCRIPT, told], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    vectors = np.load(root / "vectors.npz").values()
    return {sentence: (ours(one), found) for (sentence, one), found in zip(cases.items(), vectors, strict=True)}


@pytest.mark.parametrize("sentence", [*POOLINGS, *LAYERED, *MAPPED, *OWN_CODE])
def test_every_method_embeds_alike_without_fusebench_and_native_ones_without_trusted_code(without_us, sentence):
    expected, found = without_us[sentence]
    assert_alike(found, expected)
    assert len(np.unique(expected.round(3), axis=0)) > 1 or "layer=0" in sentence


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        *[("roberta", "mean(layer=1)"), ("mpnet", "first-last"), ("distilbert", "layer-mean"), ("albert", "cls")],
        *[("deberta-v2", "last-k-sum(k=2)"), ("modernbert", "mean(layer=2)"), ("modernbert", "mean")],
        *[("t5-encoder", "first-last(first=0)"), ("t5", "mean(layer=1)"), ("llama", "last-token(layer=1)")],
        *[("gpt2", "weighted-mean"), ("gpt2", "first-last"), ("gpt2", "cls(layer=1)"), ("qwen3", "mean(layer=3)")],
    ],
)
def test_padding_sides_final_norms_and_absolute_positions_survive(tmp_path, fit, backbone, sentence):
    one = loaded(sentence, fit, backbone)
    assert_alike(theirs(exported(one, tmp_path / "m")), ours(one))


@pytest.mark.parametrize("max_length", [None, 9])
def test_long_texts_are_cut_where_we_cut_them(tmp_path, fit, max_length):
    one = loaded("mean", fit, max_length=max_length)
    texts = [" ".join(WORDS[:count]) for count in (3, 7, 8, 30)] + ["w1 " * 300]
    found = theirs(exported(one, tmp_path / "m"), texts)
    assert_alike(found, ours(one, texts))
    assert (np.abs(found[1] - found[3]).max() < 1e-5) == (max_length == 9)


def test_a_folder_that_lowers_case_still_does(tmp_path, fit):
    folder = copy_of("roberta", tmp_path)
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    one = loaded("mean(layer=1)", fit, folder)
    found = theirs(exported(one, tmp_path / "m"), ["the cat", "THE Cat"])
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-6)
    assert_alike(found, ours(one, ["the cat", "THE Cat"]))


def test_weights_of_half_precision_are_exported_as_they_were_compared(tmp_path, fit):
    import transformers

    folder = copy_of("bert", tmp_path)
    transformers.BertModel.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    one = loaded("first-last", fit, folder)
    assert_alike(theirs(exported(one, tmp_path / "m")), ours(one))
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "float32"


def test_layer_weights_that_were_learned_are_kept_with_their_scale(tmp_path, fit):
    one = loaded("scalar-mix(untrained)", fit)
    with torch.no_grad():
        one.fusion.weights.copy_(torch.tensor([2.0, -1.0, 0.5, 1.0]))
        one.fusion.gamma.fill_(-3.0)
    assert_alike(theirs(exported(one, tmp_path / "m")), ours(one))


# ---- trained methods, scores and the model card


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Results of a training-free, a frozen and a fine-tuned method, and of settings that do not count."""
    out = tmp_path_factory.mktemp("results")
    bench(world, out, "mean+whiten(k=4)", "first-last", "scalar-mix+batch-softmax")
    bench(world, out, "first-last", limit=20)
    training = options(world).training
    tuned = type(training)(regime="finetune", data=training.data, recipe=training.recipe)
    bench(world, out, "mean+batch-softmax", training=tuned)
    return out


def trained_folder(runs, head):
    (folder,) = (runs / "trained").glob(f"{head}*")
    return folder


def command(world, method, to, runs):
    places = ["--backbone", world / "models" / "tiny-bert", "--fit", world / "fit.txt"]
    return main([str(word) for word in ("export", method, "--to", to, "--out", runs, "--device", "cpu", *places)])


@pytest.mark.parametrize("method", ["first-last", "mean+whiten(k=4)", "scalar-mix", "mean+batch-softmax"])
def test_stock_mteb_gives_an_exported_folder_the_scores_of_our_records(world, runs, tmp_path, method, capsys):
    """Those that the model card states, too."""
    import mteb

    from fusebench.benchmarks.mteb_bridge import quiet
    from fusebench.benchmarks.tasks import find_tasks, load_task

    trained = method in ("scalar-mix", "mean+batch-softmax")
    named = str(trained_folder(runs, method.split("+")[0])) if trained else method
    assert command(world, named, tmp_path / "m", runs) == 0
    assert "differ from ours by at most" in capsys.readouterr().out
    full = "scalar-mix+batch-softmax" if method == "scalar-mix" else method
    expected = {
        record.spec.task.name: record.main_score
        for record in Store(runs).records()
        if record.spec.method.name == full and record.spec.limit is None
    }
    assert set(expected) == {"TinySTS", "TinySearch"}
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    with quiet():
        for source in find_tasks(list(expected), world / "data"):
            task = load_task(source, limit=None, allow_empty=False).task
            result = mteb.evaluate(model, [task], cache=None, co2_tracker=False, show_progress_bar=False)[0]
            assert result.get_score() == pytest.approx(expected[task.metadata.name], abs=1e-4)
    card = ModelCard.load(tmp_path / "m" / "README.md")
    stated = {result.dataset_type: result.metric_value for result in card.data.eval_results}
    assert stated == {name: round(score, 6) for name, score in expected.items()}
    assert ("## Training" in card.text) == trained


@pytest.mark.parametrize("head", ["scalar-mix", "mean"])
def test_a_trained_method_is_exported_with_its_weights_and_says_what_it_was_trained_on(world, runs, tmp_path, head):
    saved = trained_folder(runs, head)
    assert command(world, saved, tmp_path / "m", runs) == 0
    backbone = str(world / "models" / "tiny-bert")
    expected = fusebench.load(str(saved), backbone, device="cpu").encode(TEXTS)
    assert_alike(theirs(tmp_path / "m"), expected)
    untrained = fusebench.load("layer-mean" if head == "scalar-mix" else "mean", backbone, device="cpu").encode(TEXTS)
    assert np.abs(expected - untrained).max() > 1e-3
    card = (tmp_path / "m" / "README.md").read_text()
    assert (", before the training |" in card) == (head == "mean")
    facts = saved_methods.load(saved)
    assert f"rows.jsonl ({facts.train.rows[0].count} pairs" in card
    assert f"{facts.training.updates} updates, {facts.training.examples} examples, batch size 8" in card


def test_the_card_says_what_is_known_and_no_more(world, runs, tmp_path, fit):
    folder = copy_of("bert", tmp_path)
    one = loaded("first-last+whiten(k=3)", fit, folder)
    card = ModelCard.load(exported(one, tmp_path / "named", runs) / "README.md")
    assert (card.data.license, card.data.base_model, card.data.eval_results) == (None, None, None)
    assert "its licence | not stated in its folder" in card.text
    assert one.backbone.source.revision in card.text
    assert "`mean_t (h_first + h_L) / 2`" in card.text
    assert "fit.txt (60 texts" in card.text
    assert "## " not in card.text
    assert str(tmp_path) not in card.content
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA model.")
    card = ModelCard.load(exported(loaded("mean", fit, folder), tmp_path / "other") / "README.md")
    assert card.data.license == "mit"
    assert "its licence | mit" in card.text


# ---- there and back


@pytest.mark.parametrize("sentence", [*POOLINGS, "mean+normalize"])
def test_a_plain_pooling_comes_back_as_native(tmp_path, fit, sentence):
    one = loaded(sentence, fit, max_length=12)
    folder = exported(one, tmp_path / "m")
    assert native_sentence(folder) == sentence
    back = loaded("native", fit, folder)
    assert back.backbone.limit.tokens == 12
    assert_alike(ours(back), ours(one))


@pytest.mark.parametrize("sentence", ["first-last", "mean+whiten(k=3)", "layer-mean+normalize+abtt"])
def test_mixed_layers_and_maps_come_back_as_native_too_and_are_not_exported_again(
    tmp_path, fit, sentence, monkeypatch
):
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    one = loaded(sentence, fit)
    folder = exported(one, tmp_path / "m")
    back = loaded("native", fit, folder)
    assert back.method.name.startswith("native-")
    assert_alike(ours(back), ours(one))
    assert_alike(ours(loaded(sentence, fit, folder)), ours(one))  # and it still serves as a backbone
    with pytest.raises(InputError, match="folder of m is a sentence-transformers model of its own pooling already"):
        export.export(back, tmp_path / "again", tmp_path)


# ---- what is not exported


@pytest.mark.parametrize("sentence", ["prompt-mask", "last-k-concat(k=2)+mine"])
def test_what_no_module_can_do_is_refused_before_anything_is_written(tmp_path, fit, sentence, monkeypatch):
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    registry.register("mine", paper="none")(type("Mine", (Standardize,), {"__doc__": "Mine."}))
    with pytest.raises(InputError, match=r"reads a text inside a template|no module of its own for mine"):
        export.export(loaded(sentence, fit), tmp_path / "m", tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- what brings its own code along

PLUGIN = """
from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs


@register("{name}", paper="mine")
class Gain(Fusion):
    "What the blocks add: `mean_t h_L - mean_t h_0`."

    needs = Needs.MEANS

    def __init__(self, shape):
        super().__init__()
        self.layers, self.out_dim = (0, shape.blocks), shape.dim

    def forward(self, states) -> Float[Tensor, "batch out"]:
        return states.mean(self.layers[1]) - states.mean(0)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Writes and loads a plugin, after some change, and gives its fusion on the tiny BERT."""

    def load(name, change=lambda text: text):
        monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
        file = tmp_path / f"{name}.py"
        file.write_text(change(PLUGIN.format(name=name)))
        registry.load_plugins([file])
        return loaded(name, text_sets.DEFAULT)

    return load


def test_a_fusion_of_a_plugin_is_exported_with_its_file(tmp_path, plugin):
    one = plugin("what-is-gained")
    folder = exported(one, tmp_path / "m")
    assert "jaxtyping" not in (folder / "what_is_gained.py").read_text()
    found = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).encode(TEXTS)
    assert_alike(found, ours(one))
    assert np.abs(found - ours(loaded("mean", text_sets.DEFAULT))).max() > 0.1


def test_what_is_loaded_can_be_saved_and_loaded_again(tmp_path, fit):
    one = loaded("dwatt(untrained)+whiten(k=3)", fit)
    first = SentenceTransformer(str(exported(one, tmp_path / "m")), device="cpu", trust_remote_code=True)
    first.save(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(again.encode(TEXTS), first.encode(TEXTS), rtol=0, atol=1e-6)


@pytest.mark.skipif(
    int(version("sentence-transformers").split(".")[0]) < 6, reason="older ones trust the code of a local folder"
)
def test_code_that_is_not_trusted_does_not_run(tmp_path, fit):
    folder = exported(loaded("max-mean", fit), tmp_path / "m")
    (folder / "layer_mix.py").write_text("raise AssertionError('it ran')")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(folder), device="cpu")
    card = ModelCard.load(folder / "README.md")
    assert 'SentenceTransformer("m", trust_remote_code=True)' in card.text
    assert "custom_code" in card.data.tags


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("needy", lambda text: text.replace("from torch", "import pydantic\nfrom torch", 1), "imports pydantic"),
        ("eager", lambda text: text.replace("from __future__ import annotations", ""), "imports jaxtyping"),
        ("whole", lambda text: text.replace("from torch", "import fusebench\nfrom torch", 1), "imports fusebench"),
    ],
)
def test_a_plugin_that_cannot_be_brought_along_is_refused_with_the_reason(tmp_path, plugin, name, change, said):
    with pytest.raises(InputError, match=f"{name}.py {said}, which an exported model cannot bring along"):
        export.export(plugin(name, change), tmp_path / "m", tmp_path)
    assert not (tmp_path / "m").exists()


def test_a_plugin_whose_file_is_named_as_one_of_ours_is_refused(tmp_path, plugin):
    with pytest.raises(InputError, match=r"two files named states\.py; rename that of Gain"):
        export.export(plugin("states"), tmp_path / "m", tmp_path)


@pytest.mark.parametrize("content", ["file", "folder"])
def test_nothing_is_overwritten(tmp_path, content, capsys):
    to = tmp_path / "m"
    if content == "folder":
        to.mkdir()
    kept = to / "mine.txt" if content == "folder" else to
    kept.write_text("mine")
    assert main(["export", "mean", "--to", str(to), "--backbone", str(folder_of("bert"))]) == 2
    assert "not empty; name a new folder" in capsys.readouterr().err
    assert kept.read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path, fit):
    (tmp_path / "m").mkdir()
    assert (exported(loaded("mean", fit), tmp_path / "m") / "modules.json").is_file()


def test_a_model_that_embeds_otherwise_is_not_written_and_the_exit_code_is_1(tmp_path, monkeypatch, capsys):
    make = export.stock_model

    def spoilt(form, backbone, **settings):
        model = make(form, backbone, **settings)
        model.max_seq_length = backbone.limit.tokens - 1
        return model

    monkeypatch.setattr(export, "stock_model", spoilt)
    assert main(["export", "mean", "--to", str(tmp_path / "m"), "--backbone", str(folder_of("bert"))]) == 1
    assert "is not written, because sentence-transformers would embed otherwise" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_end_half_way_leaves_nothing_that_looks_whole(tmp_path, fit, monkeypatch, end):
    def stop(*arguments, **settings):
        raise end

    monkeypatch.setattr(export, "model_card", stop)
    with pytest.raises(end):
        export.export(loaded("mean", fit), tmp_path / "m", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_sentence(tmp_path, fit):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .* name another folder by --to"):
        export.export(loaded("mean", fit), tmp_path / "file" / "m", tmp_path)
