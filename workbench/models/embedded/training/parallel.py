"""Training in several processes of one machine, one GPU each.

Every process draws clips of its own; gradients are averaged, and what must be equal everywhere (the learning
rate, the end of a stage) is what the first process says. Only the first writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import distributed

SEED_STRIDE = 7919
"""Between the seeds of neighbouring processes."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: Which one this is; 0 logs and writes.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one logs and writes."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Return this process's own seed; the first keeps the one it was given."""
        return seed + SEED_STRIDE * self.rank

    def agree(self, values: Sequence[float]) -> list[float]:
        """Return the first process's values."""
        if self.count == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(told, src=0)
        found: list[float] = told.tolist()
        return found

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.count == 1:
            return
        gradients = [value.grad for value in parameters if value.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    @torch.no_grad()
    def share(self, values: Iterable[torch.Tensor]) -> None:
        """Replace every tensor by the first process's."""
        if self.count > 1:
            for value in values:
                distributed.broadcast(value, src=0)


ALONE = Processes()


def join() -> Processes:
    """Join the processes that torchrun started; alone where it did not."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    use_own_device()
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend)
    return Processes(distributed.get_rank(), distributed.get_world_size())


def use_own_device() -> None:
    """Let "cuda" mean this process's GPU, in the processes that it starts too."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def leave() -> None:
    """End what `join` began."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
