"""Hear from diffusers which step and which CFG branch is running, through the same channel as its cache
hooks.

`cache_context` speaks to every stateful hook below a transformer; this one passes the word on to the clock
and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers.hooks.hooks import BaseState, HookRegistry, ModelHook, StateManager

if TYPE_CHECKING:
    from torch import nn

    from workbench.operators.context import ForwardClock

NAME = "workbench_clock"


class ClockListener(StateManager):
    """Passes the cache context on to a clock; keeps no state of its own."""

    def __init__(self, clock: ForwardClock) -> None:
        super().__init__(BaseState)
        self.clock = clock

    def set_context(self, context: Any) -> None:
        super().set_context(context)
        if context is None:
            self.clock.leave()
        else:
            self.clock.enter(context.name, context.step_index, context.num_inference_steps)


class ClockHook(ModelHook):
    """Sits on the clock module, whose forward is never called."""

    _is_stateful = True

    def __init__(self, clock: ForwardClock) -> None:
        super().__init__()
        self.listener = ClockListener(clock)

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.listener.clock.reset()
        return module


def listen(transformer: nn.Module, clock: ForwardClock) -> None:
    """Let `clock`, already a child of `transformer`, hear its cache contexts."""
    HookRegistry.check_if_exists_or_initialize(clock).register_hook(ClockHook(clock), NAME)
    HookRegistry.check_if_exists_or_initialize(transformer).invalidate_child_registries_cache()


def forget(transformer: nn.Module) -> None:
    """Forget a clock that was taken off `transformer`."""
    HookRegistry.check_if_exists_or_initialize(transformer).invalidate_child_registries_cache()
