"""Where the parts of a model lie while it works, decided from an estimate of memory before loading.

Estimates count tensors (weights, activations, decoding), as `tests/models/test_memory.py` checks on the real
architectures; `RESERVE` stands for what is not counted: the device's context, kernels' workspace, fragments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import psutil
from pydantic import Field

from workbench.errors import InputError
from workbench.jobs.memory import memory_limit
from workbench.models.facts import ModelFacts
from workbench.models.footprint import Footprint
from workbench.models.memory import (
    GROUPS_AT_ONCE,
    LARGE_ENCODER,
    Free,
    Offload,
    decode_peak,
    encoder_bytes_each,
    forward_bytes,
    needs,
)
from workbench.types import ClipSize, StrictModel

if TYPE_CHECKING:
    import torch

RESERVE = 1.2e9
GIGA = 1e9


class PlacementConfig(StrictModel):
    """What a user may choose; the defaults decide by the memory that is free.

    Attributes:
        offload: "none" keeps everything on the device, "model" brings one component at a time, "group" one
            block of the transformer at a time.
        tiling: decode in tiles of 256 pixels; "auto" only where the whole frame does not fit.
        text_encoder: "resident" keeps it, "passing" loads it for encoding and frees it after; "auto" lets
            one of more than a billion parameters pass.
        memory_gb: use at most so much of the device, in 1e9 bytes; enforced on CUDA by a memory fraction.
    """

    offload: Literal["auto", "none", "model", "group"] = "auto"
    tiling: Literal["auto", "on", "off"] = "auto"
    text_encoder: Literal["auto", "resident", "passing"] = "auto"
    memory_gb: Annotated[float, Field(gt=0)] | None = None


class Placement(NamedTuple):
    """A decision, with the estimated peaks in bytes that it rests on.

    Attributes:
        device: "cpu" or "cuda".
        passing_text: whether the text encoder is loaded for encoding alone.
    """

    device: str
    offload: Offload
    tiling: bool
    passing_text: bool
    device_peak: float
    host_peak: float

    def sentence(self, name: str, size: ClipSize) -> str:
        """Say what is about to happen, in one sentence."""
        clip = f"a clip of {size.frames}×{size.height}×{size.width}"
        ways = {
            "none": "",
            "model": ", one component on the GPU at a time",
            "group": ", one block of the transformer on the GPU at a time",
        }
        extras = ways[self.offload] + (", decoded in tiles" if self.tiling else "")
        extras += ", the text encoder loaded for encoding alone" if self.passing_text else ""
        where = "GPU memory" if self.device == "cuda" else "memory on the CPU, where it is slow"
        return f"{name}: {clip} is estimated to need {self.device_peak / GIGA:.1f} GB of {where}{extras}."


def place(
    footprint: Footprint,
    facts: ModelFacts,
    config: PlacementConfig,
    *,
    device: str,
    bytes_each: int,
    free: Free,
) -> Placement:
    """Choose the fastest placement that fits, for a clip of the model's default size.

    Raises:
        InputError: nothing fits, or a choice that the device cannot follow.
    """
    if device == "cpu" and config.offload == "model":
        raise InputError("Model offload moves components to a GPU and there is none; choose offload none.")
    room = free.device if config.memory_gb is None else min(free.device, config.memory_gb * GIGA)
    reserve = RESERVE if device == "cuda" else 0.0
    usual = _candidates(footprint, facts, config, facts.default_size, device=device, bytes_each=bytes_each)
    for found in usual:
        if found.device_peak + reserve <= room and (device == "cpu" or found.host_peak <= free.host):
            return found
    smallest = ClipSize(1, *facts.multiples[1:])
    least = _candidates(footprint, facts, config, smallest, device=device, bytes_each=bytes_each)[-1]
    if least.device_peak + reserve <= room and (device == "cpu" or least.host_peak <= free.host):
        return usual[-1]
    raise InputError(_hopeless(least, facts, Free(room - reserve, free.host)))


def _candidates(
    footprint: Footprint,
    facts: ModelFacts,
    config: PlacementConfig,
    size: ClipSize,
    *,
    device: str,
    bytes_each: int,
) -> list[Placement]:
    """Return the placements that `config` leaves open, the fastest first."""
    passing = config.text_encoder == "passing" or (
        config.text_encoder == "auto" and footprint.text_encoder > LARGE_ENCODER
    )
    offloads: tuple[Offload, ...] = ("none",) if device == "cpu" else ("none", "model", "group")
    if config.offload != "auto":
        offloads = (config.offload,)
    everything = (
        bytes_each * footprint.transformer * facts.num_transformers
        + 4 * footprint.vae
        + encoder_bytes_each(footprint, bytes_each) * footprint.text_encoder
    )
    found = []
    for offload in offloads:
        for tiling in {"auto": (False, True), "on": (True,), "off": (False,)}[config.tiling]:
            need = needs(
                footprint, facts, size,
                bytes_each=bytes_each, offload=offload, tiling=tiling, passing_text=passing,
            )  # fmt: skip
            peak = need.device if device == "cuda" else max(need.device, everything)
            found.append(Placement(device, offload, tiling, passing, peak, need.host))
    return found


def _hopeless(least: Placement, facts: ModelFacts, free: Free) -> str:
    if least.device == "cpu":
        return (
            f"{facts.name} needs about {least.device_peak / GIGA:,.1f} GB of memory on this CPU even for one "
            f"frame, {free.device / GIGA:,.1f} GB are free; use a machine with a GPU, or the embedded model."
        )
    if least.device_peak > free.device:
        return (
            f"{facts.name} needs about {least.device_peak / GIGA:,.1f} GB of GPU memory even for one frame "
            f"with offload {least.offload}, {free.device / GIGA:,.1f} GB are free; "
            "free the GPU or use a smaller model."
        )
    return (
        f"{facts.name} needs about {least.host_peak / GIGA:,.1f} GB of memory beside the GPU, "
        f"{free.host / GIGA:,.1f} GB are free; close other programs or use a smaller model."
    )


def free_memory(device: torch.device) -> Free:
    """Return the memory that this process can have now: what torch keeps for later use counts as free."""
    import torch

    host = float(min(psutil.virtual_memory().available, memory_limit()))
    if device.type != "cuda":
        return Free(host, host)
    free, total = torch.cuda.mem_get_info(device)
    mine = torch.cuda.memory_allocated(device)
    kept = torch.cuda.memory_reserved(device) - mine
    allowed = torch.cuda.get_per_process_memory_fraction(_index(device)) * total - mine
    return Free(min(float(free + kept), allowed), host)


def check_clip(
    footprint: Footprint,
    facts: ModelFacts,
    size: ClipSize,
    *,
    placement: Placement,
    bytes_each: int,
    free: Free,
) -> None:
    """Refuse a clip whose activations or frames cannot fit beside the weights that are loaded already.

    Raises:
        InputError: what is needed and what is free, before any work is done.
    """
    forward = forward_bytes(facts, size, bytes_each=bytes_each)
    one = bytes_each * footprint.transformer
    moved = {"none": 0.0, "model": one, "group": GROUPS_AT_ONCE * one / facts.num_blocks}[placement.offload]
    need = max(forward + moved, decode_peak(footprint, size, tiling=placement.tiling))
    if need > free.device:
        where = "GPU memory" if placement.device == "cuda" else "memory"
        raise InputError(
            f"A clip of {size.frames}×{size.height}×{size.width} needs about {need / GIGA:,.1f} GB of "
            f"{where} with {facts.name}, {free.device / GIGA:,.1f} GB are free; "
            "choose fewer frames or a smaller size."
        )


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Let this process have at most `gigabytes` of a CUDA device, its context included; nothing on a CPU."""
    import torch

    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * GIGA / total), _index(device))


def _index(device: torch.device) -> int:
    """Return a CUDA device's number, which torch's memory fractions want; "cuda" alone is the current one."""
    import torch

    return torch.cuda.current_device() if device.index is None else device.index


def apply(pipeline: Any, placement: Placement, device: torch.device) -> None:
    """Bring a pipeline that lies on the CPU to where `placement` says."""
    if placement.tiling:
        pipeline.vae.enable_tiling()
    if placement.offload == "none":
        pipeline.to(device)
    elif placement.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        import torch

        for name in ("transformer", "transformer_2"):
            transformer = getattr(pipeline, name, None)
            if transformer is not None:
                transformer.enable_group_offload(
                    onload_device=device,
                    offload_device=torch.device("cpu"),
                    offload_type="block_level",
                    num_blocks_per_group=1,
                    use_stream=device.type == "cuda",
                )
        pipeline.vae.to(device)
        if pipeline.text_encoder is not None:
            pipeline.text_encoder.to(device)
