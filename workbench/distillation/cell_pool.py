"""Cells are independent given the teacher, so on a CPU they are worked on side by side, one thread each.

The arithmetic of a cell never depends on how many workers there are, so neither does its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import torch

Made = TypeVar("Made")


class CellPool:
    """Runs the work of cells on as many threads as torch may use; on an accelerator one after the other.

    Args:
        device: where the cells are.
        workers: None takes torch's number of threads.
    """

    def __init__(self, device: torch.device, *, workers: int | None = None) -> None:
        self.size = (workers or torch.get_num_threads()) if device.type == "cpu" else 1
        self._on_cpu = device.type == "cpu"
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._on_cpu:
            self._executor = ThreadPoolExecutor(self.size, "cell")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def run(self, work: Sequence[Callable[[], Made]]) -> list[Made]:
        """Return what each piece of work returns, in order; raises what the first failed one raises."""
        if self._executor is None:
            return [piece() for piece in work]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return list(self._executor.map(lambda piece: piece(), work))
        finally:
            torch.set_num_threads(threads)
