"""Peak memory and operations of a model at any size, without its memory: fake tensors have shapes alone.

What is counted are the tensors that torch allocates; workspace inside a kernel and fragmentation are not.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made inside the context, beyond those of `modules`."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = {
            tensor.untyped_storage()._cdata
            for module in modules
            for tensor in (*module.parameters(), *module.buffers())
        }

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += num_bytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, num_bytes)

    def _forget(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self.live -= num_bytes


def cast(transformer: nn.Module, dtype: torch.dtype) -> None:
    """Give a fake transformer the dtypes that loading gives it: `dtype`, float32 where it is delicate."""
    kept = transformer._keep_in_fp32_modules
    for name, module in transformer.named_modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            wide = any(word in f"{name}.{key}".split(".") for word in kept)
            empty = torch.empty(parameter.shape, dtype=torch.float32 if wide else dtype)
            module._parameters[key] = nn.Parameter(empty, requires_grad=False)
