"""A method in training: what learns, how far it is, and its optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.checkpoint import load_module, module_state
from fusebench.methods.engine import is_out_of_memory
from fusebench.methods.parts import Fusion, Guide, Objective
from fusebench.methods.recipe import Recipe, build_optimizer
from fusebench.methods.state_sources import Numbers, StateSource, View


@dataclass(eq=False)
class Trainee:
    """A method in training; when the loop is done, `fusion` holds the weights that were kept.

    Attributes:
        name: tells it apart from the others in the loop.
        objectives: one a stage.
        guides: penalties added to the loss; only where the backbone is trained.
        recipe: its budget and learning rates.
        failure: why it does not go on.
        losses: of each update so far, without penalties.
        best: weights of the best look at the dev rows.
        trained_parameters: that got gradients; known when the training is over.
        piecewise: whether one part of a batch is in memory at a time, because memory ran out: the same gradients.
        accelerator: given by the loop; computes in the recipe's precision.
        rates: learning rates of the optimizer's groups before the schedule.
    """

    name: str
    fusion: Fusion
    objectives: Sequence[Objective]
    guides: Sequence[tuple[str, Guide]]
    recipe: Recipe
    failure: Exception | None = None
    losses: list[float] = field(default_factory=list)
    dev_score: float | None = None
    best_update: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict, repr=False)
    trained_parameters: int = 0
    piecewise: bool = False
    accelerator: Any = field(default=None, repr=False)
    optimizer: Any = field(default=None, repr=False)
    rates: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean over the last tenth of the updates."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return float(np.mean(last))

    @property
    def learning(self) -> list[nn.Parameter]:
        """All weights that the optimizer changes."""
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]

    @contextlib.contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Within, an error ends this method's training and nobody else's."""
        try:
            yield
        except Exception as error:  # a third-party part can raise anything
            # The error itself would hold the tensors that there was no room for.
            self.failure = _no_room(self.recipe) if is_out_of_memory(error) else error

    def begin_stage(self, stage: int, device: torch.device, backbone: Backbone | None) -> None:
        """Moves to the device and starts with a fresh optimizer."""
        from accelerate.optimizer import AcceleratedOptimizer

        objective = self.objectives[stage].to(device)
        self.fusion.to(device)
        model = backbone.model if backbone else None
        optimizer = build_optimizer(self.recipe, self.fusion, objective.own_learning_rate, objective, model)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        # Not `prepare`d: the accelerator would hold it, with its moments, beyond the stage.
        self.optimizer = AcceleratedOptimizer(optimizer, device_placement=False, scaler=self.accelerator.scaler)

    def read(self, source: StateSource, numbers: Numbers, view: View) -> Any:
        """States of texts; a trained backbone computes in the recipe's precision, a frozen one as for the scores."""
        with contextlib.nullcontext() if source.trained is None else self.accelerator.autocast():
            return source.states(numbers, view)

    def embed(self, states: Any) -> Float[Tensor, "batch out"]:
        """Vectors in float32, made in the recipe's precision."""
        with self.accelerator.autocast():
            vectors: Tensor = self.fusion(states)
        return vectors.float()

    def set_rates(self, factor: float) -> None:
        """Learning rates of the next step, as a share of the recipe's."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def step(self) -> float:
        """Clips the gradients, changes the weights by them, forgets them; returns their length before clipping.

        Raises:
            ArithmeticError: if they are not finite; under fp16 such a step is left out, and the loss scale halved.
        """
        self.accelerator.unscale_gradients(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.learning, self.recipe.max_grad_norm))
        if not np.isfinite(norm) and self.accelerator.scaler is None:
            raise ArithmeticError("the gradients are not finite; try a smaller learning rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def set_training(self, on: bool, backbone: Backbone | None) -> None:
        """Noise on or off."""
        self.fusion.train(on)
        if backbone is not None:
            backbone.model.train(on)

    def weights(self, backbone: Backbone | None) -> dict[str, Tensor]:
        """Fusion and trained backbone, by name; not copied."""
        learned = {} if backbone is None else module_state(backbone.model, "backbone.")
        return {**module_state(self.fusion, "fusion."), **learned}

    def load_weights(self, tensors: dict[str, Tensor], backbone: Backbone | None) -> None:
        """The inverse of `weights`."""
        load_module(self.fusion, tensors, "fusion.")
        if backbone is not None:
            load_module(backbone.model, tensors, "backbone.")


def _no_room(recipe: Recipe) -> InputError:
    return InputError(
        f"a batch of {recipe.batch_size} rows does not fit into memory: give --chunk 16 (the same training in more "
        "time) or a smaller --batch-size."
    )


def alive(trainees: Iterable[Trainee]) -> list[Trainee]:
    """Those that have not failed."""
    return [trainee for trainee in trainees if trainee.failure is None]
