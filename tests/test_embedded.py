from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from fusebench.benchmarks import embedded
from fusebench.benchmarks.embedded import document_pairs, fit_articles, fit_sentences, known_items, sentences
from fusebench.errors import InputError


def _key(text):
    return " ".join(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rained. Then it stopped.", ["It rained.", "Then it stopped."]),
        ("Dr. Smith came at 4 p.m. Tuesday. He left.", ["Dr. Smith came at 4 p.m. Tuesday.", "He left."]),
        ("J. R. Ewing paid $3.50 for it.", ["J. R. Ewing paid $3.50 for it."]),
        ('"We won." He smiled.  "Again!" (So they say.) 9 people saw it.', None),
        ("One", ["One"]),
        ("  ", []),
    ],
)
def test_sentences_end_at_a_full_stop_but_not_after_an_abbreviation(text, expected):
    if expected is None:
        expected = ['"We won."', "He smiled.", '"Again!"', "(So they say.)", "9 people saw it."]
    assert sentences(text) == expected


def test_splitting_loses_no_character():
    for article in embedded._read("lee_background.cor").split("\n"):
        assert " ".join(sentences(article)) == " ".join(article.split())


def test_lee_sts_has_every_pair_of_fifty_documents_once():
    first, second, score = document_pairs()
    assert len(first) == 50 * 49 // 2 == len(set(zip(first, second, strict=True)))
    assert min(score) >= 0
    assert max(score) <= 1


def test_lee_sts_equals_the_published_folder(data_dir, tmp_path):
    from fusebench.benchmarks.tasks import find_tasks, load_task

    ours, theirs = (load_task(s, limit=None, allow_empty=False) for s in find_tasks(["LeeSTS", "Lee2005"], data_dir))
    assert ours.spec.data_sha256 == theirs.spec.data_sha256


def test_each_query_stands_in_no_other_document():
    items = known_items()
    assert len(items) == 145
    assert set(range(150)) - set(items) == {72, 107, 112, 119, 120}
    for number, (query, _) in items.items():
        for other, (first, rest) in items.items():
            assert other == number or _key(query) not in _key(f"{first} {rest}")


def test_nothing_that_is_judged_is_fitted_on():
    judged = {_key(s) for article in embedded._articles()[:150] for s in article}
    judged |= {_key(s) for document in embedded.documents() for s in sentences(document)}
    assert not judged & {_key(s) for s in fit_sentences()}
    whole = {_key(" ".join(article)) for article in embedded._articles()[:150]}
    assert not whole & {_key(" ".join(article)) for article in fit_articles()}


def test_fit_texts_are_distinct_and_in_order():
    articles, flat = fit_articles(), fit_sentences()
    assert len(articles) == len(set(map(tuple, articles))) == 146
    assert len(flat) == len(set(flat)) == 1288
    assert flat == list(dict.fromkeys(s for article in articles for s in article))


def test_a_changed_or_missing_file_says_reinstall_gensim(tmp_path, monkeypatch):
    monkeypatch.setattr(
        embedded.importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")),
    )
    read = embedded._read.__wrapped__
    with pytest.raises(InputError, match=r"lee.cor is missing .* reinstall gensim"):
        read("lee.cor")
    folder = tmp_path / "test" / "test_data"
    folder.mkdir(parents=True)
    (folder / "lee.cor").write_text("other")
    with pytest.raises(InputError, match=r"not the one expected: reinstall gensim"):
        read("lee.cor")
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gensim"):
        read("lee.cor")
