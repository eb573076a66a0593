"""A transformer and its tokenizer: texts to token ids, token ids to `LayerStates`."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch

from fusebench.errors import InputError
from fusebench.methods.attention_maps import run_with_maps
from fusebench.methods.backbone_loading import load_config_and_tokenizer, load_model
from fusebench.methods.backbone_source import Source
from fusebench.methods.dropout_noise import dropout_noise, has_dropout
from fusebench.methods.onednn_linear import use_onednn
from fusebench.methods.states import LayerStates, Needs, StateShape
from fusebench.methods.tokenization import LimitedTokenizer, Tokenized, length_limit, position_tables

Padding = Literal["left", "right"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone:
    """A loaded backbone in evaluation mode, its weights frozen; `trainable_copy` makes one that learns.

    Args:
        source: where its files are.
        device: a torch device.
        dtype: of weights and states.
        max_length: limit in tokens; None takes the folder's own.
        remote_code: whether Python code that the folder carries may run.

    Raises:
        InputError: if the folder cannot be loaded as it is, or the limit is impossible.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        max_length: int | None = None,
        remote_code: bool = False,
    ) -> None:
        self.source = source
        self.device = torch.device(device)
        self.dtype = dtype
        self.remote_code = remote_code
        config, self.tokenizer = load_config_and_tokenizer(source, remote_code)
        self.model = load_model(source, config, DTYPES[dtype], remote_code).to(self.device).eval()
        use_onednn(self.model)
        self.model.requires_grad_(False)
        self.config = self.model.config  # the model reads its own copy, so ours must be that one
        self.limit = length_limit(source, self.tokenizer, self.model, max_length)
        vocabulary = self.model.get_input_embeddings().num_embeddings
        self._tokenizer = LimitedTokenizer(self.tokenizer, source.name, self.limit.tokens, vocabulary)
        self.padding_side: Padding = self.tokenizer.padding_side
        self.shape, self.final_norm = self._probe()

    @property
    def architecture(self) -> str:
        """Class name of the loaded model."""
        return type(self.model).__name__

    def tokenize(self, texts: Sequence[str], template: str | None = None) -> Tokenized:
        """Token ids of each text, put into the template if there is one.

        Raises:
            InputError: if a text has no token at all, or a template finds no mask token or no room.
        """
        return self._tokenizer.tokenize(texts, template)

    @torch.inference_mode()
    def states(
        self, ids: Sequence[np.ndarray], needs: Needs = Needs.TOKENS, marker: np.ndarray | None = None
    ) -> LayerStates:
        """One forward pass over a batch, padded to its longest row, without gradients."""
        tokens, mask = self.pad(ids)
        placed = None if marker is None else torch.from_numpy(marker).to(self.device)
        if placed is not None and self.padding_side == "left":
            placed = placed + mask.shape[1] - mask.sum(dim=1)
        return self.forward(tokens, mask, needs, placed)

    def pad(self, ids: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and their bool mask, both `[batch, tokens]`, padded to the longest row, on the device."""
        longest = max(len(row) for row in ids)
        tokens = np.full((len(ids), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=bool)
        for place, row in enumerate(ids):
            span = slice(longest - len(row), None) if self.padding_side == "left" else slice(len(row))
            tokens[place, span] = row
            mask[place, span] = True
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(mask).to(self.device)

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        needs: Needs,
        marker: torch.Tensor | None = None,
        map_blocks: tuple[int, ...] | None = None,
    ) -> LayerStates:
        """States of padded token ids, with gradients where grad mode is on and the weights are trainable.

        Args:
            tokens: ids `[batch, tokens]`.
            mask: bool, of the same shape.
            needs: maps are there only if these name them.
            marker: place of the template's mask token in each padded row.
            map_blocks: blocks whose attention maps are wanted, counted from 1; None are all.

        Raises:
            InputError: if there is no such block, or the model leaves no maps.
        """
        extra: dict[str, Any] = {"attention_mask": mask.long(), "output_hidden_states": True}
        if self.padding_side == "left" and self._takes_positions():
            extra["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        attention = None
        if Needs.ATTENTION in needs:
            blocks = self._blocks(map_blocks)
            out, attention = run_with_maps(self.model, blocks, self.shape.blocks, input_ids=tokens, **extra)
        else:
            out = self.model(input_ids=tokens, **extra)
        if not out.hidden_states:
            raise InputError(f"{self.architecture} returned no hidden states, so its layers cannot be read.")
        return LayerStates(tuple(out.hidden_states), mask, attention, marker)

    def trainable_copy(self) -> Backbone:
        """A backbone with weights of its own, in float32 and learning, in evaluation mode; this one stays frozen."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).float().requires_grad_(True)
        other.config, other.dtype = other.model.config, "float32"
        return other

    @contextlib.contextmanager
    def noisy(self, seed: int) -> Iterator[None]:
        """Within, dropout is on and drawn from this seed; afterwards mode and generators are as before.

        Both belong to the whole process, so passes in other threads must wait.

        Raises:
            InputError: if the model has no dropout.
        """
        if not has_dropout(self.model):
            raise InputError(
                f"{self.architecture} of {self.source.name} has no dropout, and simcse needs dropout noise to tell a "
                "text's two views apart; set a dropout in its config.json, or choose another objective."
            )
        with dropout_noise(self.model, self.device, seed):
            yield

    def _blocks(self, chosen: tuple[int, ...] | None) -> tuple[int, ...]:
        every = tuple(range(1, self.shape.blocks + 1))
        absent = sorted(set(chosen or ()) - set(every))
        if absent:
            raise InputError(f"there is no block {absent[0]} to read maps of: {self.source.name} has {len(every)}.")
        return every if chosen is None else tuple(sorted(set(chosen)))

    @property
    def _pad_id(self) -> int:
        # Padding is masked, so any id will do where the tokenizer has none of its own.
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        return 0

    def _takes_positions(self) -> bool:
        """Whether position ids must be handed over; models with a padding row in their table count themselves."""
        takes = "position_ids" in inspect.signature(self.model.forward).parameters
        return takes and not any(table.padding_idx is not None for table in position_tables(self.model))

    def _probe(self) -> tuple[StateShape, Literal["none", "last-state-only"]]:
        """Sizes from a real pass, and whether the last state alone went through a final norm."""
        ids = [self.tokenize(["layers"]).ids[0]]
        states = self.states(ids)
        blocks = len(states.hidden) - 1
        if blocks != self.config.num_hidden_layers:
            raise InputError(
                f"{self.architecture} gives {blocks + 1} states for {self.config.num_hidden_layers} blocks; "
                "its layers cannot be numbered."
            )
        if len({state.shape for state in states.hidden}) > 1:
            raise InputError(f"{self.architecture} has states of different widths, which cannot be fused.")
        with _bare_last_state(self.config):
            bare = self.states(ids).hidden[-1]
        normed = not torch.equal(bare, states.hidden[-1])
        return StateShape(blocks, states.hidden[0].shape[-1]), "last-state-only" if normed else "none"


@contextlib.contextmanager
def _bare_last_state(config: Any) -> Iterator[None]:
    """Within, the last hidden state is the last block's output, before any final norm."""
    before = getattr(config, "tie_last_hidden_states", None)
    config.tie_last_hidden_states = False
    try:
        yield
    finally:
        if before is None:
            del config.tie_last_hidden_states
        else:
            config.tie_last_hidden_states = before
