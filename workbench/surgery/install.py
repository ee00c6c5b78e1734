"""Install a plan with its cells into a model, and take it out again.

Everything is checked before anything changes. The operator becomes a submodule of the block's
self-attention and the processor is swapped; blocks that keep softmax are not touched at all, so that an
all-softmax plan is the model itself. Knows cells by a protocol, not where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from workbench.errors import InputError
from workbench.models import LoadedModel
from workbench.models.adapter import Adapter, AttentionShape
from workbench.operators import (
    OPERATOR,
    AttentionOperator,
    Impl,
    OperatorSpec,
    attach_operators,
    build,
    clock_of,
    detach_operators,
    label,
)
from workbench.operators.flops import HeadShape
from workbench.planning import Plan
from workbench.surgery.lora import take_off
from workbench.surgery.weights import put_back

MAX_NAMED = 5


class CellSource(Protocol):
    """Where the weights of cells come from: a bank, a student folder, or fresh weights."""

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model that the cells were distilled for; empty if they fit any."""

    def weights(self, block: int, spec: OperatorSpec) -> dict[str, Tensor]:
        """Return the state dict of a cell's operator."""

    def missing(self, plan: Plan) -> tuple[tuple[int, str], ...]:
        """Return the (block, label) that a plan needs and this source lacks."""


class FreshCells:
    """Untrained cells for any plan: the hybrid before distillation, for ablations and training from
    nothing.
    """

    model_fingerprint = ""

    def __init__(self, shape: HeadShape, *, seed: int = 0) -> None:
        self.shape = shape
        self.seed = seed

    def weights(self, block: int, spec: OperatorSpec) -> dict[str, Tensor]:
        return dict(build(spec, self.shape, seed=self.seed + block).state_dict())

    def missing(self, plan: Plan) -> tuple[tuple[int, str], ...]:
        return ()


@dataclass(frozen=True)
class ConvertedBlock:
    """One block that surgery changed: its module, its operator, the parameters that came with it."""

    block: int
    module: str
    operator: str
    num_parameters: int


@dataclass(frozen=True)
class Report:
    """What surgery touched: exactly the blocks that the plan converts."""

    plan: str
    converted: tuple[ConvertedBlock, ...]
    kept: tuple[int, ...]
    linear_branch: bool
    impl: str
    dense_first: int
    dense_every: int | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def install(
    model: LoadedModel, plan: Plan, cells: CellSource, *, linear_branch: bool = True, impl: Impl = "auto"
) -> Report:
    """Turn a teacher into the student of a plan; a student gets the new plan in place of its old one.

    Args:
        model: changed in place.
        plan: for this model.
        cells: weights of every cell that the plan needs, a bank for example.
        linear_branch: False runs the ablation in which only the kept tokens are attended to.
        impl: implementation that `kernels` is asked for.

    Raises:
        InputError: a plan or cells of another model, or cells missing or not fitting; nothing was changed.
    """
    if model.facts.num_transformers > 1:
        raise InputError(
            f"{model.name} has two transformers, one for early and one for late steps; "
            "surgery works on models with one."
        )
    plan.model.check(model.facts, what=f"Plan {plan.name or plan.short_name}")
    theirs, ours = cells.model_fingerprint, model.fingerprint
    if theirs and ours and theirs != ours:
        raise InputError(
            f"The cells were distilled for other weights (fingerprint {theirs}) than those of {model.name} "
            f"({ours}); measure them on this model."
        )
    report = install_operators(
        model.transformer, model.adapter, plan, cells, linear_branch=linear_branch, impl=impl
    )
    model.provenance = {"surgery": report.to_json(), "plan": json.loads(plan.model_dump_json())}
    return report


def install_operators(
    transformer: nn.Module,
    adapter: Adapter,
    plan: Plan,
    cells: CellSource,
    *,
    linear_branch: bool = True,
    impl: Impl = "auto",
) -> Report:
    """Install a plan into a bare transformer of the plan's architecture; see `install`.

    Raises:
        InputError: another architecture, or cells missing or not fitting; nothing was changed.
    """
    shape = adapter.shape(transformer)
    _check_shape(plan, shape)
    operators = {
        block: _prepare(block, spec, shape, cells, linear_branch=linear_branch, impl=impl)
        for block, spec in _checked_cells(plan, cells).items()
    }
    restore(transformer)
    report = Report(
        plan=plan.short_name,
        converted=tuple(
            ConvertedBlock(
                block,
                adapter.attention_name(block),
                label(plan.converted[block]),
                sum(parameter.numel() for parameter in operator.parameters()),
            )
            for block, operator in operators.items()
        ),
        kept=tuple(block for block in range(shape.num_blocks) if block not in operators),
        linear_branch=linear_branch,
        impl=impl,
        dense_first=plan.schedule.dense_first,
        dense_every=plan.schedule.dense_every,
    )
    attach_operators(
        transformer, adapter, operators, is_dense_step=plan.schedule.is_dense, installation=report
    )
    return report


def restore(model: LoadedModel | nn.Module) -> tuple[int, ...]:
    """Give a model its own attention back: same outputs, same state-dict keys as before surgery.

    Args:
        model: a loaded model or a bare transformer; one without surgery stays as it is.

    Returns:
        The blocks that were restored.
    """
    transformer = model if isinstance(model, nn.Module) else model.transformer
    if isinstance(model, LoadedModel):
        model.provenance = {}
    take_off(transformer)
    put_back(transformer)
    return detach_operators(transformer)


def installed(model: LoadedModel | nn.Module) -> Report | None:
    """Return the report of the surgery that a model carries, None for an untouched one."""
    clock = clock_of(model if isinstance(model, nn.Module) else model.transformer)
    if clock is None or clock.installation is None:
        return None
    report: Report = clock.installation
    return report


def operators_of(model: LoadedModel | nn.Module) -> dict[int, AttentionOperator]:
    """Return the installed operators by block, for training or inspection."""
    transformer = model if isinstance(model, nn.Module) else model.transformer
    report, clock = installed(transformer), clock_of(transformer)
    if report is None or clock is None:
        return {}
    return {
        converted.block: getattr(clock.adapter.attention(transformer, converted.block), OPERATOR)
        for converted in report.converted
    }


def set_linear_branch(model: LoadedModel | nn.Module, *, on: bool) -> None:
    """Switch the linear branch of every installed operator on or off."""
    for operator in operators_of(model).values():
        operator.linear_branch = on


def _check_shape(plan: Plan, shape: AttentionShape) -> None:
    planned = (plan.model.num_blocks, plan.model.num_heads, plan.model.head_dim)
    if planned != tuple(shape):
        raise InputError(
            f"Plan {plan.name or plan.short_name} is for {planned[0]} blocks with {planned[1]} heads of "
            f"{planned[2]}, and the transformer has {shape.num_blocks} with {shape.num_heads} of "
            f"{shape.head_dim}; choose a plan made for this model."
        )


def _checked_cells(plan: Plan, cells: CellSource) -> Mapping[int, OperatorSpec]:
    missing = cells.missing(plan)
    if missing:
        named = ", ".join(f"block {block} {name}" for block, name in missing[:MAX_NAMED])
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise InputError(
            f"{len(missing)} of the cells of plan {plan.name or plan.short_name} are not measured: "
            f"{named}{more}; measure them first."
        )
    return plan.converted


def _prepare(
    block: int, spec: OperatorSpec, shape: HeadShape, cells: CellSource, *, linear_branch: bool, impl: Impl
) -> AttentionOperator:
    operator = build(spec, shape)
    weights = cells.weights(block, spec) if spec.needs_training else {}
    own = {name: tuple(tensor.shape) for name, tensor in operator.state_dict().items()}
    if own != {name: tuple(tensor.shape) for name, tensor in weights.items()}:
        raise InputError(
            f"The weights of block {block} {label(spec)} do not fit this model; measure it again."
        )
    operator.load_state_dict(weights)
    operator.linear_branch, operator.impl = linear_branch, impl
    if (obstacle := operator.obstacle()) is not None:
        raise InputError(obstacle)
    return operator
