"""Several processes that work together: on the cells of a bank, or on the states of a student's updates.

Started by `accelerate launch`; without it there is one process and nothing is communicated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from workbench.types import CheckpointState, Reporter, SilentReporter

Item = TypeVar("Item")


class Team:
    """All processes of one finetuning; process 0 talks to the user and writes files."""

    def __init__(self, device: torch.device) -> None:
        self.size, self.index = 1, 0
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=device.type == "cpu")
            self.size, self.index = self._state.num_processes, self._state.process_index

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of `items`."""
        return items[self.index :: self.size]

    def reporter(self, reporter: Reporter) -> Reporter:
        """Return the reporter for this process: only the first one talks, all may go on from its state."""
        return reporter if self.is_first else _Listener(reporter)

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Let the first process through the block, then the others."""
        if self._state is None:
            yield
        else:
            with self._state.main_process_first():
                yield

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their sums over all processes, in place."""
        if self._state is None:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        first = 0
        for tensor in tensors:
            tensor.copy_(flat[first : first + tensor.numel()].view_as(tensor))
            first += tensor.numel()

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes on the first one, and the process's own on the others."""
        if self._state is None:
            return list(items)
        boxes: list[Any] = [None] * self.size
        torch.distributed.gather_object(list(items), boxes if self.is_first else None)
        return [item for box in boxes for item in box] if self.is_first else list(items)

    def from_first(self, make: Callable[[], Item]) -> Item:
        """Let the first process make something, and give it to all."""
        if self._state is None:
            return make()
        box: list[Any] = [make() if self.is_first else None]
        torch.distributed.broadcast_object_list(box, src=0)
        made: Item = box[0]
        return made


class _Listener(SilentReporter):
    """Keeps quiet, and goes on from the state that the first process goes on from."""

    def __init__(self, reporter: Reporter) -> None:
        self._first = reporter

    def restore(self) -> CheckpointState | None:
        return self._first.restore()
