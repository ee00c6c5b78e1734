"""Refuse a finetuning that the GPU cannot hold, before the teacher samples for hours."""

from __future__ import annotations

from workbench.distillation.finetune_config import FinetuneConfig
from workbench.errors import InputError
from workbench.models import LoadedModel
from workbench.models.memory import training_bytes
from workbench.models.placement import RESERVE
from workbench.operators import build
from workbench.planning import Plan
from workbench.types import ClipSize

GIGA = 1e9


def estimate(model: LoadedModel, config: FinetuneConfig, plan: Plan) -> float:
    """Return the estimated peak of a finetuning with gradient checkpointing, weights included, in bytes."""
    facts, each = model.facts, model.transformer_dtype.itemsize
    usual = facts.default_size
    size = ClipSize(config.frames or usual.frames, config.height or usual.height, config.width or usual.width)
    maps = sum(
        sum(parameter.numel() for parameter in build(spec, facts).parameters())
        for spec in plan.converted.values()
    )
    trained = maps
    if config.method == "full":
        trained += model.footprint.transformer
    elif config.method == "lora":
        trained += config.rank * facts.num_blocks * (10 * facts.dim + 2 * facts.ffn_dim)
    weights = each * model.footprint.transformer + 4 * model.footprint.vae
    return weights + training_bytes(facts, size, num_trained=trained, bytes_each=each)


def require_room(model: LoadedModel, config: FinetuneConfig, plan: Plan) -> None:
    """Refuse what cannot fit on the GPU; on a CPU nothing is refused here.

    Raises:
        InputError: the estimate, the room, and what to do.
    """
    if model.device.type != "cuda":
        return
    import torch

    if model.placement.offload == "group":
        raise InputError(
            f"{model.facts.name} fits on this GPU one block at a time only, and finetuning needs all of it; "
            "use a larger GPU."
        )
    room = float(torch.cuda.get_device_properties(model.device).total_memory)
    if config.memory_gb is not None:
        room = min(room, config.memory_gb * GIGA)
    needed = estimate(model, config, plan) + RESERVE
    if needed > room:
        raise InputError(
            f"Finetuning {model.facts.name} like this is estimated to need {needed / GIGA:.1f} GB of GPU "
            f"memory, {room / GIGA:.1f} GB may be used; choose fewer frames, a smaller size or method lora."
        )
