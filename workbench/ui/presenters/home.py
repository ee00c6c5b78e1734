"""The Home page as plain data: example, facts of a model, where its operations go, a walkthrough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.ui.context import Context
from workbench.ui.presenters import fraction, operators, plans
from workbench.ui.presenters.study import StudyParts

if TYPE_CHECKING:
    from workbench.example import Example
    from workbench.models import ModelFacts
    from workbench.planning import Bank

SCALES = (1, 2, 4)
"""Clip lengths that the page counts operations for, times the model's usual one."""
PARTS = (
    ("core", "attention core"),
    ("projections", "q, k, v, out"),
    ("feed_forward", "feed-forward"),
    ("cross", "cross-attention"),
)
FLOAT32, BFLOAT16 = 4, 2


def example_data(example: Example | None, address: Callable[[str], str]) -> dict[str, Any] | None:
    """Return what the page shows of the shipped example.

    Args:
        example: as loaded.
        address: from a file name of the example to where the browser finds it.
    """
    if example is None:
        return None
    return {
        "model": example.model,
        "prompt": example.prompt,
        "seed": example.seed,
        "plan": list(example.plan),
        "short": example.short_name,
        "clips": {"teacher": address("teacher"), "student": address("student")},
        "maps": address("maps"),
        "attention": example.attention_ratio,
        "dit": example.dit_ratio,
        "error": example.mean_error,
        "before": example.mean_psnr,
        "psnr": example.tuned_mean_psnr,
        "velocity": [example.velocity_error_before, example.velocity_error_after],
        "seconds": [example.teacher_seconds, example.student_seconds],
        "measured": example.measure_seconds,
        "tuned": example.finetune_seconds,
        "made": f"{example.device}, torch {example.torch}, {example.created[:10]}",
    }


def model_data(facts: ModelFacts) -> dict[str, Any]:
    """Return the facts of a model, and where its operations go at some clip lengths."""
    size = facts.default_size
    grid = facts.token_grid(size)
    weights = facts.num_blocks * (8 * facts.dim**2 + 2 * facts.dim * facts.ffn_dim + 6 * facts.dim)
    here = bool(facts.fingerprint)
    return {
        "name": facts.name,
        "here": here,
        "facts": [
            ["blocks", str(facts.num_blocks)],
            ["heads", f"{facts.num_heads} × {facts.head_dim}"],
            ["tokens", f"{grid.num_tokens:,}"],
            ["token grid", " × ".join(map(str, grid))],
            ["clip", f"{size.frames} × {size.height} × {size.width}"],
            ["steps", f"{facts.default_steps}, guidance {facts.default_guidance:g}"],
            ["block weights", f"{_count(weights)}, est."],
            ["in float32 / bfloat16", f"{_bytes(weights * FLOAT32)} / {_bytes(weights * BFLOAT16)}"],
        ],
        "flops": [flops_data(facts, scale) for scale in SCALES],
    }


def flops_data(facts: ModelFacts, scale: int) -> dict[str, Any] | None:
    """Return the operations of one pass by part at `scale` times the usual length, None where none."""
    from workbench.errors import InputError
    from workbench.planning import block_flops

    usual = facts.default_size
    size = usual._replace(frames=(usual.frames - 1) * scale + 1)
    try:
        grid = facts.token_grid(size)
    except InputError:
        return None
    parts = block_flops(facts, grid)._asdict()
    return {
        "scale": scale,
        "frames": size.frames,
        "tokens": grid.num_tokens,
        "parts": [[title, parts[name] * facts.num_blocks] for name, title in PARTS],
    }


def payoff(facts: ModelFacts, target: float, scale: int, bank: Bank | None = None) -> dict[str, Any]:
    """Return whether a speed-up of the transformer can be reached at `scale` times the usual clip length.

    The usual operators are tried, and those of a bank.

    Raises:
        InputError: a target or a length that cannot be.
    """
    from workbench.planning import will_it_pay

    usual = facts.default_size
    size = usual._replace(frames=(usual.frames - 1) * scale + 1)
    specs = list(operators(facts, bank).values())[1:]
    found = will_it_pay(facts, size, target_speedup=target, specs=specs)
    data: dict[str, Any] = found.model_dump(mode="json")
    return data


def reachable(bank: Bank | None, facts: ModelFacts) -> list[dict[str, float]]:
    """Return speed-up of the transformer and lowest mean error of some plans over measured cells."""
    counted = plans.costs(facts, operators(facts, bank))
    blocks = facts.num_blocks
    dense = blocks * (counted["core"] + counted["rest"])
    return [
        {
            "speedup": dense
            / (blocks * counted["rest"] + sum(counted["attention"][label] for label in point["plan"])),
            "error": point["error"] / blocks,
        }
        for point in plans.front_points(bank)
    ]


def walkthrough(example: Example | None, parts: StudyParts) -> list[dict[str, str]]:
    """Return the steps of a first study, what the example took and measured, and what one's own did.

    What came with the workbench is nobody's own work.
    """
    from workbench.surgery import shipped_students

    if example is None:
        return []
    capture, bank, comparison = parts.capture, parts.bank, parts.comparison
    cells = len(example.cells)
    own_error = _same_plan_error(example, bank)
    psnr = None
    if comparison is not None and comparison.metrics is not None:
        psnr = comparison.metrics.mean_psnr
    own_time, tuned = "", None
    if bank is not None and "halved_from_error" not in bank.manifest.provenance:
        spent = sum(cell.seconds for cell in bank.cells.values())
        own_time = f"{_time(spent)}, {len(bank.cells)} cells"
    if parts.student is not None and parts.student.name not in shipped_students():
        tuned = parts.student.manifest.provenance.get("velocity_error")
    return [
        _line("Capture one prompt", "attention", f"{example.capture_seconds:.0f} s",
              f"{capture.manifest.seconds:.0f} s" if capture else ""),
        _line(f"Measure {cells} cells, {example.updates} updates each", "plan",
              _time(example.measure_seconds), own_time),
        _line(f"Paint {example.short_name}: mean error", "plan", fraction(example.mean_error),
              "" if own_error is None else fraction(own_error)),
        _line(f"Finetune, {example.finetune_updates} updates: velocity error", "train",
              f"{fraction(example.velocity_error_before)} → {fraction(example.velocity_error_after)}",
              fraction(float(tuned)) if isinstance(tuned, int | float) else ""),
        _line("Compare: PSNR to the teacher", "compare", _decibel(example.tuned_mean_psnr),
              "" if psnr is None else f"{_decibel(psnr)}, {comparison.plan if comparison else ''}"),
    ]  # fmt: skip


def peak_memory(context: Context) -> str:
    """Return the most memory that a finished job with this model held, "" where none ran."""
    peaks = [
        job.peak_bytes
        for job in context.queue.list(states=("done",))
        if job.config.get("model") == context.model and job.kind in ("capture", "measure", "render")
    ]
    most = max(peaks, default=0)
    return _bytes(most) if most else ""


def _same_plan_error(example: Example, bank: Bank | None) -> float | None:
    """Return the mean error of the example's plan in another bank, None where it lacks a cell."""
    if bank is None or bank.facts.num_blocks != len(example.plan):
        return None
    wanted = [(block, label) for block, label in enumerate(example.plan) if label != "softmax"]
    if any(key not in bank.cells for key in wanted):
        return None
    return sum(bank.cells[key].error for key in wanted) / len(example.plan)


def _line(step: str, page: str, expected: str, own: str) -> dict[str, str]:
    return {"step": step, "page": page, "expected": expected, "own": own}


def _decibel(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _count(number: float) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
