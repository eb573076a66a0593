"""Method sentences: one spelling for one method, the same vectors for every spelling, and reasons for refusals."""

import itertools
import math
import typing
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fusebench.methods  # noqa: F401  registers the parts
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.encoder import fit_transforms
from fusebench.methods.grammar import Method, parse
from fusebench.methods.parts import Fusion, Objective
from fusebench.methods.registry import card, cards, register
from fusebench.methods.spelling import Part, split
from fusebench.methods.states import LayerStates, Needs, StateShape

SIX = StateShape(blocks=6, dim=8)
FUSIONS = [one.name for one in cards("fusion") if not one.learned]
TRANSFORMS = [one.name for one in cards("transform")]
SAMPLERS = [one.name for one in cards("sampler")]


class Learned(Fusion):
    """A learned weight for each dimension of one layer."""

    needs = Needs.MEANS

    def __init__(self, shape, *, layer: int = -1, width: int = 4):
        super().__init__()
        self.layers = (shape.index(layer),)
        self.out_dim = shape.dim
        self.weight = torch.nn.Parameter(torch.randn(shape.dim))

    def forward(self, states):
        return states.mean(self.layers[0]) * self.weight


class Contrast(Objective):
    """A loss of nothing."""

    reads = ("pairs",)

    def forward(self, embeddings, labels=None, groups=None):
        return embeddings[0].new_zeros(())


class Other(Contrast):
    """Another loss, with a parameter."""

    def __init__(self, *, scale: float = 1.0):
        super().__init__()
        if scale <= 0:
            raise InputError(f"other-test(scale={scale}): must be above 0.")
        self.scale = scale


@pytest.fixture(autouse=True, scope="module")
def _trained_parts():
    """A learned fusion and two objectives, whether or not the project has some."""
    before = dict(registry._CARDS)
    register("learned-test", paper="none", learned=True)(Learned)
    register("contrast-test", paper="none")(Contrast)
    register("other-test", paper="none")(Other)
    yield
    registry._CARDS.clear()
    registry._CARDS.update(before)


def only(sentence, shape=SIX):
    (method,) = parse(sentence).on(shape)
    return method.name


@pytest.mark.parametrize(
    ("sentence", "canonical"),
    [
        ("mean", "mean"),
        (" mean ( ) ", "mean"),
        ("mean(layer=-1)", "mean"),
        ("mean( layer = 3 )", "mean(layer=3)"),
        ("mean(layer=+3)", "mean(layer=3)"),
        ("mean@each", "mean@each"),
        ("mean(layer=-1)@each", "mean@each"),
        ("mean + whiten( k = 256 )", "mean+whiten(k=256)"),
        ("mean+whiten(k=none,eps=1e-9)", "mean+whiten"),
        ("mean+whiten(eps=1)", "mean+whiten(eps=1.0)"),
        ("mean+whiten(eps=0.001, k=3)", "mean+whiten(k=3,eps=0.001)"),
        ("mean+normalize+whiten", "mean+normalize+whiten"),
        ("mean+whiten+normalize", "mean+whiten+normalize"),
        ("sbert-wk(edge='released')", "sbert-wk(edge=released)"),
        ('prompt-mask(template="{text}, {mask} (x+y)")', 'prompt-mask(template="{text}, {mask} (x+y)")'),
        ("learned-test(untrained)", "learned-test(untrained)"),
        ("learned-test(untrained, layer=2)", "learned-test(layer=2,untrained)"),
        ("whiten+contrast-test+mean", "mean+contrast-test+whiten"),
        ("mean+pdg+contrast-test+mdg", "mean+contrast-test+mdg+pdg"),
        ("mean+contrast-test+mdg+pdg", "mean+contrast-test+mdg+pdg"),
        ("mean+contrast-test+other-test", "mean+contrast-test+other-test"),
        ("other-test+mean+contrast-test", "mean+other-test+contrast-test"),
        ("contrast-test+other-test+contrast-test+mean", "mean+contrast-test+other-test+contrast-test"),
        ("other-test(scale=2.0)+mean+other-test", "mean+other-test(scale=2.0)+other-test"),
        ("whiten+file-order+mdg+contrast-test+mean", "mean+contrast-test+mdg+file-order+whiten"),
        ("mean+contrast-test+example-shuffling(first_epoch=file)", "mean+contrast-test+example-shuffling"),
    ],
)
def test_a_sentence_has_one_canonical_name(sentence, canonical):
    assert parse(sentence).name == canonical
    assert parse(canonical) == parse(sentence)


@pytest.mark.parametrize(
    ("sentence", "simplest"),
    [
        ("mean(layer=-1)", "mean"),
        ("mean(layer=6)", "mean"),
        ("mean(layer=-7)", "mean(layer=0)"),
        ("max(layer=-2)", "max(layer=5)"),
        ("prompt-mask(layer=6)", "prompt-mask"),
        ("last-k-mean(k=1)", "mean"),
        ("last-k-sum(k=1)", "mean"),
        ("last-k-concat(k=1)", "mean"),
        ("last-k-mean(k=4)", "last-k-mean"),
        ("last-k-mean(k=6)", "layer-mean(first=1)"),
        ("last-k-mean(k=7)", "layer-mean"),
        ("layer-mean(first=-7)", "layer-mean"),
        ("layer-mean(first=3)", "last-k-mean"),
        ("layer-mean(first=6)", "mean"),
        ("max-cls(first=-1)", "cls"),
        ("max-mean(first=6)", "mean"),
        ("max-mean(first=-6)", "max-mean"),
        ("first-last(first=-6)", "first-last"),
        ("first-last(first=5)", "last-k-mean(k=2)"),
        ("first-last(first=-1)", "mean"),
        ("sbert-wk(first=2)", "sbert-wk"),
        ("sbert-wk(first=-5)", "sbert-wk"),
        ("sbert-wk(window=99)", "sbert-wk(window=4)"),
        ("sbert-wk(window=1,edge=released)", "sbert-wk(window=1)"),
        ("sbert-wk(edge=released)", "sbert-wk(edge=released)"),
        ("mean(layer=6)+whiten(k=3)", "mean+whiten(k=3)"),
        ("learned-test(layer=6,untrained)", "learned-test(untrained)"),
    ],
)
def test_equivalent_spellings_on_six_blocks_resolve_to_one(sentence, simplest):
    assert only(sentence) == simplest


def test_what_a_spelling_means_depends_on_the_backbone():
    assert only("mean(layer=6)", StateShape(12, 8)) == "mean(layer=6)"
    assert only("first-last", StateShape(2, 8)) == "layer-mean(first=1)"
    assert only("first-last", StateShape(1, 8)) == "mean"
    assert only("sbert-wk(first=4)", StateShape(12, 8)) == "sbert-wk"


@cache
def states_on(shape):
    generator = torch.Generator().manual_seed(7)
    start = 2 * torch.randn(3, 5, shape.dim, generator=generator).double()
    steps = torch.randn(shape.states, 3, 5, shape.dim, generator=generator).double()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]).bool()
    return LayerStates((start + steps.cumsum(dim=0)).unbind(), mask, marker=torch.tensor([1, 2, 0]))


def vectors(fusion, shape):
    """The fusion's vectors, or None where it cannot be built."""
    try:
        return fusion.card.part(shape, **dict(fusion.params)).eval()(states_on(shape))
    except InputError:
        return None


def small_values(kind):
    """Every small value of a parameter of this type, as far as numbers and choices go."""
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    if kind is int:
        return list(range(-8, 9))
    if typing.get_args(kind) and type(None) in typing.get_args(kind):
        return [None, *small_values(typing.get_args(kind)[0])]
    return []


def spellings(name):
    known = card(name)
    choices = [small_values(known.types[key]) or [default] for key, default in known.defaults.items()]
    for values in itertools.product(*choices):
        yield Part.of(name, dict(zip(known.defaults, values, strict=True)))


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
@pytest.mark.parametrize("name", FUSIONS)
def test_the_simplest_spelling_gives_the_same_vectors_and_is_as_simple_as_it_gets(name, blocks):
    shape = StateShape(blocks, 8)
    for part in spellings(name):
        expected = vectors(part, shape)
        if expected is None:
            continue  # refused when built, whatever the spelling
        (simplest,) = Method(part).on(shape)
        assert simplest.on(shape) == (simplest,)
        assert parse(simplest.name) == simplest
        found = vectors(simplest.fusion, shape)
        assert found is not None, f"{part} became {simplest.name}, which cannot be built"
        torch.testing.assert_close(found, expected, msg=f"{part} is not {simplest.name} on {blocks} blocks")


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_methods_with_the_same_vectors_have_the_same_name(blocks):
    shape = StateShape(blocks, 8)
    by_name = {}
    for name in FUSIONS:
        for part in spellings(name):
            if vectors(part, shape) is not None:
                (method,) = Method(part).on(shape)
                by_name[method.name] = vectors(method.fusion, shape)
    for (one, a), (other, b) in itertools.combinations(by_name.items(), 2):
        assert a.shape != b.shape or not torch.allclose(a, b), f"{one} and {other} are the same on {blocks} blocks"


def test_spellings_that_cannot_be_built_are_refused_before_anything_runs():
    for name in FUSIONS:
        for part in spellings(name):
            if vectors(part, SIX) is None:
                with pytest.raises(InputError):
                    Method(part).on(SIX)[0].check(SIX, fit_texts=100)


@pytest.mark.parametrize(
    ("sentence", "lowest"),
    [("mean@each", 0), ("mean@each+whiten(k=3)", 0), ("learned-test(untrained)@each", 0), ("cls@each", 1)],
)
def test_each_gives_one_method_a_state_with_distinct_names(sentence, lowest):
    """CLS starts at 1, because its embedding is the same for every text."""
    methods = parse(sentence).on(SIX)
    assert len({method.name for method in methods}) == len(methods)
    assert [method.build_fusion(SIX).layers for method in methods] == [(layer,) for layer in range(lowest, 7)]
    head, *rest = sentence.replace("@each", "").split("+")
    assert methods[-1].name == "+".join([head, *rest])
    assert {part.untrained for method in methods for part in method.parts[:1]} == {"untrained" in sentence}


EQUAL = [
    ("mean", None),
    ("mean+normalize", "mean"),
    ("mean+whiten", None),
    ("mean+whiten+normalize", "mean+whiten"),
    ("mean+normalize+whiten", None),
    ("mean+normalize+normalize", "mean"),
    ("mean-sqrt-len", "mean"),
    ("mean-sqrt-len(layer=6)", "mean"),
    ("mean-sqrt-len(layer=3)", "mean(layer=3)"),
    ("mean-sqrt-len+whiten", None),
    ("mean-sqrt-len+normalize", "mean"),
    ("mean-sqrt-len+normalize+whiten", "mean+normalize+whiten"),
    ("mean-sqrt-len+standardize", None),
    ("last-k-sum", "last-k-mean"),
    ("last-k-sum(k=7)", "layer-mean"),
    ("last-k-sum+whiten", "last-k-mean+whiten"),
    ("last-k-sum+standardize", "last-k-mean+standardize"),
    ("last-k-sum+abtt+normalize", "last-k-mean+abtt"),
    ("last-k-mean", None),
    ("last-k-sum+contrast-test", None),
    ("mean+contrast-test+normalize", "mean+contrast-test"),
    ("mean-sqrt-len+contrast-test+normalize", "mean-sqrt-len+contrast-test"),
    ("mean+contrast-test+other-test+file-order", None),
]


@pytest.mark.parametrize(("sentence", "twin"), EQUAL)
def test_methods_that_cosine_cannot_tell_apart_are_marked(sentence, twin):
    (method,) = parse(sentence).on(SIX)
    assert method.equal_to(SIX) == twin
    if twin is not None:
        assert parse(twin).on(SIX)[0].equal_to(SIX) is None


def finished(sentence):
    """Vectors of 40 made-up texts of 1 to 9 tokens, transforms fitted on them."""
    generator = torch.Generator().manual_seed(8)
    lengths = 1 + torch.arange(40) % 9
    mask = torch.arange(9) < lengths[:, None]
    hidden = 1 + torch.randn(SIX.states, 40, 9, SIX.dim, generator=generator)
    states = LayerStates(hidden.unbind(), mask)
    (method,) = parse(sentence).on(SIX)
    X = method.build_fusion(SIX)(states).numpy()
    transforms = fit_transforms(method, X)
    for transform in transforms:
        X = transform(X)
    return X.astype(np.float64)


def cosines(sentence):
    X = finished(sentence)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    return X @ X.T


@pytest.mark.parametrize(("sentence", "twin"), [pair for pair in EQUAL if pair[1] and "contrast" not in pair[0]])
def test_marked_methods_have_equal_cosines(sentence, twin):
    np.testing.assert_allclose(cosines(sentence), cosines(twin), atol=1e-4)


def test_methods_that_are_not_marked_really_differ():
    for sentence, other in [
        ("mean-sqrt-len+whiten", "mean+whiten"),
        ("mean-sqrt-len+standardize", "mean+standardize"),
        ("mean+normalize+whiten", "mean+whiten"),
        ("mean+whiten", "mean"),
    ]:
        assert np.abs(cosines(sentence) - cosines(other)).max() > 0.01


@pytest.mark.parametrize("name", [name for name in FUSIONS if name != "prompt-mask"])  # that one reads a template
def test_every_fusion_marked_as_equal_has_equal_cosines_for_all_its_small_parameters(name):
    for part in spellings(name):
        if vectors(part, SIX) is None:
            continue
        (method,) = Method(part).on(SIX)
        twin = method.equal_to(SIX)
        if twin is not None:
            np.testing.assert_allclose(cosines(method.name), cosines(twin), atol=1e-5)


def test_scale_free_transforms_do_not_see_a_common_factor():
    X = finished("mean").astype(np.float32)
    for one in cards("transform"):
        if one.part.scale_free:
            a, b = (one.part().fit(factor * X)(factor * X) for factor in (1, 4))
            unit = [Y / np.linalg.norm(Y, axis=1, keepdims=True) for Y in (a, b)]
            np.testing.assert_allclose(unit[0] @ unit[0].T, unit[1] @ unit[1].T, atol=1e-4)


REFUSED = [
    ("", "empty"),
    ("   ", "empty"),
    ("mean+", r"nothing stands before or after one of the '\+'"),
    ("+mean", "nothing stands"),
    ("mean++whiten", "nothing stands"),
    ("mean(layer=1,)", "nothing stands before or after one of the ','"),
    ("mean+cls", r"has more than one fusion \(mean, cls\); a comma separates methods"),
    ("mean+contrast-test+contrast-test", "has contrast-test twice in a row; objectives are stages"),
    ("mean+contrast-test+mdg+contrast-test", "has contrast-test twice in a row"),
    ("mean+other-test(scale=2.0)+other-test(scale=2)", r"has other-test\(scale=2\.0\) twice in a row"),
    ("mean+contrast-test+file-order+example-shuffling", r"more than one sampler \(file-order, example-shuffling\)"),
    ("mean+contrast-test+file-order+file-order", "more than one sampler"),
    ("file-order", "has no fusion: file-order is a sampler"),
    ("mean+file-order+whiten", "file-order acts only in training"),
    ("mean+file-order(untrained)+contrast-test", "file-order has no weights, so it cannot be untrained"),
    ("mean+contrast-test(untrained)", "contrast-test has no weights, so it cannot be untrained"),
    ("learned-test(untrained)+contrast-test", "learned-test would be trained by contrast-test; leave out untrained"),
    ("learned-test(untrained)+mdg", r"mdg acts only in training.*as in mean\+batch-softmax\+mdg, or leave mdg out"),
    ("mean+contrast-test+file-order@each", "@each goes behind a fusion that has a layer"),
    ("whiten", r"has no fusion: whiten is a transform and follows one, as in mean\+whiten"),
    ("whiten(k=3)+normalize", r"as in mean\+whiten\(k=3\)"),
    ("contrast-test", "has no fusion: contrast-test is an objective"),
    ("mdg", "has no fusion: mdg is a guide"),
    ("mean+mdg", "mdg acts only in training"),
    ("men", "no method 'men'. Did you mean 'mean'"),
    ("mean+whitten", "no method 'whitten'. Did you mean 'whiten'"),
    ("xyzzy", "list methods"),
    ("Mean", "should read name or name"),
    ("mean max", "should read name or name"),
    ("mean whiten", "should read name or name"),
    ("mean(layer=1)(layer=2)", "not closed or opened"),
    ("mean@all", "should read name or name"),
    ("mean(lair=3)", "mean has no parameter 'lair'; it takes layer. Did you mean 'layer'"),
    ("mean(window=3)", "mean has no parameter 'window'; it takes layer"),
    ("mean+normalize(x=1)", "normalize has no parameter 'x'; it takes no parameters"),
    ("mean(3)", "mean has no parameter '3'"),
    ("mean(layer)", "write layer=value, once"),
    ("mean(layer=1,layer=1)", "write layer=value, once"),
    ("mean(layer=)", "valid integer"),
    ("mean(layer=1.5)", "valid integer"),
    ("mean(layer=1.0)", "valid integer"),
    ("mean(layer=true)", "valid integer"),
    ("mean(layer=none)", "valid integer"),
    ("mean(layer=nan)", "valid integer"),
    ("mean(layer=two)", r"mean\(layer=two\) should be a valid integer"),
    ("mean+whiten(eps=nan)", "finite number"),
    ("mean+whiten(eps=-inf)", "finite number"),
    ("mean+whiten(eps=1e999)", "finite number"),
    ("mean+whiten(eps=small)", "valid number"),
    ("sbert-wk(edge=round)", "'clipped' or 'released'"),
    ("prompt-mask(template=3)", "valid string"),
    ("mean(layer=1", "parenthesis is not closed"),
    ("mean)layer=1(", "parenthesis is not closed or opened"),
    ("mean)", "parenthesis is not closed or opened"),
    ("prompt-mask(template='{text})", "quote is not closed"),
    ("mean+whiten@each", "@each goes behind a fusion that has a layer"),
    ("layer-mean@each", "@each goes behind a fusion that has a layer"),
    ("mean(layer=3)@each", "@each goes through all layers, so leave layer=... out"),
    ("mean(untrained)", "mean has no weights, so it cannot be untrained"),
    ("mean+whiten(untrained)", "whiten has no weights, so it cannot be untrained"),
    (
        "learned-test",
        r"nothing before training; add an objective, or write learned-test\(untrained\)",
    ),
]


@pytest.mark.parametrize(("sentence", "reason"), REFUSED)
def test_what_makes_no_method_is_refused_with_a_reason(sentence, reason):
    with pytest.raises(InputError, match=reason):
        parse(sentence)


@pytest.mark.parametrize("sentence", ["mean(layer=7)", "mean(layer=-8)", "first-last(first=7)", "sbert-wk(first=9)"])
def test_a_layer_that_the_backbone_lacks_is_refused(sentence):
    with pytest.raises(InputError, match="does not exist"):
        parse(sentence).on(SIX)


def test_a_trained_fusion_needs_no_untrained_and_a_guide_acts_with_an_objective():
    sentence = "learned-test(width=8)+contrast-test+other-test+mdg(temperature=0.5)+pdg+file-order+whiten"
    method = parse(sentence)
    assert method.name == sentence
    kinds = ["fusion", "objective", "objective", "guide", "guide", "sampler", "transform"]
    assert [part.card.kind for part in method.parts] == kinds


def test_stem_and_unguided_method_leave_out_what_they_say():
    method = parse("mean+contrast-test+other-test+mdg+pdg+file-order+whiten+normalize")
    assert method.stem == parse("mean+contrast-test+other-test+mdg+pdg+file-order")
    assert method.without_guides == parse("mean+contrast-test+other-test+file-order+whiten+normalize")
    assert method.stem.stem == method.stem
    assert method.without_guides.stem == parse("mean+contrast-test+other-test+file-order")


@pytest.mark.parametrize(
    ("sentence", "trained", "random"),
    [
        ("mean+whiten", False, False),
        ("mean+contrast-test+file-order", True, True),
        ("learned-test(untrained)", False, True),
        ("learned-test+contrast-test", True, True),
    ],
)
def test_objectives_train_and_seeds_matter_to_what_is_trained_or_untrained(sentence, trained, random):
    assert (parse(sentence).trained, parse(sentence).random) == (trained, random)


def test_parts_are_built_with_their_parameters_in_their_order():
    method = parse("mean+other-test(scale=2.0)+contrast-test+pdg+mdg(temperature=0.5)+example-shuffling(top_k=9)")
    first, second = method.build_objectives()
    assert (type(first), first.scale, type(second)) == (Other, 2.0, Contrast)
    mdg, pdg = method.build_guides()
    assert (type(mdg), mdg.temperature, type(pdg)) == (card("mdg").part, 0.5, card("pdg").part)
    sampler = method.build_sampler()
    assert (type(sampler), sampler.top_k, sampler.group_size) == (card("example-shuffling").part, 9, 7)


def test_a_guide_on_a_block_that_the_backbone_lacks_is_refused_before_anything_runs():
    method = parse('mean+contrast-test+mdg(layers="5,6")+pdg(layers="2,7")')
    method.check(StateShape(blocks=7, dim=8), fit_texts=100)
    with pytest.raises(InputError, match="there is no block 7; this backbone has 6 blocks"):
        method.check(SIX, fit_texts=100)


def test_without_objectives_guides_and_sampler_nothing_is_built():
    method = parse("mean+whiten")
    assert (method.build_objectives(), method.build_guides(), method.build_sampler()) == ([], [], None)


@pytest.mark.parametrize(
    "sentence",
    [
        "mean+other-test(scale=0.0)",
        "mean+contrast-test+other-test(scale=-1.0)",
        "mean+contrast-test+mdg(temperature=0.0)",
        "mean+contrast-test+example-shuffling(group_size=0)",
    ],
)
def test_an_impossible_parameter_of_what_trains_is_refused_before_anything_runs(sentence):
    with pytest.raises(InputError, match="must be"):
        parse(sentence).on(SIX)[0].check(SIX, fit_texts=100)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("mean,cls", ["mean", "cls"]),
        ("whiten(k=3,eps=1), mean", ["whiten(k=3,eps=1)", "mean"]),
        ("a('x,(y'),b", ["a('x,(y')", "b"]),
        (r'a("x\",y"),b', [r'a("x\",y")', "b"]),
    ],
)
def test_separators_inside_parentheses_and_quotes_do_not_split(text, pieces):
    assert split(text, ",") == pieces


TEXTS = st.text() | st.text(alphabet="'\"\\(),+= \n@true1.e5")


def values(kind):
    """Hypothesis values of a parameter's type."""
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if type(None) in typing.get_args(kind):
        return st.none() | values(typing.get_args(kind)[0])
    simple = {int: st.integers(), float: st.floats(allow_nan=False, allow_infinity=False), bool: st.booleans()}
    return simple.get(kind, TEXTS)


@st.composite
def part_named(draw, names, untrained=False):
    known = card(draw(st.sampled_from(names)))
    params = draw(st.fixed_dictionaries({key: values(kind) for key, kind in known.types.items()}))
    return Part.of(known.name, params, untrained)


@st.composite
def methods(draw):
    guides, objectives, sampler, untrained = (), (), None, False
    if draw(st.booleans()):
        stages = draw(st.lists(part_named(["contrast-test", "other-test"]), min_size=1, max_size=4))
        objectives = tuple(stage for stage, _ in itertools.groupby(stages))
        sampler = draw(st.none() | part_named(SAMPLERS))
        drawn = draw(st.lists(part_named(["mdg", "pdg"]), max_size=2))
        guides = tuple(sorted(drawn, key=str))
    elif draw(st.booleans()):
        untrained = True
    learned = bool(objectives) or untrained
    fusion = draw(part_named(["learned-test"] if learned else FUSIONS, untrained))
    each = "layer" in fusion.card.defaults and draw(st.booleans())
    if each:
        fusion = Part.of(fusion.name, {**dict(fusion.params), "layer": -1}, untrained)
    transforms = tuple(draw(st.lists(part_named(TRANSFORMS), max_size=3)))
    return Method(fusion, objectives, guides, sampler, transforms, each)


slow = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(methods())
def test_a_name_reads_back_as_the_method_that_it_names(method):
    assert parse(method.name) == method
    assert parse(method.name).name == method.name


@slow
@given(TEXTS)
def test_any_text_survives_as_a_parameter(text):
    method = Method(Part.of("prompt-mask", {"template": text}))
    assert dict(parse(f"{method.name}+normalize").fusion.params)["template"] == text


def readable(sentence):
    """Reads a sentence; whatever is no method must be refused with InputError and nothing else."""
    try:
        method = parse(sentence)
    except InputError:
        return
    assert parse(method.name) == method


@slow
@given(st.text())
def test_arbitrary_text_raises_nothing_but_input_error(sentence):
    readable(sentence)


PIECES = ["mean", "cls", "whiten", "prompt-mask", "learned-test", "contrast-test", "mdg", "@each", "untrained"]
PIECES += ["other-test", "file-order", "example-shuffling", "first_epoch", "random", "allow_same"]
PIECES += ["layer", "k", "eps", "template", "(", ")", "+", ",", "=", "'", '"', "\\", " ", "\n", "-", ".", "_"]
PIECES += ["1", "0x1", "1e5", "1_0", "nan", "-inf", "none", "True", "٣", "9" * 5000, "[1, 2]", "{}", "{text}{mask}"]


@slow
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_nearly_sentences_raise_nothing_but_input_error(sentence):
    readable(sentence)


def test_absurd_numbers_are_refused_and_not_computed_with():
    for sentence in (f"mean(layer={10**18})", f"sbert-wk(window={10**18})+whiten(k={10**18})"):
        with pytest.raises(InputError):
            parse(sentence).on(SIX)[0].check(SIX, fit_texts=100)
    assert only(f"sbert-wk(window={10**18},edge=released)") == "sbert-wk(window=4)"
    assert math.isfinite(dict(parse("mean+whiten(eps=1e308)").transforms[0].params)["eps"])
