"""Variants of a cell: one choice of the feature map changed at a time, all distilled from the same states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workbench.distillation.cell_pool import CellPool
from workbench.distillation.cells import CellTrainer
from workbench.distillation.config import check
from workbench.distillation.measure import Distillation, cell_name
from workbench.distillation.team import Team
from workbench.experiments.conditions import by_prompt
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.results import Row
from workbench.experiments.rotation import Rotation, UnrotatedTrainer
from workbench.experiments.settings import BankRecipe
from workbench.experiments.tasks import Task, trajectory_tasks
from workbench.operators import HybridSpec, LinearSpec, build, label, parse_rate
from workbench.operators.feature_maps import AnyFeatureMapSpec
from workbench.operators.hybrid import HybridAttention, Stabilizer
from workbench.types import SilentReporter


@dataclass(frozen=True)
class Variant:
    """One choice of the feature map or the stabilizer, by the name that a table shows.

    Attributes:
        hybrid_only: it changes nothing in a linear cell, where no softmax branch stands beside the features:
            their scale cancels, and there is nothing to stabilize.
        unrotated: the feature maps see q and k before the rotary embedding.
    """

    name: str
    feature_map: AnyFeatureMapSpec
    stabilizer: Stabilizer = "lse"
    hybrid_only: bool = False
    unrotated: bool = False


@dataclass(frozen=True)
class CellsCondition:
    """Variants of the cells of one block, all distilled from the same passes of the teacher."""

    block: int
    variants: tuple[Variant, ...]
    rates: tuple[str, ...]
    updates: int

    @property
    def key(self) -> str:
        return f"block-{self.block:02d}"

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        return trajectory_tasks(lab)

    def run(self, lab: Laboratory) -> list[Row]:
        recipe = BankRecipe(rates=self.rates, blocks=(self.block,), updates=self.updates)
        config = lab.measure_config(recipe, (self.block,))
        wanted = [
            (rate, variant, _spec(rate, variant))
            for rate in self.rates
            for variant in self.variants
            if not (variant.hybrid_only and rate == "linear")
        ]
        unique = tuple({label(spec): spec for _, variant, spec in wanted if not variant.unrotated}.values())
        plan = replace(check(config, lab.model), specs=unique)
        training = [lab.trajectory(index, held_out=False) for index in range(lab.shared.num_prompts)]
        held_out = [lab.trajectory(index, held_out=True) for index in range(lab.shared.num_held_out)]
        with CellPool(lab.model.device) as pool:
            run = Distillation(lab.model, config, plan, pool=pool, team=Team(lab.model.device))
            for spec in [spec for _, variant, spec in wanted if variant.unrotated]:
                self._add_unrotated(run, spec)
            run.train(training, SilentReporter())
            run.evaluate(held_out, SilentReporter())
        found = {trainer.name: trainer for _, trainer in run.cells}
        return [
            self._row(rate, variant, run, found[self._name(spec, unrotated=variant.unrotated)])
            for rate, variant, spec in wanted
        ]

    def _name(self, spec: HybridSpec | LinearSpec, *, unrotated: bool) -> str:
        return cell_name(self.block, spec) + (" unrotated" if unrotated else "")

    def _add_unrotated(self, run: Distillation, spec: HybridSpec | LinearSpec) -> None:
        """Let a cell learn beside the others, from the same first weights as the one that is rotated."""
        facts, name = run.model.facts, self._name(spec, unrotated=True)
        operator = build(spec, facts, seed=run.config.seed * 1000 + self.block).to(run.model.device)
        assert isinstance(operator, HybridAttention), "rotated or not is asked of hybrid and linear cells"
        rotation = Rotation.of(run.model, facts.token_grid(facts.default_size))
        run.specs[name] = spec
        run.trainers[self.block].append(
            UnrotatedTrainer(name, operator, rotation=rotation, choices=run.plan.training)
        )

    def _row(self, rate: str, variant: Variant, run: Distillation, trainer: CellTrainer) -> Row:
        cell, errors = run.result(self.block, trainer).cell, run.errors[trainer.name]
        return {
            "variant": variant.name,
            "block": self.block,
            "rate": rate,
            "error": {"mean": cell.error, "low": cell.error_low, "high": cell.error_high},
            "error_off": cell.error_off,
            "error_undistilled": cell.error_undistilled,
            "by_prompt": by_prompt(errors.distilled, [state.prompt for state in errors.states]),
            "stopped_at": trainer.stopped_at,
        }


def _spec(rate: str, variant: Variant) -> HybridSpec | LinearSpec:
    spec = parse_rate(rate)
    assert isinstance(spec, HybridSpec | LinearSpec), "variants are of hybrid and linear cells"
    changes: dict[str, Any] = {"feature_map": variant.feature_map}
    if isinstance(spec, HybridSpec):
        changes["stabilizer"] = variant.stabilizer
    return spec.model_copy(update=changes)
