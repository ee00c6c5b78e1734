"""Write the trained parts as a diffusers folder in 16-bit storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from workbench.models.embedded.architecture import build_codec, build_scheduler
from workbench.models.embedded.tokenizer import build_tokenizer, token_list
from workbench.models.embedded.training.codec_stage import FOLDER as CODEC_FOLDER
from workbench.models.embedded.training.state import load_average
from workbench.models.embedded.training.transformer_stage import FOLDER as TRANSFORMER_FOLDER
from workbench.models.embedded.training.transformer_stage import Denoiser


def export(folder: Path, target: Path, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the averaged weights of a training folder to `target`, loadable by `WanPipeline.from_pretrained`.

    Args:
        folder: Training output with a codec and a transformer.
        target: The diffusers folder to write.
        dtype: Storage; fp16 keeps three bits more than bf16 of these weights, none of them near its limits.

    Returns:
        Bytes written and the largest relative change of a weight tensor by the storage.

    Raises:
        ValueError: if a weight does not fit the storage.
    """
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    denoiser = Denoiser(len(token_list()))
    facts = load_average(folder / TRANSFORMER_FOLDER, denoiser)
    codec = build_codec(torch.tensor(facts["mean"]), torch.tensor(facts["std"]))
    load_average(folder / CODEC_FOLDER, codec)
    parts = {"transformer": denoiser.transformer, "text_encoder": denoiser.text_encoder, "vae": codec}
    change = {name: _store_as(module, dtype) for name, module in parts.items()}
    pipeline = WanPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=denoiser.text_encoder,
        vae=codec,
        scheduler=build_scheduler(),
        transformer=denoiser.transformer,
    )
    target.mkdir(parents=True, exist_ok=True)
    pipeline.save_pretrained(target, safe_serialization=True)
    _load_as_float32(target / "text_encoder" / "config.json")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {"bytes": size, "largest_relative_change": change, "storage": str(dtype).removeprefix("torch.")}


def _load_as_float32(config: Path) -> None:
    """Let transformers load the text encoder as diffusers loads the rest: float32 unless told otherwise."""
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def _store_as(module: torch.nn.Module, dtype: torch.dtype) -> float:
    largest = 0.0
    for name, value in module.named_parameters():
        stored = value.detach().to(dtype).float()
        if not torch.isfinite(stored).all():
            raise ValueError(f"The weight {name} does not fit {dtype}.")
        scale = value.detach().abs().max().clamp(min=1e-12)
        largest = max(largest, float(((stored - value.detach()).abs().max() / scale).item()))
    module.to(dtype)
    return largest
