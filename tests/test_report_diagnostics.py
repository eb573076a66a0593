"""Diagnoses on the page: rows beside their scores, curves by layer, CKA and attention."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest

from fusebench.benchmarks.record import MethodSpec
from fusebench.benchmarks.report_diagnostics import diagnosis_section, diagnosis_sections
from tests.invented_diagnoses import attention, diagnosed, diagnosis, layers, similarity, space, weights
from tests.invented_records import make, trained

pytest.importorskip("plotly", reason="the report draws with plotly")


def table(held, records=()):
    """The rows of the table, each by column."""
    found = diagnosis_section(held, records).tables["By method"]
    names = [column.name for column in found.columns]
    return [dict(zip(names, cells, strict=True)) for cells in found.lines]


def test_every_method_has_a_row_of_its_numbers():
    rows = table(diagnosis())
    assert [row["method"].text for row in rows] == ["mean(layer=0)", "mean"]
    assert [row["anisotropy"].text for row in rows] == ["0.750", "0.250"]
    assert rows[0]["effective rank"].text == "30.5"
    assert not {"backbone", "seeds", "score x100"} & set(rows[0])


def test_the_score_of_the_same_method_and_data_stands_beside_them():
    records = [make("mean", "A", 0.5), make("mean", "B", 0.9)]
    scores = [row["score x100"].text for row in table(diagnosis(), records)]
    assert scores == ["", "50.00"]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "other"},
        {"backbone": {"weights_sha256": "other"}},
        {"max_length": 64},
        {"dtype": "bfloat16"},
        {"prompts": {"text": "say: "}},
        {"limit": 10},
    ],
)
def test_a_score_of_another_setting_is_no_score_of_it(changes):
    assert "score x100" not in table(diagnosis(), [make("mean", "A", 0.5, **changes)])[0]


def test_seeds_of_one_training_are_one_row_with_spreads():
    name = "hire+batch-softmax"
    records = [trained(name, "A", score, seed) for seed, score in enumerate((0.6, 0.7))]
    measured = [
        (diagnosed(name, trained=weights(name, seed, training_id=record.spec.training_id)), space(anisotropy))
        for seed, (record, anisotropy) in enumerate(zip(records, (0.1, 0.4), strict=True))
    ]
    (row,) = table(diagnosis(*measured), records)
    assert row["seeds"].text == "2"
    assert (row["anisotropy"].text, row["anisotropy"].spread) == (
        f"{fmean((0.1, 0.4)):.3f}",
        f"{stdev((0.1, 0.4)):.3f}",
    )
    assert (row["score x100"].text, row["score x100"].spread) == ("65.00", f"{stdev((60, 70)):.2f}")


def test_trainings_of_one_method_with_other_settings_are_told_apart():
    measured = [
        (diagnosed("hire+x", trained=weights("hire+x", 0, group * 16)), space(value))
        for group, value in (("a", 0.1), ("b", 0.4))
    ]
    names = [row["method"].text for row in table(diagnosis(*measured))]
    assert names == ["hire+x [training aaaaaa]", "hire+x [training bbbbbb]"]


def test_a_method_read_from_a_tuned_backbone_does_not_borrow_the_frozen_ones_score():
    tuned = weights("mean+loss", regime="finetune")
    measured = [(diagnosed("mean"), space(0.1)), (diagnosed("mean", backbone=tuned), space(0.2))]
    rows = table(diagnosis(*measured), [make("mean", "A", 0.5)])
    assert [(row["backbone"].text, row["score x100"].text) for row in rows] == [
        ("frozen", "50.00"),
        ("tuned by mean+loss", ""),
    ]


def by_title(held, records=()):
    return {figure.title: figure for figure in diagnosis_section(held, records).figures}


def test_a_chart_has_a_curve_over_layers_for_each_quantity_and_pooling():
    figure = by_title(diagnosis())["Quantities by layer"]
    assert [option.split(":")[0] for option in figure.choices[0].options][:2] == ["anisotropy", "uniformity"]
    first = figure.plot["data"][0]
    assert (first["x"], first["y"], first["meta"]) == ([0, 1], [0.75, 0.25], [0])
    assert figure.numbers.rows[0][:3] == ("mean", "0", "0.75")


def test_scores_are_a_curve_too_where_every_layer_has_one():
    records = [make("mean", "A", 0.5), make("mean(layer=0)", "A", 0.25)]
    figure = by_title(diagnosis(), records)["Quantities by layer"]
    assert figure.choices[0].options[0].startswith("score x100")
    assert figure.plot["data"][0]["y"] == [25, 50]
    assert not by_title(diagnosis(), records[:1])["Quantities by layer"].choices[0].options[0].startswith("score")


def test_methods_without_layers_have_a_table_only():
    section = diagnosis_section(diagnosis((diagnosed("first-last"), space())), ())
    assert not section.figures
    assert len(section.tables["By method"].lines) == 1


def test_similarities_of_layers_are_means_over_seeds():
    seeds = [weights("mean+loss", seed, regime="finetune") for seed in (0, 1)]
    measured = [*layers(), *((diagnosed("mean", backbone=one), space()) for one in seeds)]
    matrices = (
        similarity(),
        *(similarity(backbone=one, off=off) for one, off in zip(seeds, (0.2, 0.4), strict=True)),
    )
    figure = by_title(diagnosis(*measured, similarities=matrices))["Similarity of layers"]
    assert figure.choices[0].options == ("mean", "mean, tuned by mean+loss")
    assert figure.plot["data"][0]["z"] == [[1, 0.5], [0.5, 1]]
    assert figure.plot["data"][1]["z"] == [[1, pytest.approx(0.3)], [pytest.approx(0.3), 1]]
    assert "0.50 between layers 0 and 1" in figure.spoken


def test_attention_has_a_line_a_backbone_and_the_even_share():
    tuned = weights("mean+loss", regime="finetune")
    measured = [*layers(), (diagnosed("mean", backbone=tuned), space())]
    held = diagnosis(*measured, attention=(attention(), attention(tuned, shift=0.25)))
    figure = by_title(held)["Attention by block"]
    assert figure.choices[0].options == ("entropy", "share of [CLS]", "share of [SEP]", "cosine of heads")
    lines = {(trace["name"], trace["meta"][0]): trace["y"] for trace in figure.plot["data"]}
    assert lines["frozen", 0] == [0.5, 0.5]
    assert lines["tuned by mean+loss", 0] == [0.75, 0.75]
    assert lines["frozen", 1] == [0.25, 0.5]
    assert [key for key in lines if key[0] == "spread evenly"] == [("spread evenly", 1), ("spread evenly", 2)]


def test_one_head_a_block_has_no_cosine_to_choose():
    figure = by_title(diagnosis(attention=(attention(heads=1),)))["Attention by block"]
    assert "cosine of heads" not in figure.choices[0].options


def test_the_words_name_texts_pairs_and_conventions():
    section = diagnosis_section(diagnosis(), ())
    assert "100 distinct texts (drawn of 200)" in section.text
    assert "9 pairs that belong together (gold score above 4)" in section.text
    assert "rows of length 1" in section.text


def test_markup_in_names_is_text():
    evil = MethodSpec(name="<b>x</b>", parts=())
    measured = [(m.model_copy(update={"method": evil, "sweep": evil.name}), s) for m, s in layers()]
    measured[1] = (measured[1][0].model_copy(update={"method": MethodSpec(name="y", parts=())}), measured[1][1])
    figure = by_title(diagnosis(*measured))["Quantities by layer"]
    assert figure.plot["data"][0]["name"] == "&lt;b&gt;x&lt;/b&gt;"


def test_of_the_same_diagnosis_by_other_code_the_newest_is_shown():
    old, new = diagnosis(), diagnosis(code="new")
    late = new.environment.model_copy(update={"created": "2027-01-01T00:00:00+00:00"})
    held = [new.model_copy(update={"environment": late, "spaces": old.spaces[::-1]}), old]
    (section,) = diagnosis_sections(held, ())
    assert section.tables["By method"].lines[0][1].text == "0.250"


def test_two_diagnoses_of_one_task_have_titles_of_their_own():
    held = [diagnosis(), diagnosis(limit=7), diagnosis(task="B")]
    titles = [section.title for section in diagnosis_sections(held, ())]
    assert sorted(titles) == sorted(
        [*(f"Diagnostics: A, org/net [{one.diagnosis_id[:6]}]" for one in held[:2]), "Diagnostics: B, org/net"]
    )
