"""The HTML report: what stands in it, that it is inert, and how it behaves in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import sys
from itertools import pairwise
from urllib.parse import unquote

import pytest

from fusebench.benchmarks.board_tests import write_tests
from fusebench.benchmarks.diagnosis_files import write_diagnosis
from fusebench.benchmarks.leaderboard import build_boards
from fusebench.benchmarks.record import MethodSpec, PartSpec, Record
from fusebench.benchmarks.store import Store
from fusebench.run_bench import main
from fusebench.study.html_report import write_report
from fusebench.study.significance import place_of_tests
from tests.headless_browser import browser, chromium
from tests.invented_diagnoses import attention, diagnosis, layers, similarity, weights
from tests.invented_records import make, overlap, trained, training
from tests.invented_tests import invented_tests

pytest.importorskip("plotly", reason="the report draws with plotly")

EVIL = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
LAYERS = {"mean(layer=0)": 0.3, "mean(layer=2)": 0.4, "mean": 0.6}


def of_method(record, name):
    """The record with a fusion in its specification, which the identity of its training depends on."""
    parts = (PartSpec(kind="fusion", name=name, params={}),)
    spec = record.spec.model_copy(update={"method": MethodSpec(name=record.spec.method.name, parts=parts)})
    held = record.model_dump(exclude={"spec", "spec_id", "schema_version"})
    return Record.of(spec, **held)


def log_of(record, out, weights=(0.2, 0.8), losses=(2.0, 1.0)):
    """Writes a training's log as the training loop does."""
    config = {"method": record.spec.method.name, "seed": record.spec.seed, "training_id": record.spec.training_id}
    lines = [{"config": config}]
    for update, loss in enumerate(losses, start=1):
        shares = {f"layer_weight.{layer}": share for layer, share in enumerate(weights)}
        lines.append({"stage": 0, "update": update, "loss": loss, **shares})
    lines.append({"update": len(losses), "dev_score": 0.75})
    path = out / "training" / f"{record.spec.training_id}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def store(tmp_path):
    """Three layers, an equal row, a trained method with two seeds, a diagnosis, and names that are markup."""
    store = Store(tmp_path / "out")
    for task in ("A", "B"):
        for method, score in LAYERS.items():
            store.write(make(method, task, score), {})
        store.write(make("mean-sqrt-len", task, 0.6, equal_to="mean"), {})
        store.write(make(EVIL, task, 0.1), {})
        for seed, score in ((0, 0.7), (1, 0.72)):
            known = overlap(known=4, both=2, without=0.5)
            record = of_method(trained("scalar-mix+batch-softmax", task, score, seed, overlap=known), "scalar-mix")
            store.write(record, {})
            log_of(record, store.out, weights=(0.2 + seed / 10, 0.8 - seed / 10))
    store.remember_suite("ab", f"A and B {EVIL}", ("A", "B"))
    (board,) = build_boards(store.records(), store.suites())
    write_tests(place_of_tests(board, store.out), invented_tests(board))
    tuned = weights(f"mean+{'a-long-name-' * 4}{EVIL}", regime="finetune")
    measured = [*layers(), *((one.model_copy(update={"backbone": tuned}), space) for one, space in layers())]
    matrices, maps = (similarity(), similarity(backbone=tuned)), (attention(), attention(tuned))
    write_diagnosis(store.out, diagnosis(*measured, similarities=matrices, attention=maps))
    return store


@pytest.fixture
def page(store):
    return write_report(store, store.out / "report.html")


def held(path, name):
    """What the page holds for its script."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(rf'id="data-{name}">(.*?)</script>', text, re.S)[1])


def test_the_page_depends_on_the_records_alone(store, page):
    first = page.read_bytes()
    assert write_report(store, page).read_bytes() == first


def test_markup_in_names_is_text(page):
    text = page.read_text(encoding="utf-8")
    body = text[: text.index('id="data-charts"')]
    assert "<script>window" not in text
    assert "<img" not in body
    assert "&lt;script&gt;window.broken" in body


def test_names_of_damaged_files_and_what_is_wrong_with_them_are_text(store):
    folder = store.out / "runs" / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "<img src=q onerror=r>.json").write_text('{"schema_version": "<script>window"}')
    (store.out / "training" / "<script>window.jsonl").write_text('{"config": {"method": ["<script>window"]}}\n')
    text = write_report(Store(store.out), store.out / "report.html").read_text()
    assert "<img src=q" not in text
    assert "<script>window" not in text
    assert "&lt;img src=q onerror=r&gt;.json" in text


def test_only_the_two_scripts_of_the_page_may_run(page):
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none';")
    assert len(re.findall(r"&#39;sha256-|'sha256-", policy)) == 2
    assert "script-src 'unsafe" not in policy


def test_every_score_of_a_row_leads_to_the_file_of_its_record(store, page):
    records = held(page, "records")["records"]
    text = page.read_text(encoding="utf-8")
    rows = re.findall(r'data-records="([^"]*)"', text)
    assert sorted(spec_id for row in rows for spec_id in row.split()) == sorted(records)
    for spec_id, record in records.items():
        on_disk = json.loads((store.out / unquote(record["link"])).read_text())
        assert on_disk["spec_id"] == spec_id
        assert record["score"] == 100 * on_disk["main_score"]


def test_the_specification_of_a_record_can_be_put_together_again(store, page):
    known = held(page, "records")
    for spec_id, record in known["records"].items():
        spec = {name: known["shared"][place] for name, place in record["spec"].items()}
        assert spec == store.read(spec_id).spec.model_dump(mode="json")


def test_a_page_elsewhere_links_back_to_the_records(store, tmp_path):
    path = write_report(store, tmp_path / "elsewhere" / "report.html")
    link = next(iter(held(path, "records")["records"].values()))["link"]
    assert link.startswith("../out/runs/")


def test_a_folder_without_records_still_gives_a_page(tmp_path):
    text = write_report(Store(tmp_path / "none"), tmp_path / "r.html").read_text()
    assert "There is no board" in text


@pytest.mark.parametrize(("flag", "package"), [("--html", "plotly"), ("--figures", "matplotlib")])
def test_what_is_not_installed_is_said_before_any_work(store, monkeypatch, capsys, flag, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["report", flag, "--out", str(store.out)]) == 2
    assert f"{package}: python -m pip install" in capsys.readouterr().err
    assert not (store.out / "leaderboards").exists()


def test_a_baseline_that_no_board_has_is_refused(store, capsys):
    assert main(["report", "--test", "--baseline", "nobody", "--out", str(store.out)]) == 2
    assert "--baseline nobody: no board has such a row; there are " in capsys.readouterr().err


def test_intervals_differences_and_pairs_of_a_tested_board_can_be_read_as_numbers(page):
    text = page.read_text(encoding="utf-8")
    assert "Scores with intervals" in text
    assert "68.00 to 74.00" in text  # over clusters, of 71
    assert "Differences from mean" in text
    assert "EXPLORATORY: every pair" in text
    assert "are not tested" not in text


def test_a_board_without_tests_says_how_to_make_them(store):
    for path in store.out.glob("tests/*/*.json"):
        path.unlink()
    text = write_report(store, store.out / "r.html").read_text()
    assert "<code>run_bench.py report --test</code>" in text


def test_trainings_that_no_board_shows_have_a_section_of_their_own(tmp_path):
    store = Store(tmp_path)
    log_of(trained(training=training()), tmp_path)
    assert "Trainings without scores" in write_report(store, tmp_path / "r.html").read_text()


def test_files_that_are_not_used_are_named_with_the_reason(store):
    (store.out / "training" / "bad.jsonl").write_text("no json\n")
    (store.out / "tests" / "net").mkdir()
    (store.out / "tests" / "net" / "bad.json").write_text("{}")
    (store.out / "diagnostics" / "bad.json").write_text("{}")
    text = write_report(store, store.out / "r.html").read_text()
    assert "training/bad.jsonl" in text
    assert "tests/net/bad.json" in text
    assert "diagnostics/bad.json" in text


def test_a_diagnosis_has_a_section_whose_rows_hold_the_scores(page):
    text = page.read_text(encoding="utf-8")
    section = text[text.index("<h2>Diagnostics: A, org/net</h2>") :]
    row = section[section.index('data-order="mean"') :]
    assert '<td class="number" data-order="60.0">60.00</td>' in row[: row.index("</tr>")]


# In a real browser


@pytest.fixture
def tab(page, tmp_path):
    if chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with browser(tmp_path / "profile") as tab:
        yield tab
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


ROWS = "[...document.querySelectorAll('#table-1 tbody tr')].filter(r => !r.hidden).map(r => r.cells[1].textContent)"


def columns(tab):
    heads = "[...document.querySelectorAll('#table-1 thead th')].map(th => th.textContent.trim())"
    return {name: position + 1 for position, name in enumerate(tab.run(heads))}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_every_chart_is_drawn_and_nothing_is_fetched(tab, page, scheme, width):
    tab.open(page.as_uri(), width=width, scheme=scheme)
    count = tab.run("document.querySelectorAll('.plot').length")
    assert count >= 5
    for number in range(count):
        tab.run(f"document.getElementById('chart-{number}').scrollIntoView()")
        tab.until(f"document.querySelector('#chart-{number} svg.main-svg') !== null")
    assert {url for url in tab.requests if not url.startswith(("data:", "blob:"))} == {page.as_uri()}
    assert tab.complaints == []
    assert tab.run("window.broken") is None
    assert tab.run("document.documentElement.scrollWidth") == width  # the page itself never scrolls sideways


def test_a_click_on_a_heading_sorts_and_says_so(tab, page):
    tab.open(page.as_uri())
    tab.until("document.querySelector('#chart-0 svg') !== null")
    column = columns(tab)["A"]
    head = f"#table-1 thead th:nth-child({column})"
    by_score = ["scalar-mix+batch-softmax", "mean", "mean-sqrt-len", "mean(layer=2)", "mean(layer=0)", EVIL]
    tab.click(f"{head} button")
    assert tab.run(f"document.querySelector({head!r}).getAttribute('aria-sort')") == "descending"
    assert tab.run(ROWS) == by_score
    tab.click(f"{head} button")
    assert tab.run(f"document.querySelector({head!r}).getAttribute('aria-sort')") == "ascending"
    assert [*tab.run(ROWS)[:3]] == [EVIL, "mean(layer=0)", "mean(layer=2)"]


def test_rows_can_be_filtered_by_word_training_and_equality(tab, page):
    tab.open(page.as_uri())
    tab.run("document.querySelector('[data-filter=words]').focus()")
    tab.send("Input.insertText", text="LAYER= mean")
    assert sorted(tab.run(ROWS)) == ["mean(layer=0)", "mean(layer=2)"]
    assert tab.run("document.querySelector('.count').textContent") == "2 of 6 methods"
    clear = (
        "const i = document.querySelector('[data-filter=words]'); i.value = ''; i.dispatchEvent(new Event('input'))"
    )
    tab.run(f"{{ {clear} }}")
    tab.click("[data-filter=twins]")
    assert "mean-sqrt-len" not in tab.run(ROWS)
    choose = "s.value = 'trained head'; s.dispatchEvent(new Event('input'))"
    tab.run(f"{{ const s = document.querySelector('[data-filter=regime]'); {choose} }}")
    assert tab.run(ROWS) == ["scalar-mix+batch-softmax"]


def test_the_records_of_a_row_open_by_keyboard_and_those_of_a_score_by_click(tab, page):
    tab.open(page.as_uri())
    rows = "[...document.querySelectorAll('#records tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    tab.run("document.querySelector('tr[data-regime=\"trained head\"] .open').focus()")
    tab.press("Enter")
    tab.until("document.querySelector('dialog').open")
    assert [row[:3] for row in tab.run(rows)] == [
        *(["A", "0", "70.0000"], ["A", "1", "72.0000"]),
        *(["B", "0", "70.0000"], ["B", "1", "72.0000"]),
    ]
    tab.press("Escape")
    tab.until("!document.querySelector('dialog').open")
    assert tab.run("document.activeElement.textContent") == "scalar-mix+batch-softmax"
    tab.click("tr[data-regime='trained head'] td[data-task=B]")
    assert [row[:2] for row in tab.run(rows)] == [["B", "0"], ["B", "1"]]


def test_a_choice_changes_what_a_chart_shows(tab, page):
    tab.open(page.as_uri())
    tab.run("document.querySelector('select[data-choice]').closest('figure').querySelector('.plot').scrollIntoView()")
    select = "document.querySelector('select[data-choice]')"
    place = f"document.getElementById('chart-' + {select}.dataset.chart)"
    tab.until(f"{place}.querySelector('svg') !== null")
    shown = f"{place}.data.filter(t => t.visible).map(t => t.meta[0])"
    assert set(tab.run(shown)) == {0}
    tab.run(f"{select}.value = 1, {select}.dispatchEvent(new Event('change'))")
    assert set(tab.run(shown)) == {1}


def test_every_control_and_chart_has_a_name(tab, page):
    tab.open(page.as_uri())
    unnamed = """[...document.querySelectorAll('button, select, input, [role=img], [role=region], table')].filter(e =>
        !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.closest('.numbers, dialog')))
        .map(e => e.outerHTML.slice(0, 80))"""
    assert tab.run(unnamed) == []
    levels = tab.run("[...document.querySelectorAll('main h2, main h3, main h4')].map(h => Number(h.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))
