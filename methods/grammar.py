"""The method grammar: a sentence such as `mean(layer=3)+whiten(k=256)` becomes a `Method` and back.

    sentence = part { "+" part }
    part     = name [ "(" [ argument { "," argument } ] ")" ] [ "@each" ]
    argument = name "=" value | "untrained"

One fusion, at most one objective, any guides, any transforms (applied in the order written).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion, Transform
from fusebench.methods.registry import Card, card, suggestion
from fusebench.methods.states import StateShape

_PART = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)\s*(\((?P<arguments>.*)\))?\s*(?P<each>@each)?", re.S)
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Part:
    """A registered part with every hyper-parameter, in the order of its signature."""

    name: str
    params: tuple[tuple[str, Any], ...]
    untrained: bool = False

    @classmethod
    def of(cls, name: str, params: dict[str, Any], untrained: bool = False) -> Part:
        """Fills in the defaults."""
        return cls(name, tuple({**card(name).defaults, **params}.items()), untrained)

    @property
    def card(self) -> Card:
        """What the registry knows of it."""
        return card(self.name)

    def __str__(self) -> str:
        defaults = self.card.defaults
        written = [f"{key}={write_value(value)}" for key, value in self.params if value != defaults[key]]
        arguments = ",".join([*written, *(["untrained"] if self.untrained else [])])
        return f"{self.name}({arguments})" if arguments else self.name


@dataclass(frozen=True)
class Method:
    """One way of turning layers into a vector; `name` is its canonical sentence.

    `each` asks for one method a state instead, with the fusion's `layer` set to it.
    """

    fusion: Part
    objective: Part | None = None
    guides: tuple[Part, ...] = ()
    transforms: tuple[Part, ...] = ()
    each: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """Fusion, objective, guides, transforms."""
        return (self.fusion, *((self.objective,) if self.objective else ()), *self.guides, *self.transforms)

    @property
    def name(self) -> str:
        """The canonical sentence."""
        head, *rest = (str(part) for part in self.parts)
        return "+".join([head + ("@each" if self.each else ""), *rest])

    @property
    def fitted(self) -> bool:
        """Whether a transform learns from the fit texts."""
        return any(part.card.part.fitted for part in self.transforms)

    @property
    def random(self) -> bool:
        """Whether seeds matter."""
        return self.objective is not None or any(part.untrained for part in self.parts)

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

    def build_fusion(self, shape: StateShape) -> Fusion:
        """The fusion, ready for states of this shape.

        Raises:
            InputError: if a hyper-parameter does not fit the shape.
        """
        fusion: Fusion = self.fusion.card.part(shape, **dict(self.fusion.params))
        return fusion.eval()

    def check(self, shape: StateShape, fit_texts: int) -> None:
        """Refuses what cannot work, before anything is computed.

        Raises:
            InputError: if a hyper-parameter does not fit the shape, or a transform so few fit texts.
        """
        dim = self.build_fusion(shape).out_dim
        for transform in self.build_transforms():
            dim = transform.out_dim(fit_texts, dim)

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
        if same is not None and self.objective is None:  # a loss may see lengths
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


def parse(sentence: str) -> Method:
    """Reads one method sentence.

    Raises:
        InputError: if it is malformed, names unknown parts or parameters, or makes no method.
    """
    if not sentence.strip():
        raise InputError("a method is empty; write for example --methods mean,cls.")
    parsed = [_parse_part(text, sentence) for text in split(sentence, "+")]
    by_kind: dict[str, list[Part]] = {"fusion": [], "objective": [], "guide": [], "transform": []}
    for part, _ in parsed:
        by_kind[part.card.kind].append(part)
    _refuse(sentence, by_kind)
    fusion = by_kind["fusion"][0]
    each = any(flag for _, flag in parsed)
    if each and ("layer" not in fusion.card.defaults or any(f and p != fusion for p, f in parsed)):
        raise InputError(f"'{sentence}': @each goes behind a fusion that has a layer, such as mean@each.")
    if each and dict(fusion.params)["layer"] != fusion.card.defaults["layer"]:
        raise InputError(f"'{sentence}': @each goes through all layers, so leave layer=... out.")
    return Method(
        fusion=fusion,
        objective=by_kind["objective"][0] if by_kind["objective"] else None,
        guides=tuple(sorted(by_kind["guide"], key=str)),  # they are summed
        transforms=tuple(by_kind["transform"]),
        each=each,
    )


def _refuse(sentence: str, by_kind: dict[str, list[Part]]) -> None:
    fusions, objectives, guides = by_kind["fusion"], by_kind["objective"], by_kind["guide"]
    if not fusions:
        part = next(iter(objectives + guides + by_kind["transform"]))
        kind = "an objective" if part.card.kind == "objective" else f"a {part.card.kind}"
        raise InputError(f"'{sentence}' has no fusion: {part.name} is {kind} and follows one, as in mean+{part}.")
    for kind in ("fusion", "objective"):
        names = [str(part) for part in by_kind[kind]]
        if len(names) > 1:
            raise InputError(
                f"'{sentence}' has two {kind}s ({', '.join(names)}) and a method has one; a comma separates methods."
            )
    if guides and not objectives:
        raise InputError(
            f"'{sentence}': {guides[0].name} acts only in training, and nothing is trained here; "
            "add an objective or leave it out."
        )
    fusion = fusions[0]
    if fusion.card.learned and not objectives and not fusion.untrained:
        raise InputError(
            f"'{sentence}': {fusion.name} has weights that mean nothing before training; add an objective, or "
            f"write {fusion.name}(untrained) to score random weights."
        )
    for part in (p for parts in by_kind.values() for p in parts):
        if part.untrained and not part.card.learned:
            raise InputError(f"'{sentence}': {part.name} has no weights, so it cannot be untrained.")


def _parse_part(text: str, sentence: str) -> tuple[Part, bool]:
    match = _PART.fullmatch(text.strip())
    if match is None:
        raise InputError(f"'{sentence}' is no method: '{text.strip()}' should read name or name(parameter=value).")
    known = card(match["name"])
    params: dict[str, Any] = {}
    untrained = False
    for argument in split(match["arguments"], ",") if (match["arguments"] or "").strip() else []:
        key, equals, value = (piece.strip() for piece in argument.partition("="))
        if not equals and key == "untrained":
            untrained = True
            continue
        if key not in known.defaults:
            takes = ", ".join(known.defaults) or "no parameters"
            hint = suggestion(key, known.defaults) if known.defaults else ""
            hint = hint if "Did you mean" in hint else ""
            raise InputError(f"'{sentence}': {known.name} has no parameter '{key}'; it takes {takes}.{hint}")
        if not equals or key in params:
            raise InputError(f"'{sentence}': write {key}=value, once.")
        params[key] = _check(_read(value), known, key, sentence)
    return Part.of(known.name, params, untrained), match["each"] is not None


def _check(value: Any, known: Card, key: str, sentence: str) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(
        known.types[key], config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    )
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise InputError(f"'{sentence}': {known.name}({key}={write_value(value)}) should be {reason}.") from None


def split(text: str, separator: str) -> list[str]:
    """Splits at separators outside parentheses and quotes.

    Raises:
        InputError: if a parenthesis or a quote is not closed, or a piece is empty.
    """
    pieces, depth, quote, start = [], 0, "", 0
    escaped = False
    for place, sign in enumerate(text):
        if quote:
            if not escaped and sign == quote:
                quote = ""
            escaped = sign == "\\" and not escaped
        elif sign in "'\"":
            quote = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == separator and depth == 0:
            pieces.append(text[start:place])
            start = place + 1
        if depth < 0:
            break
    if depth or quote:
        raise InputError(f"'{text}': a {'quote' if quote else 'parenthesis'} is not closed or opened.")
    pieces.append(text[start:])
    if any(not piece.strip() for piece in pieces):
        raise InputError(f"'{text}': nothing stands before or after one of the '{separator}'.")
    return [piece.strip() for piece in pieces]


_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def _read(value: str) -> Any:
    """A number, true, false, none, a quoted text or a bare word."""
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def write_value(value: Any) -> str:
    """The inverse of `_read`."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and value.lower() not in _WORDS and isinstance(_read(value), str)
        return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(value) if isinstance(value, list | dict) else repr(value)
