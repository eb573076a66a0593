"""Exported results are what mteb itself reads, under an identity that no two settings share."""

from __future__ import annotations

import json

import pytest
from mteb.cache import ResultCache

from fusebench.benchmarks.mteb_results import experiment, write_mteb_results
from fusebench.benchmarks.store import Store
from fusebench.run_bench import main
from tests.invented_records import make, trained, training_spec
from tests.tiny_gate import bench, make_world


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of three methods of one backbone, one of them run twice with different limits, and a smoke run."""
    world = make_world(tmp_path_factory.mktemp("world"))
    out = tmp_path_factory.mktemp("results")
    bench(world, out, "mean", "cls", "mean+whiten(k=4)")
    bench(world, out, "mean", max_length=5)
    bench(world, out, "cls", limit=20)
    return out


def loaded(folder):
    """Main scores by experiment and task, as mteb reads them."""
    results = ResultCache(folder).load_results(load_experiments="match_name", include_remote=False)
    return {
        (model.experiment_name, task.task_name): task.get_score()
        for model in results.model_results
        for task in model.task_results
    }


def test_mteb_reads_every_score_of_the_records_and_takes_none_for_another(out, tmp_path, capsys):
    assert main(["report", "--out", str(out), "--mteb-results", str(tmp_path / "repository")]) == 0
    said = capsys.readouterr().err
    assert (
        f"8 results of mteb are in {tmp_path / 'repository' / 'results'}; left out: 2 of smoke runs, 0 whose" in said
    )
    records = [record for record in Store(out).records() if record.spec.limit is None]
    found = loaded(tmp_path / "repository")
    assert len(found) == len(records) == 8
    assert sorted(found.values()) == pytest.approx(sorted(record.main_score for record in records), abs=1e-6)
    for record in records:
        (score,) = (
            score
            for (name, task), score in found.items()
            if task == record.spec.task.name and experiment(record.spec)["setting"] in name
        )
        assert score == pytest.approx(record.main_score, abs=1e-6)


def test_a_method_is_never_taken_for_the_backbone_itself(out, tmp_path):
    write_mteb_results(Store(out), tmp_path)
    cache = ResultCache(tmp_path)
    assert cache.load_results(load_experiments="no_experiments", include_remote=False).model_results == []
    metas = [json.loads(path.read_text()) for path in tmp_path.rglob("model_meta.json")]
    assert {meta["name"] for meta in metas} == {"fusebench/tiny-bert"}
    assert len({json.dumps(meta["experiment_kwargs"]) for meta in metas}) == len(metas) == 4
    assert {meta["max_tokens"] for meta in metas} == {5, 160}


def test_results_whose_file_is_damaged_are_left_out_and_counted(tmp_path):
    store = Store(tmp_path / "out")
    score = {"hf_subset": "default", "languages": ["eng-Latn"], "main_score": 0.5, "cosine_spearman": 0.5}
    held = {"dataset_revision": "1", "task_name": "Whole", "mteb_version": "2.26.24", "scores": {"test": [score]}}
    whole, spoilt = make(task="Whole"), make(task="Spoilt")
    store.write(whole, {**held, "evaluation_time": 1.0, "kg_co2_emissions": None})
    store.write(spoilt, {**held, "task_name": "Spoilt"})
    path = store.result_path(spoilt)
    path.write_text(path.read_text().replace("0.5", "0.9"))
    written = write_mteb_results(store, tmp_path / "repository")
    assert (len(written.files), written.smoke, written.absent) == (1, 0, 1)
    assert list(loaded(tmp_path / "repository").values()) == [0.5]


def test_tasks_share_an_experiment_and_nothing_else_does():
    base = trained()
    assert experiment(base.spec) == experiment(trained(task="B", value=0.1).spec)
    others = [
        *(trained(seed=2), trained(method="hire+simcse"), trained(train=training_spec(epochs=2)), make("mean")),
        *(trained(max_length=64), trained(dtype="bfloat16"), trained(prompts={"query": "q: "}), trained(code="new")),
        *(trained(regime="finetune"), trained(weights="w2"), trained(backbone={"weights_sha256": "other"})),
    ]
    assert len({json.dumps(experiment(one.spec)) for one in [base, *others]}) == 12
