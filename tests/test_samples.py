from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fusebench.benchmarks import sample_files, task_data
from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.sample_files import read_samples, sample_path, write_samples
from fusebench.benchmarks.samples import SamplePart, Samples, gold_scores, part_scores, query_score
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.errors import InputError
from tests.tiny_cells import embed, record_of


def judged_on(loaded):
    return judge(loaded, embed, name="words", revision="r", experiment={})


def require_reproduced(loaded):
    judged = judged_on(loaded)
    samples, spec = judged.samples, loaded.spec
    assert (samples.metric, samples.data_sha256) == (spec.metric, spec.data_sha256)
    parts = [(part.subset, part.split) for part in samples.parts]
    assert parts == [(subset, split) for subset, split, _ in task_data.parts(loaded.task)]
    values = []
    for part, (_, _, data) in zip(samples.parts, task_data.parts(loaded.task), strict=True):
        assert part.values.dtype == np.float32
        if spec.type == "STS":
            assert part.items.tolist() == list(range(len(data)))
            values.append(spearmanr(data["score"], part.values)[0])
        else:
            assert part.items.tolist() == list(data["queries"]["id"])
            values.append(sum(map(float, part.values)) / len(part.values))
    # mteb rounds retrieval metrics to five places
    assert np.mean(values) == pytest.approx(judged.main_score, abs=1e-6 if spec.type == "STS" else 6e-6)
    assert part_scores(samples, loaded) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("name", ["LeeSTS", "LeeKnownItem"])
def test_the_samples_of_an_embedded_task_give_its_main_score(name):
    (source,) = find_tasks([name], None)
    require_reproduced(load_task(source, limit=None, allow_empty=False))


@pytest.mark.parametrize("name", ["BIOSSES", "STSBenchmark", "MED", "Cranfield"])
def test_the_samples_of_real_data_give_their_main_score(data_dir, name):
    if not (data_dir / name).is_dir():
        pytest.skip(f"no {name} in {data_dir}")
    (source,) = find_tasks([name], data_dir)
    require_reproduced(load_task(source, limit=None, allow_empty=True))


def test_a_limited_task_has_samples_of_what_is_left(tiny):
    tiny.write_sts("Pairs", tiny.pairs(9))
    tiny.write_retrieval("Ret")
    for name, count in (("Pairs", 5), ("Ret", 3)):
        samples = judged_on(tiny.load(name, limit=count)).samples
        assert [len(part.items) for part in samples.parts] == [count]


def test_identical_texts_have_the_cosine_one_exactly(tiny):
    rows = tiny.pairs(8)
    tiny.write_sts("Same", [{**row, "sentence2": row["sentence1"]} if i % 2 else row for i, row in enumerate(rows)])
    (part,) = judged_on(tiny.load("Same")).samples.parts
    assert (part.values[1::2] == 1).all()
    assert (part.values[::2] < 1).all()


def test_judging_leaves_the_task_without_a_hook(tiny):
    tiny.write_retrieval("Ret")
    loaded = tiny.load("Ret")
    judged_on(loaded)
    assert "task_specific_scores" not in vars(loaded.task)


def test_a_metric_of_another_kind_is_refused():
    assert query_score("hit_rate_at_5", {"success_5": 1.0}) == 1.0
    assert query_score("precision_at_1", {"P_1": 0.5}) == 0.5
    with pytest.raises(ValueError, match="mrr_at_10 is not measured query by query"):
        query_score("mrr_at_10", {"ndcg_cut_10": 0.5})


@pytest.fixture(params=["Pairs", "Ret"])
def cell(request, tiny):
    """A record and its samples."""
    tiny.write_sts("Pairs", tiny.pairs(9))
    tiny.write_retrieval("Ret")
    loaded = tiny.load(request.param)
    judged = judged_on(loaded)
    return record_of(loaded.spec, judged.main_score), judged.samples


def assert_equal(one, other):
    assert (one.metric, one.quantity, one.data_sha256) == (other.metric, other.quantity, other.data_sha256)
    for a, b in zip(one.parts, other.parts, strict=True):
        assert (a.subset, a.split) == (b.subset, b.split)
        assert a.items.tolist() == b.items.tolist()
        assert a.values.dtype == b.values.dtype == np.float32
        assert a.values.tobytes() == b.values.tobytes()


def test_samples_come_back_to_the_last_bit(cell, tmp_path):
    record, samples = cell
    path = write_samples(tmp_path, record, samples)
    assert path == sample_path(tmp_path, record)
    assert path.relative_to(tmp_path).parts[0] == "samples"
    assert_equal(read_samples(tmp_path, record), samples)
    first = path.read_bytes()
    write_samples(tmp_path, record, samples)
    assert path.read_bytes() == first
    assert [p for p in path.parent.iterdir() if p != path] == []


def test_parts_are_kept_apart_and_in_order(tiny, tmp_path):
    tiny.write_sts("Pairs", tiny.pairs(9))
    record = record_of(tiny.load("Pairs").spec)
    parts = tuple(
        SamplePart(subset, split, np.arange(4, dtype=np.int32), np.linspace(0, k, 4, dtype=np.float32))
        for k, (subset, split) in enumerate([("en-de", "test"), ("en", "test"), ("en", "dev")])
    )
    samples = Samples("cosine_spearman", "similarity", record.spec.task.data_sha256, parts)
    write_samples(tmp_path, record, samples)
    assert_equal(read_samples(tmp_path, record), samples)


def test_no_text_and_no_label_is_written(tiny, tmp_path):
    import pyarrow.parquet as pq

    rows = tiny.pairs(9)
    tiny.write_sts("Pairs", rows)
    loaded = tiny.load("Pairs")
    path = write_samples(tmp_path, record_of(loaded.spec), judged_on(loaded).samples)
    table = pq.read_table(path)
    assert table.column_names == ["subset", "split", "row", "similarity"]
    assert set(table["subset"].to_pylist()) | set(table["split"].to_pylist()) == {"default", "test"}
    assert table["row"].to_pylist() == list(range(9))
    metadata = pq.read_metadata(path).metadata
    assert metadata[b"data_sha256"].decode() == loaded.spec.data_sha256
    content = path.read_bytes()
    assert not any(row[key].encode() in content for row in rows for key in ("sentence1", "sentence2"))
    assert gold_scores(loaded)["default", "test"].tolist() == [row["score"] for row in rows]


def test_missing_samples_say_how_to_get_them(cell, tmp_path):
    record, _ = cell
    with pytest.raises(InputError, match=r"'mean' on .* has a score but no samples .*--rerun"):
        read_samples(tmp_path, record)


def test_a_file_cut_short_anywhere_is_refused(cell, tmp_path):
    record, samples = cell
    path = write_samples(tmp_path, record, samples)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is truncated or no file of samples"):
            read_samples(tmp_path, record)


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(cell, tmp_path):
    record, samples = cell
    path = write_samples(tmp_path, record, samples)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            back = read_samples(tmp_path, record)
        except InputError:
            continue
        assert_equal(back, samples)  # a bit of a header that nothing is read from


def test_samples_from_before_there_were_hashes_are_read(cell, tmp_path, monkeypatch):
    record, samples = cell
    monkeypatch.setattr(sample_files, "_SEAL", "task")  # the key is then another's, as if there were none
    write_samples(tmp_path, record, samples)
    monkeypatch.undo()
    assert_equal(read_samples(tmp_path, record), samples)


def test_samples_of_other_data_or_another_cell_are_refused(cell, tmp_path):
    record, samples = cell
    path = write_samples(tmp_path, record, samples)
    content = path.read_bytes()
    other_task = record.spec.task.model_copy(update={"data_sha256": "f" * 64})
    for other, what in (
        (record_of(other_task), "spec_id"),
        (record_of(record.spec.task, dtype="float16"), "spec_id"),
    ):
        foreign = sample_path(tmp_path, other)
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_bytes(content)
        with pytest.raises(InputError, match=f"is of {what}"):
            read_samples(tmp_path, other)
        foreign.unlink()
    with pytest.raises(ValueError, match="other data"):
        write_samples(tmp_path, record_of(other_task), samples)


def test_a_full_disk_leaves_the_old_file(cell, tmp_path, monkeypatch):
    import os

    record, samples = cell
    path = write_samples(tmp_path, record, samples)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_samples(tmp_path, record, samples)
    monkeypatch.undo()
    assert_equal(read_samples(tmp_path, record), samples)
    assert [p for p in path.parent.iterdir() if p != path] == []
