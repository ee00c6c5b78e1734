"""One cell being distilled: an operator whose feature maps learn what the teacher's attention does.

Knows operators and the teacher's tensors; knows nothing of models, prompts or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from kernels.hybrid_attention.sdpa import linear_tokens
from workbench.distillation.losses import LossName, score_loss, value_loss
from workbench.distillation.teacher import TeacherAttention
from workbench.operators import AttentionOperator, BlockContext
from workbench.operators.hybrid import HybridAttention
from workbench.orthogonal import orthogonalised
from workbench.types import TokenGrid

OptimizerName = Literal["muon", "adamw"]
SMOOTHED_UPDATES = 50
LEAST_GAIN = 1e-3
MOMENTUM, MATRIX_RATE = 0.75, 3.0
"""Of the matrices under "muon": how much of the old direction stays, and their rate over that of the rest."""


@dataclass(frozen=True)
class TrainingChoices:
    """How every cell is trained: loss, optimiser, and a rate that rises, then falls as a cosine to zero.

    Attributes:
        lr: peak learning rate.
        optimizer: "muon" moves the matrices of the maps along orthogonalised momentum and the rest by AdamW,
            and reaches with half the updates what "adamw" alone reaches.
        warmup: share of the updates over which the rate rises.
        patience: a cell stops early after so many updates without a lower smoothed loss; None never.
    """

    loss: LossName = "value"
    lr: float = 1e-2
    optimizer: OptimizerName = "muon"
    warmup: float = 0.02
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    patience: int | None = None

    def rate_at(self, progress: float) -> float:
        """Return the learning rate after this share (0 to 1) of the updates."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        fall = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0)))


@dataclass(frozen=True)
class _Grid:
    """The one thing that an operator reads of its context outside a sampling run."""

    grid: TokenGrid


@dataclass
class _Progress:
    """How far the loss has fallen: its moving average, the lowest one so far, and when that was."""

    smooth: float | None = None
    best: float | None = None
    best_at: int = 0

    def add(self, loss: float, update: int) -> None:
        self.smooth = loss if self.smooth is None else self.smooth + (loss - self.smooth) / SMOOTHED_UPDATES
        if self.best is None or self.smooth < self.best * (1 - LEAST_GAIN):
            self.best, self.best_at = self.smooth, update


class CellTrainer:
    """Distils the feature maps of one cell; the model itself gets no gradient.

    Args:
        name: of the cell, for example "block-03-R4".
        operator: what replaces softmax in the block, in float32.
        choices: see `TrainingChoices`.
    """

    def __init__(self, name: str, operator: AttentionOperator, *, choices: TrainingChoices) -> None:
        self.name = name
        self.operator = operator
        self.choices = choices
        self.stopped_at: int | None = None
        self.num_updates = 0
        self._progress = _Progress()
        turned = matrices_of(operator) if choices.optimizer == "muon" else []
        self._vector, self._gradient, rest = _as_one_vector(operator, first=turned)
        self._start = self._vector.detach().clone()
        self._turned = Turned(turned)
        self._rest = nn.Parameter(self._vector.detach()[rest:])
        self._rest.grad = self._gradient[rest:]
        self._optimizer = torch.optim.AdamW(
            [self._rest], lr=choices.lr, betas=choices.betas, weight_decay=choices.weight_decay, fused=True
        )

    @property
    def is_done(self) -> bool:
        """Whether the cell takes no more updates: it diverged, or its loss has not fallen for long."""
        return self.stopped_at is not None or self.is_settled

    @property
    def is_settled(self) -> bool:
        """Whether the smoothed loss has not fallen for as many updates as the choices allow."""
        patience = self.choices.patience
        return patience is not None and self.num_updates - self._progress.best_at >= patience

    def loss(self, attention: TeacherAttention, *, rows: slice = slice(None)) -> Tensor:
        """Return the distillation loss on the chosen queries `rows`."""
        if self.choices.loss == "score":
            return self._score_loss(attention, rows)
        return value_loss(self._output(attention, rows), attention.output[:, rows], name=self.choices.loss)

    def update(self, attention: TeacherAttention, *, rows: slice, progress: float) -> float:
        """Take one optimiser step and return the loss before it.

        A loss or gradient that is not finite stops the cell for good, with the weights it had.
        """
        if self.is_done:
            return math.nan
        self._gradient.zero_()
        with torch.enable_grad():
            loss = self.loss(attention, rows=rows)
            if loss.requires_grad:
                loss.backward()
        if not bool(torch.isfinite(loss.detach() + self._gradient.abs().sum())):
            self.stopped_at = self.num_updates
            return math.nan
        rate = self.choices.rate_at(progress)
        self._turned.step(MATRIX_RATE * rate)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self.num_updates += 1
        value = float(loss.detach())
        self._progress.add(value, self.num_updates)
        return value

    @torch.no_grad()
    def output(self, attention: TeacherAttention) -> Tensor:
        """Return the student's output for all chosen queries, [B, M, H, D]."""
        return self._output(attention, slice(None))

    @torch.no_grad()
    def undistilled_output(self, attention: TeacherAttention) -> Tensor:
        """Return the output with the weights that the maps had before the first update."""
        trained = self._vector.detach().clone()
        self._vector.copy_(self._start)
        output = self.output(attention)
        self._vector.copy_(trained)
        return output

    @torch.no_grad()
    def branch_off_output(self, attention: TeacherAttention) -> Tensor:
        """Return the output of the softmax branch alone; zeros where no token keeps softmax."""
        if isinstance(self.operator, HybridAttention):
            return attention.kept_output(self.operator.rate)
        self.operator.linear_branch = False
        output = self.output(attention)
        self.operator.linear_branch = True
        return output

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the operator's weights by name."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.operator.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights by name; what counts as undistilled stays the weights of the start."""
        self.operator.load_state_dict(dict(weights))

    def state(self) -> tuple[dict[str, Tensor], dict[str, float | None]]:
        """Return tensors and numbers from which `restore` goes on exactly."""
        tensors = {"vector": self._vector.detach().clone()}
        for index, moment in enumerate(self._turned.moments):
            tensors[f"moment.{index}"] = moment.clone()
        for name, value in self._optimizer.state.get(self._rest, {}).items():
            tensors[f"optimizer.{name}"] = torch.as_tensor(value).detach().clone()
        counts = {"num_updates": self.num_updates, "stopped_at": self.stopped_at}
        return tensors, {**counts, **asdict(self._progress)}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float | None]) -> None:
        """Go on from what `state` returned."""
        with torch.no_grad():
            self._vector.copy_(tensors["vector"])
            for index, moment in enumerate(self._turned.moments):
                moment.copy_(tensors[f"moment.{index}"])
        self.num_updates = int(numbers["num_updates"] or 0)
        stopped = numbers["stopped_at"]
        self.stopped_at = None if stopped is None else int(stopped)
        smooth, best, best_at = (numbers[name] for name in ("smooth", "best", "best_at"))
        self._progress = _Progress(smooth, best, int(best_at or 0))
        self._optimizer.state[self._rest] = {
            name.removeprefix("optimizer."): tensor.to(self._rest.device).clone()
            for name, tensor in tensors.items()
            if name.startswith("optimizer.")
        }

    def _output(self, attention: TeacherAttention, rows: slice) -> Tensor:
        """Run the operator, in the dtype of the kernels where these run it; the result is wide.

        Only a hybrid can be asked for some queries alone.
        """
        context = cast(BlockContext, _Grid(attention.grid))
        is_hybrid = isinstance(self.operator, HybridAttention)
        if not (isinstance(self.operator, HybridAttention) and self.operator.has_kernel):
            attention = attention.widened
        query = attention.query[:, rows] if is_hybrid else attention.all_queries.to(attention.key.dtype)
        output: Tensor = self.operator(query, attention.key, attention.value, context=context)
        output = output.to(attention.output.dtype)
        return output if is_hybrid else output.index_select(1, attention.chosen[rows])

    def _score_loss(self, attention: TeacherAttention, rows: slice) -> Tensor:
        operator = self.operator
        assert isinstance(operator, HybridAttention), "the score loss needs a fixed set of linear keys"
        attention = attention.widened
        query, keys = attention.query[:, rows], linear_tokens(attention.key, operator.rate)
        offset = attention.offset(operator.rate, rows=rows)
        return score_loss(query, keys, operator.query_map(query), operator.key_map(keys), offset=offset)


class Turned:
    """The matrices of the maps, [heads, rows, columns] each, moved along orthogonalised momentum.

    Every head has matrices of its own; matrices of equal shape are worked on together.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            groups.setdefault(parameter.shape, []).append(parameter)
        self.groups = list(groups.values())
        self.moments = [
            torch.zeros_like(torch.cat(list(group)), requires_grad=False) for group in self.groups
        ]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step from the gradients."""
        for group, moment in zip(self.groups, self.moments, strict=True):
            gradient = torch.cat([parameter.grad for parameter in group if parameter.grad is not None])
            moment.lerp_(gradient, 1 - MOMENTUM)
            direction = orthogonalised(gradient.lerp(moment, MOMENTUM)).to(moment.dtype)
            step = -rate * 0.2 * max(moment.shape[1:]) ** 0.5
            for parameter, part in zip(group, direction.split(len(group[0])), strict=True):
                parameter.data.add_(part, alpha=step)


def matrices_of(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are a matrix for every head."""
    return [one for one in module.parameters() if one.ndim == 3 and min(one.shape[1:]) > 1]


def _as_one_vector(module: nn.Module, *, first: Sequence[nn.Parameter]) -> tuple[nn.Parameter, Tensor, int]:
    """Move all parameters of a module, and their gradients, into one vector each; the module keeps views.

    Returns:
        Both vectors, and where in them what follows the parameters of `first` begins.
    """
    ahead = {id(parameter) for parameter in first}
    parameters: list[Any] = [*first, *(one for one in module.parameters() if id(one) not in ahead)]
    vector = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    gradient = torch.zeros_like(vector)
    vector.grad = gradient
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vector.data[start:end].view_as(parameter)
        parameter.grad = gradient[start:end].view_as(parameter)
        start = end
    return vector, gradient, sum(parameter.numel() for parameter in first)
