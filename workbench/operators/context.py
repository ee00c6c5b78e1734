"""Where a forward pass stands: token grid, sampling step, CFG branch. One clock sits on a transformer.

diffusers tells its cache hooks step and branch (`cache_context`), and a forward pre-hook sees the shapes; the
clock listens to both, so that `WanPipeline.__call__` runs unchanged. Knows nothing of operators.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from workbench.models.adapter import Adapter
from workbench.types import TokenGrid

CLOCK = "workbench_clock"


@dataclass(frozen=True)
class AttentionContext:
    """Where one self-attention stands; step, number of steps and branch are None outside a sampling run.

    Attributes:
        branch: "cond" or "uncond".
        timesteps: what the transformer was called with, [B] or [B, N].
    """

    grid: TokenGrid
    block: int
    step: int | None
    num_steps: int | None
    branch: str | None
    timesteps: Tensor | None

    @property
    def timestep(self) -> float | None:
        """The largest of the timesteps, as a number."""
        return None if self.timesteps is None else float(self.timesteps.max())


class ForwardClock(nn.Module):
    """Knows where the transformer's current forward pass stands, and keeps the state of stateful operators.

    It has no parameters and adds no key to a state dict. `state` is keyed by (block, branch) and cleared
    when a new clip starts.
    """

    def __init__(self, adapter: Adapter, argument_names: tuple[str, ...]) -> None:
        super().__init__()
        self.adapter = adapter
        self.argument_names = argument_names
        self.holders = 0
        self.handle: Any = None
        self.grid = TokenGrid(0, 0, 0)
        self.timesteps: Tensor | None = None
        self.step: int | None = None
        self.num_steps: int | None = None
        self.branch: str | None = None
        self.dense = False
        self.is_dense_step: Callable[[int], bool] | None = None
        self.installation: Any = None
        self.state: dict[tuple[int, str | None], dict[str, Any]] = {}
        self._seen: tuple[int, set[str]] = (-1, set())

    def before_forward(self, transformer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note grid and timesteps; a forward pre-hook."""
        named = dict(zip(self.argument_names, args, strict=False))
        self.grid, self.timesteps = self.adapter.inputs(transformer, {**named, **kwargs})

    def enter(self, branch: str | None, step: int | None, num_steps: int | None) -> None:
        """Note where the denoising loop is; a step that comes again starts a new clip."""
        self.branch, self.step, self.num_steps = branch, step, num_steps
        self.dense = step is not None and self.is_dense_step is not None and self.is_dense_step(step)
        if step is None or branch is None:
            return
        last, branches = self._seen
        if step < last or (step == last and branch in branches):
            self.state.clear()
        self._seen = (step, branches | {branch} if step == last else {branch})

    def leave(self) -> None:
        """Forget the step: what follows is no sampling run, or not yet."""
        self.branch = self.step = self.num_steps = None
        self.dense = False

    def reset(self) -> None:
        """Forget everything kept between steps."""
        self.leave()
        self.state.clear()
        self._seen = (-1, set())


class BlockContext:
    """The live context of one block, for its operator: only what is read is looked up."""

    def __init__(self, clock: ForwardClock, block: int, original: Any = None) -> None:
        self._clock = clock
        self._original = original
        self.block = block

    @property
    def attention_backend(self) -> Any:
        """The attention backend of diffusers that the block was given; None is the active one."""
        return getattr(self._original, "_attention_backend", None)

    @property
    def grid(self) -> TokenGrid:
        return self._clock.grid

    @property
    def step(self) -> int | None:
        return self._clock.step

    @property
    def num_steps(self) -> int | None:
        return self._clock.num_steps

    @property
    def branch(self) -> str | None:
        return self._clock.branch

    @property
    def timesteps(self) -> Tensor | None:
        return self._clock.timesteps

    @property
    def state(self) -> dict[str, Any]:
        """What this block keeps between the steps of one clip, one dictionary a branch."""
        return self._clock.state.setdefault((self.block, self._clock.branch), {})

    def freeze(self) -> AttentionContext:
        """Return a copy that stays as it is."""
        return AttentionContext(self.grid, self.block, self.step, self.num_steps, self.branch, self.timesteps)


def clock_of(transformer: nn.Module) -> ForwardClock | None:
    """Return the clock that sits on a transformer, None where there is none."""
    clock = getattr(transformer, CLOCK, None)
    return clock if isinstance(clock, ForwardClock) else None


def attach_clock(transformer: nn.Module, adapter: Adapter) -> ForwardClock:
    """Put a clock on a transformer, or take hold of the one that is there; pair with `release_clock`."""
    clock = clock_of(transformer)
    if clock is None:
        from workbench.operators.cache_listener import listen

        names = tuple(inspect.signature(type(transformer).forward).parameters)[1:]
        clock = ForwardClock(adapter, names)
        transformer.add_module(CLOCK, clock)
        clock.handle = transformer.register_forward_pre_hook(clock.before_forward, with_kwargs=True)
        listen(transformer, clock)
    clock.holders += 1
    return clock


def release_clock(transformer: nn.Module) -> None:
    """Let go of a clock; the last holder takes it off."""
    clock = clock_of(transformer)
    assert clock is not None, "no clock is attached"
    clock.holders -= 1
    if clock.holders:
        return
    from workbench.operators.cache_listener import forget

    clock.handle.remove()
    delattr(transformer, CLOCK)
    forget(transformer)
