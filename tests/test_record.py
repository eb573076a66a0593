"""A specification's id changes with every field, and with nothing else."""

from __future__ import annotations

import json
import random

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fusebench.benchmarks.record import MethodSpec, PartSpec, Prompts, Spec, TextSetSpec
from tests.invented_records import row_set, trained, training_spec

_PARTS = (
    PartSpec(kind="fusion", name="hire", params={"hidden": 384, "dropout": 0.1, "first": True, "of": None}),
    PartSpec(kind="objective", name="batch-softmax", params={"temperature": 0.05}),
    PartSpec(kind="transform", name="whiten", params={"k": 256}),
)
SPEC = trained(train=training_spec(dev=row_set("stsb-dev", "scored-pairs"), dev_every=45, chunk=16)).spec.model_copy(
    update={
        "method": MethodSpec(name="hire+batch-softmax+whiten", parts=_PARTS),
        "fit": TextSetSpec(name="lee-background", sha256="f17", count=300),
        "prompts": Prompts(text="a: ", query="q: ", document="d: "),
        "weights_sha256": "a" * 64,
        "limit": 100,
    }
)
# What trained weights do not depend on.
_OF_SCORES = ("task", "fit", "batch_tokens", "limit", "code", "weights_sha256")
_WORDS = ["STS", "Retrieval", "hub", "folder", "embedded", "frozen", "finetune", "none", "last-state-only", "left"]
_WORDS += ["fusion", "objective", "guide", "sampler", "transform", "no", "bf16", "fp16", "sentences", "pairs"]


def leaves(held, path=()):
    """The path of every value that is no object and no list."""
    pairs = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else None
    return [path] if pairs is None else [leaf for key, one in pairs for leaf in leaves(one, (*path, key))]


HELD = SPEC.model_dump(mode="json")
LEAVES = leaves(HELD)
VALUES = st.one_of(
    st.sampled_from(_WORDS), st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.floats(0, 1e6)
)
thorough = settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])


def changed(path, value):
    held = json.loads(json.dumps(HELD))
    place = held
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return held


def matters_to_weights(path):
    if path[0] == "prompts":
        return path[1] == "text"
    if path[0] == "method":
        return path[1] == "parts" and HELD["method"]["parts"][path[2]]["kind"] != "transform"
    return path[0] not in _OF_SCORES


def test_the_specification_of_the_property_has_every_field_filled():
    named = {path[0] for path in LEAVES} | {path[1] for path in LEAVES if path[0] in ("train", "task", "backbone")}
    assert set(Spec.model_fields) <= named
    assert {path[1] for path in LEAVES if path[0] == "train"} >= {"dev", "chunk", "rows", "learning_rate", "code"}
    assert all(value not in (None, []) for key, value in HELD["train"].items() if key not in ("limit", "steps"))


@thorough
@given(st.sampled_from(LEAVES), VALUES)
def test_every_value_changes_the_id_and_that_of_a_training_where_weights_depend_on_it(path, value):
    try:
        other = Spec.model_validate(changed(path, value))
    except ValidationError:
        assume(False)
    assume(other.model_dump(mode="json") != HELD)
    assert other.spec_id != SPEC.spec_id
    if path[:1] == ("method",) and path[-1] == "kind":
        return  # a part that becomes a transform is one that weights do not depend on, and the reverse
    assert (other.training_id != SPEC.training_id) == matters_to_weights(path)


def test_every_value_is_one_that_the_property_can_change():
    for path in LEAVES:
        old = HELD
        for key in path:
            old = old[key]
        new = not old if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else f"{old}x"
        candidates = [new, *_WORDS] if isinstance(old, str) else [new, 1]
        for candidate in candidates:
            try:
                other = Spec.model_validate(changed(path, candidate))
            except ValidationError:
                continue
            if other.model_dump(mode="json") != HELD:
                assert other.spec_id != SPEC.spec_id
                break
        else:
            raise AssertionError(path)


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_a_file_holds_its_fields_does_not_matter(draw: random.Random):
    def shuffled(held):
        if isinstance(held, dict):
            return {key: shuffled(held[key]) for key in draw.sample(sorted(held), len(held))}
        return [shuffled(one) for one in held] if isinstance(held, list) else held

    assert Spec.model_validate(json.loads(json.dumps(shuffled(HELD)))).spec_id == SPEC.spec_id
