"""Whether a notebook has the memory and the time for a model, said before anything starts."""

from __future__ import annotations

import time

from workbench.errors import InputError
from workbench.models import model_facts, plan_placement
from workbench.models.loader import choose_device
from workbench.planning import block_flops

SIDE = 1024
SECONDS = 0.3
SHARE = 0.5
"""Of the speed of a plain matrix product that a whole transformer reaches; makes the estimate a rough one."""


def room(model: str, *, clips: float, steps: int | None = None, most_minutes: float = 240) -> str:
    """Say what sampling so many clips of a model would take here, as an estimate.

    Args:
        model: registry name, folder or hub id.
        clips: how many, at the model's default size, with guidance.
        steps: of each; None takes the model's default.
        most_minutes: more than this is refused.

    Raises:
        InputError: the memory is too small, or the time too long; one sentence with what to do.
    """
    facts = model_facts(model)
    placement = plan_placement(model)
    steps = steps or facts.default_steps
    grid = facts.token_grid(facts.default_size)
    operations = 2 * clips * steps * facts.num_blocks * block_flops(facts, grid).total
    seconds = operations / (SHARE * _product_rate())
    device = choose_device("auto").type
    told = _duration(seconds)
    if seconds > 60 * most_minutes:
        raise InputError(
            f"{facts.name} on this {device} would take about {told} here (estimated); "
            "use a GPU, fewer steps, or the embedded model."
        )
    return (
        f"{facts.name} on this {device}: about {told} for {clips:g} x {steps} sampling steps, "
        f"about {max(placement.device_peak, placement.host_peak) / 1e9:.1f} GB (estimated)"
    )


def _product_rate() -> float:
    """Return the operations a second of the fastest of some matrix products on the device."""
    import torch

    device = choose_device("auto")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    generator = torch.Generator(device).manual_seed(0)
    left, right = torch.randn(2, SIDE, SIDE, device=device, generator=generator).to(dtype)
    best, ends = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < ends:
        started = time.perf_counter()
        left = (left @ right) / SIDE
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
