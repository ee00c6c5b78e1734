"""φ before the rotary embedding: states turned back are those before it; nothing else of a cell changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from workbench.distillation.cells import CellTrainer, TrainingChoices
from workbench.distillation.teacher import TeacherAttention
from workbench.experiments.rotation import Rotation, UnrotatedTrainer
from workbench.models import LoadedModel
from workbench.models.wan import rotate
from workbench.operators import build, parse_rate
from workbench.operators.hybrid import HybridAttention
from workbench.types import TokenGrid

GRID = TokenGrid(3, 4, 6)


def _states(model: LoadedModel, seed: int) -> torch.Tensor:
    shape = (2, GRID.num_tokens, model.facts.num_heads, model.facts.head_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_states_turned_back_are_those_before_the_rotation(micro_model: LoadedModel) -> None:
    sides = [tokens * patch for tokens, patch in zip(GRID, micro_model.facts.patch_size, strict=True)]
    rope: Any = micro_model.transformer.rope
    tables = rope(torch.empty(1, 1, *sides))
    states, positions = _states(micro_model, 0), torch.tensor([71, 0, 5, 30])
    rotated = rotate(states, *tables)
    assert not torch.allclose(rotated[:, positions], states[:, positions], atol=1e-2)
    found = Rotation.of(micro_model, GRID).undo(rotated[:, positions], positions)
    torch.testing.assert_close(found, states[:, positions], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", ["R2", "R5", "linear"])
def test_without_a_rotation_the_cell_is_the_usual_one(micro_model: LoadedModel, rate: str) -> None:
    query, key, value = (_states(micro_model, seed) for seed in range(3))
    chosen = torch.tensor([3, 70, 11])
    attention = TeacherAttention.of(query, key, value, chosen=chosen, grid=GRID)
    operator = build(parse_rate(rate), micro_model.facts, seed=1)
    assert isinstance(operator, HybridAttention)
    shape = (1, GRID.num_tokens, 1, micro_model.facts.head_dim)
    still = Rotation(torch.ones(shape), torch.zeros(shape))
    usual = CellTrainer("usual", operator, choices=TrainingChoices())
    unrotated = UnrotatedTrainer("unrotated", operator, rotation=still, choices=TrainingChoices())
    torch.testing.assert_close(unrotated.output(attention), usual.output(attention))
    turned = UnrotatedTrainer(
        "turned", operator, rotation=Rotation.of(micro_model, GRID), choices=TrainingChoices()
    )
    assert not torch.allclose(turned.output(attention), usual.output(attention), atol=1e-6)
