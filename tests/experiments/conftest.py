"""One small run of all experiments with the tiny Wan model, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.experiments import Order, Shared, run
from workbench.experiments.allocation import AllocationConfig
from workbench.experiments.extremes import ExtremesConfig
from workbench.experiments.feature_maps import FeatureMapsConfig
from workbench.experiments.linear_branch import LinearBranchConfig
from workbench.experiments.losses import LossesConfig
from workbench.experiments.rates import RatesConfig
from workbench.experiments.rehyat import RehyatConfig
from workbench.experiments.settings import BankRecipe, FinetuneRecipe
from workbench.types import StrictModel
from workbench.workspace import Workspace

BANK = BankRecipe(rates=("R2", "R4", "linear"), updates=6)
SMALL: dict[str, StrictModel] = {
    "rates": RatesConfig(
        shares=(0.5, 1.0),
        rates=("R4", "linear"),
        clips=2,
        pictured=((1.0, "R4", "distilled"),),
        finetuned=((1.0, "R4"),),
        finetuned_budgets=(),
        finetuned_clips=2,
    ),
    "allocation": AllocationConfig(rates=("R2",), clips=0),
    "losses": LossesConfig(losses=("score",), clips=0, pictured=()),
    "linear-branch": LinearBranchConfig(rates=("R4",), budgets=(), clips=0),
    "feature-maps": FeatureMapsConfig(
        variants=("usual", "stabilizer row maximum", "before the rotary embedding", "Hedgehog"),
        num_blocks=2,
        updates=4,
    ),
    "extremes": ExtremesConfig(rates=("linear",), finetuned=(), clips=2, pictured=()),
    "rehyat": RehyatConfig(chunked=("T1o0",), updates=4, clips=0, long_clips=1, pictured=("T1o0",)),
}


@pytest.fixture(scope="package")
def order(micro_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    shared = Shared(
        scale="quick",
        model=str(micro_model_folder),
        num_prompts=2,
        num_held_out=2,
        steps=2,
        states=1,
        queries=16,
        clip_steps=2,
        clips_a_task=1,
        bank=BANK,
        finetune=FinetuneRecipe(updates=3, rank=2),
    )
    out = tmp_path_factory.mktemp("experiments")
    return Order(["all"], "quick", out, device="cpu", shared=shared, configs=SMALL)


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that the tests of this folder share, so that what was measured once is there."""
    return Workspace.open(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="package")
def told(order: Order, bench: Workspace) -> list[str]:
    lines: list[str] = []
    run(order, bench, tell=lines.append)
    return lines
