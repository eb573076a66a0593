from __future__ import annotations

import re
import signal
import threading
import time

import numpy as np
import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods import engine
from fusebench.methods.encoder import Encoder
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import parse
from fusebench.methods.registry import cards
from fusebench.methods.states import LayerStates, Needs
from tests.tiny_models import backbone_of, folder_of, load

SENTENCES = [
    "mean",
    "cls",
    "max",
    "last-token",
    "weighted-mean",
    "mean-sqrt-len",
    "mean(layer=1)",
    "cls(layer=0)",
    "first-last",
    "first-last(first=0)",
    "last-k-mean(k=2)",
    "last-k-sum(k=2)",
    "last-k-concat(k=2)",
    "layer-mean",
    "max-cls",
    "max-mean",
    "sbert-wk",
]
WORDS = [f"w{i}" for i in range(40)]


def texts_of(count, seed=0, longest=60):
    """Different texts of mixed lengths."""
    generator = np.random.default_rng(seed)
    made = [" ".join(generator.choice(WORDS, generator.integers(1, longest))) for _ in range(count * 2)]
    return list(dict.fromkeys(made))[:count]


TEXTS = texts_of(40)


@pytest.fixture(autouse=True)
def _no_memory_ran_out_before(monkeypatch):
    monkeypatch.setattr(engine, "_fitting", {})


@pytest.fixture(params=["bert", "gpt2"])
def backbone(request):
    return backbone_of(request.param)


@pytest.fixture
def bert():
    return backbone_of("bert")


def fusions_of(backbone, sentences=SENTENCES):
    return {sentence: parse(sentence).build_fusion(backbone.shape) for sentence in sentences}


def shared_pass(backbone, sentences=SENTENCES, **settings):
    return SharedPass(backbone, fusions_of(backbone, sentences), **settings)


def vectors_of(shared, texts, sentences=SENTENCES):
    rows = shared.rows(texts)
    return {sentence: shared.vectors(sentence)[rows] for sentence in sentences}


class Counted:
    """Counts what goes through a backbone's model."""

    def __init__(self, backbone, monkeypatch):
        self.inputs = []
        self.calls = 0
        states = backbone.states

        def counting(ids, *args, **kwargs):
            self.calls += 1
            self.inputs.extend(row.tobytes() for row in ids)
            return states(ids, *args, **kwargs)

        monkeypatch.setattr(backbone, "states", counting)


# One pass for all


def test_every_registered_fusion_without_weights_or_template_is_in_the_comparison(bert):
    names = {card.name for card in cards("fusion") if not card.learned}
    assert names - {parse(sentence).fusion.name for sentence in SENTENCES} <= {"prompt-mask"}


def test_a_shared_pass_gives_each_method_what_it_gets_alone_bit_for_bit(backbone):
    together = vectors_of(shared_pass(backbone), TEXTS)
    for sentence in SENTENCES:
        alone = Encoder(backbone, parse(sentence)).encode(TEXTS)
        assert alone.dtype == np.float32
        assert np.array_equal(together[sentence], alone), sentence


def test_vectors_hardly_depend_on_which_other_texts_are_there(backbone):
    together = vectors_of(shared_pass(backbone), TEXTS)
    for sentence in SENTENCES:
        some = Encoder(backbone, parse(sentence)).encode(TEXTS[:5])
        np.testing.assert_allclose(together[sentence][:5], some, rtol=1e-5, atol=1e-5)


def test_vectors_are_the_fusion_of_the_text_alone(backbone):
    together = vectors_of(shared_pass(backbone), TEXTS[:6])
    fusions = fusions_of(backbone)
    for place, text in enumerate(TEXTS[:6]):
        states = backbone.states(backbone.tokenize([text]).ids, Needs.TOKENS)
        for sentence, fusion in fusions.items():
            expected = fusion(states)[0].numpy()
            np.testing.assert_allclose(together[sentence][place], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sentences", [["mean"], SENTENCES, [*SENTENCES, *(f"cls(layer={k})" for k in range(3))]])
def test_the_model_sees_each_distinct_input_once_whatever_the_methods(bert, monkeypatch, sentences):
    counted = Counted(bert, monkeypatch)
    shared = shared_pass(bert, sentences)
    spellings = [spelled for text in TEXTS for spelled in (text, text.upper(), f" {text}  ")]
    shared.ensure(spellings + TEXTS)
    shared.ensure(TEXTS)
    vectors_of(shared, spellings, sentences)
    distinct = {row.tobytes() for row in bert.tokenize(TEXTS).ids}
    assert len(distinct) == len(TEXTS)
    assert sorted(counted.inputs) == sorted(distinct)
    statistics = shared.statistics
    assert statistics.texts == 5 * len(TEXTS)
    assert statistics.distinct_texts == 3 * len(TEXTS)
    assert statistics.distinct_inputs == len(TEXTS)
    assert statistics.tokens == sum(len(row) for row in bert.tokenize(TEXTS).ids)
    assert statistics.batches == counted.calls
    assert statistics.padded_tokens >= statistics.tokens


def test_spellings_that_the_tokenizer_cannot_tell_apart_share_a_row(bert):
    shared = shared_pass(bert, ["mean"])
    rows = shared.rows(["the cat", "THE CAT", "the  cat ", "a dog"])
    assert rows.tolist() == [0, 0, 0, 1]


def test_texts_that_come_later_are_passed_on_demand_and_leave_earlier_rows_alone(bert, monkeypatch):
    counted = Counted(bert, monkeypatch)
    shared = shared_pass(bert)
    first = vectors_of(shared, TEXTS[:10])
    assert len(counted.inputs) == 10
    rows = shared.rows(TEXTS[5:15])
    assert len(counted.inputs) == 15
    assert rows.tolist() == list(range(5, 15))
    again = vectors_of(shared, TEXTS[:10])
    assert all(np.array_equal(first[sentence], again[sentence]) for sentence in SENTENCES)
    assert shared.vectors("mean").shape == (15, 32)


def test_no_text_makes_no_rows(backbone):
    shared = shared_pass(backbone)
    for sentence, vectors in vectors_of(shared, []).items():
        assert vectors.shape == (0, shared.fusions[sentence].out_dim)
    assert Encoder(backbone, parse("mean+normalize")).encode([]).shape == (0, 32)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_vectors_cannot_be_written_into(bert, sentence):
    shared = shared_pass(bert)
    shared.ensure(TEXTS[:3])
    with pytest.raises(ValueError, match="read-only"):
        shared.vectors(sentence)[0] = 0


def test_truncated_texts_are_counted(bert):
    shared = shared_pass(bert, ["mean"])
    long = ["w1 " * 300, "w2 " * 158, "w2 " * 159]
    shared.ensure([*long, *long, "a dog"])
    assert shared.statistics.truncated == 2
    assert [shared.truncated([text]) for text in [*long, "a dog"]] == [1, 0, 1, 0]
    assert shared.truncated(long + long) == 2


def test_progress_ends_at_the_whole(bert):
    seen = []
    shared = shared_pass(bert, ["mean"], progress=lambda done, total: seen.append((done, total)), batch_tokens=200)
    shared.ensure(TEXTS)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (shared.statistics.tokens, shared.statistics.tokens)
    assert len(seen) == shared.statistics.batches > 3


# What must not change a result


@pytest.mark.parametrize("workers", [1, 3])
def test_results_do_not_depend_on_the_number_of_workers(backbone, workers):
    reference = vectors_of(shared_pass(backbone, workers=2, batch_tokens=150), TEXTS)
    before = torch.get_num_threads()
    other = vectors_of(shared_pass(backbone, workers=workers, batch_tokens=150), TEXTS)
    assert torch.get_num_threads() == before
    assert all(np.array_equal(reference[sentence], other[sentence]) for sentence in SENTENCES)


@pytest.mark.parametrize("batch_tokens", [1, 70, 10**6])
def test_results_hardly_depend_on_the_size_of_a_batch(backbone, batch_tokens):
    reference = vectors_of(shared_pass(backbone), TEXTS)
    other = vectors_of(shared_pass(backbone, batch_tokens=batch_tokens), TEXTS)
    for sentence in SENTENCES:
        np.testing.assert_allclose(other[sentence], reference[sentence], rtol=1e-5, atol=1e-5)


# Templates


def test_methods_with_different_templates_cannot_share_a_pass(bert):
    with pytest.raises(ValueError, match="share one template"):
        shared_pass(bert, ["mean", "prompt-mask"])


def test_a_template_makes_a_pass_of_its_own(bert):
    template = 'this sentence of "{text}" means {mask}.'
    sentence = f"prompt-mask(template={template!r})"
    vectors = Encoder(bert, parse(sentence)).encode(TEXTS)
    tokenized = bert.tokenize(TEXTS, template)
    for place, (ids, marker) in enumerate(zip(tokenized.ids, tokenized.marker, strict=True)):
        expected = bert.states([ids]).hidden[-1][0, int(marker)]
        np.testing.assert_allclose(vectors[place], expected.numpy(), rtol=0, atol=1e-5)
    assert np.abs(vectors - Encoder(bert, parse("mean")).encode(TEXTS)).max() > 0.1


# Memory


def out_of_memory(kind):
    """The ways in which torch says that memory is gone."""
    if kind == "cuda":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if kind == "cpu":
        return RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes."
        )
    return MemoryError()


def limit_rows(backbone, monkeypatch, rows, kind="cuda"):
    """A backbone that runs out of memory with more than so many rows."""
    states, sizes = backbone.states, []

    def limited(ids, *args, **kwargs):
        if len(ids) > rows:
            raise out_of_memory(kind)
        sizes.append(len(ids))
        return states(ids, *args, **kwargs)

    monkeypatch.setattr(backbone, "states", limited)
    return sizes


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["cuda", "cpu", "python"])
def test_a_batch_that_does_not_fit_is_halved(bert, monkeypatch, kind, workers):
    reference = vectors_of(shared_pass(bert), TEXTS)
    sizes = limit_rows(bert, monkeypatch, 3, kind)
    shared = shared_pass(bert, batch_tokens=800, workers=workers)
    halved = vectors_of(shared, TEXTS)
    for sentence in SENTENCES:
        np.testing.assert_allclose(halved[sentence], reference[sentence], rtol=1e-5, atol=1e-5)
    assert max(sizes) <= 3
    assert sum(sizes) == len(TEXTS)
    assert shared.statistics.batches == len(sizes)
    longest = max(len(row) for row in bert.tokenize(TEXTS).ids)
    assert shared.batch_tokens == 800
    assert 0 < shared.statistics.effective_batch_tokens <= 3 * longest


def test_the_smaller_budget_is_kept_for_later_texts(bert, monkeypatch):
    limit_rows(bert, monkeypatch, 3)
    shared = shared_pass(bert, ["mean"], batch_tokens=800)
    shared.ensure(TEXTS)
    shrunk = shared.statistics.effective_batch_tokens
    longest = max(len(row) for row in bert.tokenize(TEXTS).ids)
    sizes = []
    monkeypatch.undo()
    states = bert.states
    monkeypatch.setattr(bert, "states", lambda ids, *more: sizes.append(sum(map(len, ids))) or states(ids, *more))
    shared.ensure(texts_of(30, seed=5))
    assert max(sizes) <= max(shrunk, longest)


def test_what_did_not_fit_is_not_tried_again_by_later_batches_nor_by_later_passes(bert, monkeypatch):
    sizes, failed = limit_rows(bert, monkeypatch, 3), []
    limited = bert.states

    def counting(ids, *more):
        try:
            return limited(ids, *more)
        except torch.OutOfMemoryError:
            failed.append(len(ids) * max(map(len, ids)))
            raise

    monkeypatch.setattr(bert, "states", counting)
    first = shared_pass(bert, ["mean"], batch_tokens=800, workers=1)
    first.ensure(TEXTS)
    assert failed == sorted(failed, reverse=True)
    assert len(failed) <= 8  # each halves what the others may hold
    later = shared_pass(bert, ["mean"], batch_tokens=800, workers=1)
    assert later.statistics.effective_batch_tokens == first.statistics.effective_batch_tokens < min(failed)
    before = len(failed)
    later.ensure(TEXTS)
    assert len(failed) == before
    assert sum(sizes) == 2 * len(TEXTS)
    assert shared_pass(backbone_of("gpt2"), ["mean"]).statistics.effective_batch_tokens == 1024


@pytest.mark.parametrize("kind", ["cuda", "cpu", "python"])
def test_one_input_that_does_not_fit_says_what_to_do(bert, monkeypatch, kind):
    limit_rows(bert, monkeypatch, 0, kind)
    with pytest.raises(InputError, match=r"one input of \d+ tokens does not fit .*--max-length.*--batch-tokens"):
        shared_pass(bert).ensure(TEXTS)


def test_memory_that_ends_in_a_fusion_counts_too(bert, monkeypatch):
    shared = shared_pass(bert, ["max"], batch_tokens=800)
    forward = shared.live["max"].forward

    def limited(states):
        if len(states.mask) > 2:
            raise out_of_memory("cuda")
        return forward(states)

    monkeypatch.setattr(shared.live["max"], "forward", limited)
    reference = Encoder(bert, parse("max")).encode(TEXTS)
    np.testing.assert_allclose(vectors_of(shared, TEXTS, ["max"])["max"], reference, rtol=0, atol=1e-5)


# Failures


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("no"), IndexError("index 9")])
def test_other_errors_are_not_taken_for_a_lack_of_memory(bert, monkeypatch, error):
    calls = []

    def fail(ids, *args):
        calls.append(len(ids))
        raise error

    monkeypatch.setattr(bert, "states", fail)
    with pytest.raises(type(error), match=re.escape(str(error))):
        shared_pass(bert, workers=1).ensure(TEXTS)
    assert len(calls) == 1


def fail_after(backbone, monkeypatch, batches, error):
    """A backbone that fails once some batches went well."""
    states, calls = backbone.states, []

    def failing(ids, *args):
        calls.append(len(ids))
        if len(calls) > batches:
            raise error
        return states(ids, *args)

    monkeypatch.setattr(backbone, "states", failing)
    return calls


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_the_middle_leaves_nothing_half_filled(bert, monkeypatch, workers):
    reference = vectors_of(shared_pass(bert), TEXTS)
    shared = shared_pass(bert, batch_tokens=150, workers=workers)
    early = vectors_of(shared, TEXTS[:8])
    with monkeypatch.context() as patch:
        calls = fail_after(bert, patch, 2, RuntimeError("broken in the middle"))
        with pytest.raises(RuntimeError, match="broken in the middle"):
            shared.ensure(TEXTS)
        assert 2 < len(calls) <= 2 + workers
    assert all(len(shared.vectors(sentence)) == 8 for sentence in SENTENCES)
    kept = vectors_of(shared, TEXTS[:8])
    assert all(np.array_equal(early[sentence], kept[sentence]) for sentence in SENTENCES)
    with monkeypatch.context() as patch:
        fail_after(bert, patch, 0, RuntimeError("still broken"))
        with pytest.raises(RuntimeError, match="still broken"):
            shared.rows(TEXTS[:20])
    complete = vectors_of(shared, TEXTS)
    for sentence in SENTENCES:
        np.testing.assert_allclose(complete[sentence], reference[sentence], rtol=1e-5, atol=1e-5)
    assert shared.statistics.distinct_inputs == len(TEXTS)
    assert shared.statistics.distinct_texts == len(TEXTS)


def test_a_text_without_tokens_leaves_the_pass_as_it_was():
    shared = shared_pass(backbone_of("gpt2"), ["mean"])
    with pytest.raises(InputError, match="no token"):
        shared.ensure(["a dog", ""])
    assert shared.vectors("mean").shape == (0, 32)
    assert shared.rows(["a dog"]).tolist() == [0]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_progress_callback_that_fails_stops_the_pass(bert, workers):
    def broken(done, total):
        raise BrokenPipeError("nobody reads")

    shared = shared_pass(bert, ["mean"], batch_tokens=150, workers=workers, progress=broken)
    with pytest.raises(BrokenPipeError):
        shared.ensure(TEXTS)
    assert shared.vectors("mean").shape == (0, 32)


def test_no_room_for_the_vectors_leaves_the_pass_as_it_was(bert, monkeypatch):
    shared = shared_pass(bert)
    shared.ensure(TEXTS[:4])
    with monkeypatch.context() as patch:

        def full(shape, **kwargs):
            raise MemoryError("no room")

        patch.setattr(np, "empty", full)
        with pytest.raises(MemoryError, match="no room"):
            shared.ensure(TEXTS)
    assert len(vectors_of(shared, TEXTS)["mean"]) == len(TEXTS)
    assert np.array_equal(shared.rows(TEXTS), np.arange(len(TEXTS)))


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal; a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_after_the_batches_in_work(bert, monkeypatch, ctrl_c):
    states, calls, running = bert.states, [], threading.Event()

    def slow(ids, *args):
        calls.append(len(ids))
        running.set()
        time.sleep(0.2)
        return states(ids, *args)

    monkeypatch.setattr(bert, "states", slow)
    shared = shared_pass(bert, ["mean", "max"], batch_tokens=1, workers=2)

    main = threading.get_ident()

    def press():
        running.wait()
        time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=press).start()
    before, threads = torch.get_num_threads(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        shared.ensure(TEXTS)
    assert len(calls) <= 10  # of 40 batches
    assert threading.active_count() <= threads
    assert torch.get_num_threads() == before
    assert shared.vectors("mean").shape == shared.vectors("max").shape == (0, 32)


def test_an_interrupt_in_a_worker_reaches_the_caller(bert, monkeypatch):
    calls = fail_after(bert, monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        shared_pass(bert, batch_tokens=1, workers=2).ensure(TEXTS)
    assert len(calls) <= 4


def test_nan_from_the_backbone_is_not_hidden(bert, monkeypatch):
    states = bert.states

    def poisoned(ids, *args):
        out = states(ids, *args)
        hidden = tuple(state.clone() for state in out.hidden)
        for state in hidden:
            state[0, 0, 3] = torch.nan
        return LayerStates(hidden, out.mask, out.attention, out.marker)

    monkeypatch.setattr(bert, "states", poisoned)
    shared = shared_pass(bert)
    vectors = vectors_of(shared, TEXTS[:4])
    for sentence in set(SENTENCES) - {"last-token"}:
        assert np.isnan(vectors[sentence]).any(), sentence
        assert not np.isnan(vectors[sentence]).all(), sentence
    assert not np.isnan(vectors["last-token"]).any()


# The real one


def test_the_embedded_backbone_gives_the_embeddings_of_sentence_transformers(monkeypatch):
    from sentence_transformers import SentenceTransformer

    from fusebench.methods.backbone import Backbone
    from fusebench.methods.backbone_source import DEFAULT, find_backbone

    source = find_backbone(DEFAULT)
    nouns, verbs = ["a cat", "the mayor", "Rust", "heavy rain", "nobody"], ["sees", "buys", "writes", "forgets", "is"]
    short = [
        f"{who.title()} {does} {what} no. {i}!"
        for i, (who, does, what) in enumerate(
            (who, does, what) for who in nouns for does in verbs for what in ("the moon", "protein folding")
        )
    ]
    long = [" ".join(f"{word} {i} of {seed}" for i in range(150)) for seed, word in enumerate(nouns)]
    texts = short + long
    assert (len(short), len(long)) == (50, 5)
    shared = shared_pass(Backbone(source), ["mean"])
    vectors = vectors_of(shared, texts, ["mean"])["mean"]
    expected = SentenceTransformer(str(source.folder), device="cpu").encode(texts)
    assert shared.truncated(texts) == 5
    cosines = np.sum(vectors * expected, axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.abs(1 - cosines).max() < 1e-5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, expected @ expected.T, rtol=0, atol=1e-5)


def test_encoders_fit_their_transforms_on_the_fit_texts_only(bert):
    method = parse("mean+standardize")
    encoder = Encoder(bert, method, fit_texts=TEXTS[:30])
    plain = Encoder(bert, parse("mean")).encode(TEXTS)
    fit, rest = plain[:30], plain[30:]
    expected = (rest - fit.mean(axis=0)) / fit.std(axis=0)
    np.testing.assert_allclose(encoder.encode(TEXTS[30:]), expected, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="fit texts"):
        Encoder(bert, method)


def test_half_precision_vectors_are_stored_as_float32():
    backbone = load(folder_of("bert"), dtype="bfloat16")
    vectors = vectors_of(shared_pass(backbone), TEXTS[:5])
    assert {array.dtype for array in vectors.values()} == {np.dtype("float32")}
