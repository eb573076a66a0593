from __future__ import annotations

import subprocess
import sys

import pytest

from fusebench.benchmarks.suites import SUITES, suite
from fusebench.errors import InputError


def test_importing_the_modules_does_not_import_mteb_datasets_or_torch():
    code = (
        "import sys; import fusebench.benchmarks.suites, fusebench.benchmarks.tasks; "
        "import fusebench.benchmarks.embedded, fusebench.benchmarks.mteb_bridge; "
        "print([m for m in ('mteb', 'datasets', 'torch', 'gensim') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_suite_names_each_task_once():
    for entry in SUITES.values():
        assert len(set(entry.tasks)) == len(entry.tasks)
        assert entry.summary


@pytest.mark.parametrize(("ours", "theirs"), [("nano-beir", "NanoBEIR"), ("mteb-eng-v2", "MTEB(eng, v2)")])
def test_a_suite_has_the_sts_and_retrieval_tasks_of_mteb(ours, theirs):
    import mteb

    tasks = {t.metadata.name for t in mteb.get_benchmark(theirs).tasks if t.metadata.type in ("STS", "Retrieval")}
    assert set(suite(ours).tasks) == tasks


def test_the_subsets_of_a_task_are_those_of_mteb_eng_v2():
    import mteb

    from fusebench.benchmarks.task_source import mteb_task

    for theirs in mteb.get_benchmark("MTEB(eng, v2)").tasks:
        if theirs.metadata.name in suite("mteb-eng-v2").tasks:
            ours = mteb_task(theirs.metadata.name)
            assert (ours.hf_subsets, list(ours.eval_splits)) == (theirs.hf_subsets, list(theirs.eval_splits))


def test_every_task_of_a_suite_can_be_found():
    from fusebench.benchmarks.tasks import find_tasks

    names = [name for entry in SUITES.values() for name in entry.tasks]
    assert [source.name for source in find_tasks(names, None)] == list(dict.fromkeys(names))


def test_an_unknown_suite_is_answered_with_the_nearest_name():
    with pytest.raises(InputError, match=r"no suite 'mteb-st'\. Did you mean 'mteb-sts'"):
        suite("mteb-st")
    with pytest.raises(InputError, match="Choose one of: embedded, mteb-sts"):
        suite("?")
