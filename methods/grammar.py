"""The method grammar: a sentence such as `mean(layer=3)+whiten(k=256)` becomes a `Method` and back.

    sentence = part { "+" part }
    part     = name [ "(" [ argument { "," argument } ] ")" ] [ "@each" ]
    argument = name "=" value | "untrained"

One fusion; objectives, which are stages of training in the order written; guides and at most one sampler, which act
in every stage; transforms, applied in the order written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from fusebench.errors import InputError
from fusebench.methods.onednn_linear import use_onednn
from fusebench.methods.parts import Fusion, Guide, Objective, Sampler, Transform
from fusebench.methods.registry import Kind, card
from fusebench.methods.spelling import Part, read_part, split, write_value
from fusebench.methods.states import StateShape

__all__ = ["Method", "Part", "parse", "split", "write_value"]


@dataclass(frozen=True)
class Method:
    """One way of turning layers into a vector; `name` is its canonical sentence.

    Several objectives are stages: trained one after the other, in their order, each with an optimizer of its own.
    `each` asks for one method a state instead, with the fusion's `layer` set to it.
    """

    fusion: Part
    objectives: tuple[Part, ...] = ()
    guides: tuple[Part, ...] = ()
    sampler: Part | None = None
    transforms: tuple[Part, ...] = ()
    each: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """Fusion, objectives, guides, sampler, transforms."""
        sampler = () if self.sampler is None else (self.sampler,)
        return (self.fusion, *self.objectives, *self.guides, *sampler, *self.transforms)

    @property
    def name(self) -> str:
        """The canonical sentence."""
        head, *rest = (str(part) for part in self.parts)
        return "+".join([head + ("@each" if self.each else ""), *rest])

    @property
    def trained(self) -> bool:
        """Whether it is trained: whether it has an objective."""
        return bool(self.objectives)

    @property
    def stem(self) -> Method:
        """The method without its transforms: what is trained."""
        return replace(self, transforms=())

    @property
    def without_guides(self) -> Method:
        """The method as it would be trained unguided."""
        return replace(self, guides=())

    @property
    def fitted(self) -> bool:
        """Whether a transform learns from the fit texts."""
        return any(part.card.part.fitted for part in self.transforms)

    @property
    def random(self) -> bool:
        """Whether seeds matter."""
        return self.trained or any(part.untrained for part in self.parts)

    def on(self, shape: StateShape) -> tuple[Method, ...]:
        """The methods that the sentence names on a backbone of this shape, in their simplest spelling.

        Raises:
            InputError: if a layer or another size does not exist there.
        """
        return tuple(replace(one, fusion=_simplest(one.fusion, shape)) for one in self._layers(shape))

    def _layers(self, shape: StateShape) -> Iterator[Method]:
        if not self.each:
            yield self
            return
        for layer in range(self.fusion.card.part.sweep_from, shape.states):
            fusion = Part.of(self.fusion.name, {**dict(self.fusion.params), "layer": layer}, self.fusion.untrained)
            yield replace(self, fusion=fusion, each=False)

    def check(self, shape: StateShape, fit_texts: int) -> None:
        """Refuses what cannot work, before anything is computed.

        Raises:
            InputError: if a hyper-parameter is impossible or does not fit the shape, or a transform so few fit texts.
        """
        dim = self.build_fusion(shape).out_dim
        self.build_objectives()
        for guide in self.build_guides():
            if absent := [block for block in guide.blocks or () if block > shape.blocks]:
                raise InputError(
                    f"{self.name}: there is no block {absent[0]}; this backbone has {shape.blocks} blocks."
                )
        self.build_sampler()
        for transform in self.build_transforms():
            dim = transform.out_dim(fit_texts, dim)

    def build_fusion(self, shape: StateShape) -> Fusion:
        """The fusion, ready for states of this shape.

        Raises:
            InputError: if a hyper-parameter does not fit the shape.
        """
        fusion: Fusion = self.fusion.card.part(shape, **dict(self.fusion.params))
        use_onednn(fusion)
        return fusion.eval()

    def build_objectives(self) -> list[Objective]:
        """The objectives, a stage each, in order."""
        return [part.card.part(**dict(part.params)) for part in self.objectives]

    def build_guides(self) -> list[Guide]:
        """The guides; their weighted penalties are added to the loss of every stage."""
        return [part.card.part(**dict(part.params)) for part in self.guides]

    def build_sampler(self) -> Sampler | None:
        """The order of the training rows; None if the sentence leaves it at chance."""
        if self.sampler is None:
            return None
        sampler: Sampler = self.sampler.card.part(**dict(self.sampler.params))
        return sampler

    def build_transforms(self) -> list[Transform]:
        """The transforms, not yet fitted, in order."""
        return [part.card.part(**dict(part.params)) for part in self.transforms]

    def equal_to(self, shape: StateShape) -> str | None:
        """A simpler method that gives every pair of texts the same cosine; None if there is none."""
        transforms = list(self.transforms)
        while transforms and transforms[-1].name == "normalize":
            transforms.pop()
        fusion = self.fusion
        same = fusion.card.part.same_direction(dict(fusion.params))
        if same is not None and not self.trained:  # a loss may see lengths
            name, params, constant = same
            unscaled = not transforms or transforms[0].name == "normalize"
            if unscaled or (constant and all(part.card.part.scale_free for part in transforms)):
                fusion = _simplest(Part.of(name, params), shape)
        simpler = replace(self, fusion=fusion, transforms=tuple(transforms))
        return None if simpler == self else simpler.name


def _simplest(part: Part, shape: StateShape) -> Part:
    """Applies the fusions' own equivalences until nothing changes."""
    for _ in range(8):
        name, params = part.card.part.simplest(shape, part.name, dict(part.params))
        simpler = Part.of(name, params, part.untrained and card(name).learned)
        if simpler == part:
            return part
        part = simpler
    raise AssertionError(f"the spellings of {part} go round in circles")


Parts = Mapping[Kind, list[Part]]


def parse(sentence: str) -> Method:
    """Reads one method sentence.

    Raises:
        InputError: if it is malformed, names unknown parts or parameters, or makes no method.
    """
    if not sentence.strip():
        raise InputError("a method is empty; write for example --methods mean,cls.")
    read = [read_part(text, sentence) for text in split(sentence, "+")]
    parts: Parts = {"fusion": [], "objective": [], "guide": [], "sampler": [], "transform": []}
    for part, _ in read:
        parts[part.card.kind].append(part)
    _check_numbers(sentence, parts)
    _check_training(sentence, parts)
    (fusion,) = parts["fusion"]
    each = any(flag for _, flag in read)
    if each and ("layer" not in fusion.card.defaults or any(flag and part != fusion for part, flag in read)):
        raise InputError(f"'{sentence}': @each goes behind a fusion that has a layer, such as mean@each.")
    if each and dict(fusion.params)["layer"] != fusion.card.defaults["layer"]:
        raise InputError(f"'{sentence}': @each goes through all layers, so leave layer=... out.")
    return Method(
        fusion=fusion,
        objectives=tuple(parts["objective"]),
        guides=tuple(sorted(parts["guide"], key=str)),  # they are summed
        sampler=next(iter(parts["sampler"]), None),
        transforms=tuple(parts["transform"]),
        each=each,
    )


def _check_numbers(sentence: str, parts: Parts) -> None:
    """One fusion, at most one sampler."""
    if not parts["fusion"]:
        part = next(part for some in parts.values() for part in some)
        kind = f"{'an' if part.card.kind == 'objective' else 'a'} {part.card.kind}"
        raise InputError(f"'{sentence}' has no fusion: {part.name} is {kind} and follows one, as in mean+{part}.")
    kinds: tuple[Kind, ...] = ("fusion", "sampler")
    for kind in kinds:
        names = [str(part) for part in parts[kind]]
        if len(names) > 1:
            raise InputError(
                f"'{sentence}' has more than one {kind} ({', '.join(names)}); a comma separates methods."
            )


def _check_training(sentence: str, parts: Parts) -> None:
    """Objectives train something new each, and what acts in training stands beside one."""
    (fusion,), objectives = parts["fusion"], parts["objective"]
    for part in (part for some in parts.values() for part in some):
        if part.untrained and not part.card.learned:
            raise InputError(f"'{sentence}': {part.name} has no weights, so it cannot be untrained.")
    for idle in parts["guide"] + parts["sampler"]:
        if not objectives:
            raise InputError(
                f"'{sentence}': {idle.name} acts only in training, and without an objective nothing is trained; "
                f"add one, as in mean+batch-softmax+{idle}, or leave {idle.name} out."
            )
    for one, following in pairwise(objectives):
        if one == following:
            raise InputError(
                f"'{sentence}' has {one} twice in a row; objectives are stages, trained one after the other, so "
                "leave one of the two out."
            )
    if fusion.untrained and objectives:
        raise InputError(
            f"'{sentence}': {fusion.name} would be trained by {objectives[0].name}; leave out untrained or the "
            "objective."
        )
    if fusion.card.learned and not objectives and not fusion.untrained:
        raise InputError(
            f"'{sentence}': {fusion.name} has weights that mean nothing before training; add an objective, or "
            f"write {fusion.name}(untrained) to score random weights."
        )
