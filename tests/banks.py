"""Banks for tests: true files with untrained, perturbed feature maps and made-up but plausible errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from workbench.models import ModelFacts
from workbench.operators import build, parse_rate
from workbench.planning import Bank, BankWriter, Cell, load_bank


def write_bank(
    folder: Path,
    facts: ModelFacts,
    *,
    rates: Sequence[str] = ("R2", "R4", "linear"),
    blocks: Sequence[int] | None = None,
    seed: int = 0,
) -> Bank:
    """Write a bank whose feature maps are large enough to change a clip visibly."""
    size = facts.default_size
    writer = BankWriter.create(folder, facts, size=(size.frames, size.height, size.width))
    generator = torch.Generator().manual_seed(seed)
    for block in range(facts.num_blocks) if blocks is None else blocks:
        for index, rate in enumerate(rates):
            spec = parse_rate(rate)
            weights = {
                name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
                for name, tensor in build(spec, facts, seed=seed + block).state_dict().items()
            }
            for name in weights:
                if name.endswith("log_scale"):
                    weights[name] = torch.zeros_like(weights[name])
            error = 0.02 * (index + 1) * (1 + (block * 7) % 5)
            writer.save_cell(
                Cell(
                    block=block,
                    spec=spec,
                    error=error,
                    error_low=0.9 * error,
                    error_high=1.1 * error,
                    error_off=2 * error,
                    error_undistilled=3 * error,
                    first_loss=3.0,
                    last_loss=1.0,
                    updates=20,
                    seconds=0.5,
                ),
                weights,
            )
    return load_bank(folder, facts)
