"""The state of every global random generator, as JSON data: without it a resumed run is another run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def capture_randomness() -> dict[str, Any]:
    """Return the state of the generators of torch (CPU and every CUDA device), numpy and Python."""
    version, words, gauss = random.getstate()
    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    return {
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
        "cuda": [bytes(state.tolist()).hex() for state in _cuda_states()],
        "numpy": {
            "key": np.asarray(legacy["state"]["key"]).tolist(),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "python": {"version": version, "words": list(words), "gauss": gauss},
    }


def restore_randomness(data: dict[str, Any]) -> None:
    """Set every generator to a captured state; CUDA states only where as many devices are there."""
    torch.set_rng_state(_bytes(data["torch"]))
    if data["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(data["cuda"]):
        torch.cuda.set_rng_state_all([_bytes(state) for state in data["cuda"]])
    legacy = data["numpy"]
    key = np.array(legacy["key"], dtype=np.uint32)
    np.random.set_state(("MT19937", key, legacy["pos"], legacy["has_gauss"], legacy["gauss"]))
    python = data["python"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))


def capture_generator(generator: torch.Generator) -> str:
    """Return the state of one torch generator as text, for the meta data of a checkpoint."""
    return bytes(generator.get_state().tolist()).hex()


def restore_generator(generator: torch.Generator, text: str) -> None:
    """Set one torch generator to a captured state."""
    generator.set_state(_bytes(text))


def _bytes(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
