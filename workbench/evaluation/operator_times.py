"""Milliseconds of every operator on this device: measured at one clip size, kept by model, device and size.

Attention is timed alone, on random queries, keys and values; everything else in a block is a measured pass
of the untouched transformer less its attention. No estimate: what was not run is not in the file.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
from pydantic import Field

from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts
from workbench.operators import SOFTMAX, OperatorSpec, build, label, parse_rate
from workbench.operators.softmax import softmax_attention
from workbench.planning import Timings
from workbench.sampling import GenerateConfig, sample
from workbench.types import ClipSize, Reporter, StrictModel, TokenGrid
from workbench.workspace import Workspace, read_json, write_json

PASSES = 3
WARM_UP = 2
Milliseconds = Annotated[float, Field(gt=0)]


class TimesConfig(StrictModel):
    """What to time.

    Attributes:
        rates: operators as a user writes them; softmax is always timed.
        repeats: runs of each, of which the median counts.
        frames: of the clip, in pixels as height and width; None takes the model's default.
    """

    model: str = "embedded"
    rates: Annotated[tuple[str, ...], Field(min_length=1)] = ("R2", "R4", "R8", "R16", "linear", "T3o1")
    repeats: Annotated[int, Field(ge=1, le=1000)] = 9
    frames: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None

    def size(self, facts: ModelFacts) -> ClipSize:
        """Return the clip size at which operators are timed."""
        usual = facts.default_size
        return ClipSize(self.frames or usual.frames, self.height or usual.height, self.width or usual.width)


class OperatorTimes(StrictModel):
    """What was measured: medians in milliseconds, on one device.

    Attributes:
        fingerprint: of the weights.
        attention: by operator, of the attention of one block.
        one_pass: of the untouched transformer.
    """

    schema_version: int = 1
    model: str
    fingerprint: str
    num_blocks: Annotated[int, Field(ge=1)]
    size: tuple[int, int, int]
    device: str
    dtype: str
    torch: str
    created: str
    attention: dict[str, Milliseconds]
    one_pass: Milliseconds

    @property
    def timings(self) -> Timings:
        """As planning wants them; the rest of a block is what its attention leaves of a pass."""
        rest = self.one_pass / self.num_blocks - self.attention["softmax"]
        return Timings(attention=self.attention, rest=max(rest, 1e-6), device=self.device)


@dataclass
class _Alone:
    """What an operator may ask of its context outside a sampling run."""

    grid: TokenGrid
    block: int = 0
    step: int = 0
    num_steps: int = 1
    branch: str = "cond"
    timesteps: None = None
    timestep: float = 500.0
    state: dict[str, Any] = field(default_factory=dict)


def time_operators(
    model: LoadedModel, config: TimesConfig, workspace: Workspace, *, reporter: Reporter
) -> Path:
    """Time every operator at one clip size and keep the medians in the workspace.

    Raises:
        InputError: a rate that is none, or a size that the model refuses.
        Cancelled, Paused: when the reporter says so.
    """
    facts = model.facts
    specs = {label(spec): spec for spec in (SOFTMAX, *map(parse_rate, config.rates))}
    size = config.size(facts)
    grid = facts.token_grid(size)
    reporter.stage("timing operators", len(specs))
    attention = {}
    for done, (name, spec) in enumerate(specs.items(), start=1):
        attention[name] = _time_attention(spec, model, grid, repeats=config.repeats)
        reporter.step(done)
    reporter.stage("timing the transformer", 1)
    times = OperatorTimes(
        model=facts.name,
        fingerprint=facts.fingerprint,
        num_blocks=facts.num_blocks,
        size=(size.frames, size.height, size.width),
        device=_device_name(model.device),
        dtype=str(model.transformer.dtype).removeprefix("torch."),
        torch=torch.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        attention=attention,
        one_pass=_time_pass(model, size),
    )
    path = _file(workspace, facts, size)
    write_json(path, times.model_dump(mode="json"))
    return path


def find_times(workspace: Workspace, facts: ModelFacts, size: ClipSize | None = None) -> OperatorTimes | None:
    """Return what was measured for these weights on this device, None where nothing was or it cannot be read.

    Args:
        size: None looks for the model's default size.
    """
    wanted = size or facts.default_size
    path = _file(workspace, facts, wanted)
    if not path.is_file():
        return None
    try:
        times = OperatorTimes.parse(read_json(path, what="operator times"), what="operator times")
    except InputError:
        return None
    return times if times.size == tuple(wanted) else None


def _file(workspace: Workspace, facts: ModelFacts, size: ClipSize) -> Path:
    weights = facts.fingerprint or facts.name.replace("/", "-")
    shape = "x".join(map(str, size))
    return workspace.folder("cache") / f"times-{weights}-{_device_key()}-{shape}.json"


def _device_key() -> str:
    """Return a short name of the device on which models run here, fit for a file name."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu {platform.machine()}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@torch.no_grad()
def _time_attention(spec: OperatorSpec, model: LoadedModel, grid: TokenGrid, *, repeats: int) -> float:
    facts, dtype = model.facts, model.pipeline.transformer.dtype
    shape = (3, 1, grid.num_tokens, facts.num_heads, facts.head_dim)
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(shape, generator=generator).to(model.device, dtype)
    if spec == SOFTMAX:
        return _median(lambda: softmax_attention(query, key, value), model.device, repeats=repeats)
    operator: Any = build(spec, facts).to(model.device)
    context = _Alone(grid)
    return _median(lambda: operator(query, key, value, context=context), model.device, repeats=repeats)


def _time_pass(model: LoadedModel, size: ClipSize) -> float:
    """Return the median of some passes of the transformer in a real, short run without guidance."""
    begun, seconds = 0.0, []

    def before(*_: Any) -> None:
        nonlocal begun
        _wait(model.device)
        begun = time.perf_counter()

    def after(*_: Any) -> None:
        _wait(model.device)
        seconds.append(time.perf_counter() - begun)

    transformer: Any = model.transformer
    hooks = [transformer.register_forward_pre_hook(before), transformer.register_forward_hook(after)]
    try:
        wanted = {"frames": size.frames, "height": size.height, "width": size.width}
        sample(model, GenerateConfig(prompt="a red ball", steps=PASSES + 1, guidance=1.0, **wanted))
    finally:
        for hook in hooks:
            hook.remove()
    return 1000 * median(seconds[1:])


def _median(run: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    seconds = []
    for turn in range(WARM_UP + repeats):
        _wait(device)
        begun = time.perf_counter()
        run()
        _wait(device)
        if turn >= WARM_UP:
            seconds.append(time.perf_counter() - begun)
    return 1000 * median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu, {torch.get_num_threads()} threads"
