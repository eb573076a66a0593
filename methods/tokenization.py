"""Texts to token ids: cut at the length limit, put into templates, and who says how long a text may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from fusebench.errors import InputError
from fusebench.methods.backbone_source import Source
from fusebench.methods.sentence_bert_config import stated_max_length


@dataclass(frozen=True)
class Limit:
    """The longest input in tokens, special tokens included, and who says so."""

    tokens: int
    source: str


@dataclass(frozen=True)
class Tokenized:
    """Token ids of some texts, cut at the length limit.

    Attributes:
        ids: one int32 array a text.
        truncated: which texts were cut, bool `[texts]`.
        marker: position of the template's mask token in each text, or None without a template.
    """

    ids: list[np.ndarray]
    truncated: np.ndarray
    marker: np.ndarray | None = None


@dataclass(frozen=True)
class LimitedTokenizer:
    """A backbone's tokenizer under a length limit.

    Attributes:
        tokenizer: transformers' own.
        name: of the backbone, for messages.
        limit: the longest input in tokens, special tokens included.
        vocabulary: rows of the model's table of token embeddings.
    """

    tokenizer: Any
    name: str
    limit: int
    vocabulary: int

    def tokenize(self, texts: Sequence[str], template: str | None = None) -> Tokenized:
        """Token ids of each text, put into the template if there is one.

        Raises:
            InputError: if a text has no token at all, or a template finds no mask token or no room.
        """
        if template is not None:
            return self._tokenize_in_template(texts, template)
        ids, truncated = self._encode(texts, self.limit)
        empty = [text for text, row in zip(texts, ids, strict=True) if len(row) == 0]
        if empty:
            raise InputError(f"{len(empty)} texts have no token for this tokenizer, the first is {empty[0][:40]!r}.")
        return Tokenized(self._known(ids), truncated)

    def _known(self, ids: list[np.ndarray]) -> list[np.ndarray]:
        highest = max((int(row.max()) for row in ids), default=0)
        if highest >= self.vocabulary:
            raise InputError(
                f"--backbone {self.name}: its tokenizer gives token {highest} and its model has {self.vocabulary}; "
                "the two do not belong together, fetch the model again."
            )
        return ids

    def _encode(self, texts: Sequence[str], limit: int, special: bool = True) -> tuple[list[np.ndarray], np.ndarray]:
        if not texts:
            return [], np.zeros(0, dtype=bool)
        batch = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=limit,
            padding=False,
            add_special_tokens=special,
            return_attention_mask=False,
        )
        ids = [np.asarray(row, dtype=np.int32) for row in batch["input_ids"]]
        if batch.encodings is not None:
            return ids, np.array([bool(encoding.overflowing) for encoding in batch.encodings])
        whole = self.tokenizer(list(texts), add_special_tokens=special)["input_ids"]
        return ids, np.array([len(full) > len(cut) for full, cut in zip(whole, ids, strict=True)])

    def _tokenize_in_template(self, texts: Sequence[str], template: str) -> Tokenized:
        mask_token, mask_id = self.tokenizer.mask_token, self.tokenizer.mask_token_id
        if mask_id is None:
            raise InputError(f"{self.name} has no mask token, so prompt-mask cannot read one.")
        frame = template.replace("{mask}", mask_token)
        room = self.limit - len(self._encode([frame.replace("{text}", "")], 10**6)[0][0]) - 1
        if room < 1:
            raise InputError(f"the template leaves no room for text in {self.limit} tokens.")
        cut, truncated = self._cut(texts, room)
        ids, over = self._encode([frame.replace("{text}", text) for text in cut], self.limit)
        # Beside the template a text can have more tokens than alone: shorten those that do, each for itself.
        while over.any() and room > 1:
            room -= 1
            for place in np.flatnonzero(over).tolist():
                (shorter,), _ = self._cut([texts[place]], room)
                (ids[place],), over[[place]] = self._encode([frame.replace("{text}", shorter)], self.limit)
                truncated[place] = True
        # The text may itself hold the mask token; the template's is the outer one.
        outer = -1 if frame.index("{text}") < frame.index(mask_token) else 0
        places = [np.flatnonzero(row == mask_id) for row in ids]
        if over.any() or any(len(place) == 0 for place in places):
            raise InputError("the template was cut off or lost its mask token; give a shorter template.")
        return Tokenized(self._known(ids), truncated, np.array([place[outer] for place in places], dtype=np.int64))

    def _cut(self, texts: Sequence[str], tokens: int) -> tuple[list[str], np.ndarray]:
        """Texts shortened to so many tokens, as text."""
        if not self.tokenizer.is_fast:
            raise InputError(f"{self.name} has no fast tokenizer (tokenizer.json), which templates need.")
        stripped = [text.strip() for text in texts]
        if not stripped:
            return [], np.zeros(0, dtype=bool)
        batch = self.tokenizer(
            stripped,
            truncation=True,
            max_length=tokens,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        cut = np.array([bool(encoding.overflowing) for encoding in batch.encodings])
        ends = [offsets[-1][1] if offsets else 0 for offsets in batch["offset_mapping"]]
        return [t[:end] if long else t for t, end, long in zip(stripped, ends, cut, strict=True)], cut


def position_tables(model: nn.Module) -> list[nn.Embedding]:
    """Learned tables of absolute positions."""
    names = ("position_embeddings", "wpe", "embed_positions")
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in names
    ]


def length_limit(source: Source, tokenizer: Any, model: nn.Module, asked: int | None) -> Limit:
    """The length limit in force.

    `asked` if given; else `max_seq_length` of `sentence_bert_config.json` unless the position table is shorter;
    else the smaller of the tokenizer's limit and the position table; else 512.

    Raises:
        InputError: if the position table is shorter than what is asked for, or nothing but special tokens fits.
    """
    tables = [t.num_embeddings - (0 if t.padding_idx is None else t.padding_idx + 1) for t in position_tables(model)]
    configured = getattr(model.config, "max_position_embeddings", None)
    # Some tables have more rows than positions (OPT's first two are spare), so the config has a say too.
    rows = [*tables, *([configured] if isinstance(configured, int) and configured > 0 else [])]
    table = min(rows) if rows else None
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if asked is not None:
        if asked <= special:
            raise InputError(f"--max-length {asked} leaves no room for text: {special} tokens are special ones.")
        if tables and asked > min(rows):
            raise InputError(f"--max-length {asked} is beyond the backbone's position table of {min(rows)}.")
        return Limit(asked, "--max-length")
    stated = stated_max_length(source.folder)
    if stated is not None and stated <= special:
        raise InputError(f"max_seq_length {stated} of sentence_bert_config.json leaves no room; give --max-length.")
    if stated is not None and not (tables and stated > min(rows)):
        return Limit(stated, "sentence_bert_config.json")
    limits = {"position table": table, "tokenizer": tokenizer.model_max_length}
    known = {who: limit for who, limit in limits.items() if limit is not None and limit < 10**6}
    if not known:
        return Limit(512, "assumed: neither tokenizer nor position table states a limit")
    who = min(known, key=lambda name: known[name])
    return Limit(known[who], who)
