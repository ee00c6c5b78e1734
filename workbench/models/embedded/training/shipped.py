"""Go on from the shipped weights: their codec as it is, fresh optimizers for transformer and text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from workbench.models.embedded.architecture import build_codec
from workbench.models.embedded.training.codec_stage import FOLDER as CODEC_FOLDER
from workbench.models.embedded.training.state import Part, save_average

FILES = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


def use_shipped_codec(folder: Path, shipped: Path) -> None:
    """Put the shipped codec into a training folder, as if it had been trained there; one file of 16 bits.

    Args:
        folder: The training folder.
        shipped: A diffusers folder of the embedded model.

    Raises:
        ValueError: the folder holds another architecture.
    """
    if (folder / CODEC_FOLDER).is_dir():
        return
    codec = build_codec()
    values = _weights(shipped, "vae")
    _check_names(set(values), {name for name, _ in codec.named_parameters()}, shipped)
    save_average(folder / CODEC_FOLDER, values, facts={"from": "shipped"})


def start_from_shipped(part: Part, shipped: Path) -> None:
    """Give a fresh denoiser the shipped transformer, text encoder, and the latents' mean and deviation.

    Args:
        part: As `transformer_stage.open_denoiser` built it, not yet trained.
        shipped: A diffusers folder of the embedded model.

    Raises:
        ValueError: the folder holds another architecture.
    """
    values = {
        f"{module}.{name}": value
        for module in ("transformer", "text_encoder")
        for name, value in _weights(shipped, module).items()
    }
    _check_names(set(values), set(part.named), shipped)
    part.replace(values)
    config = _vae_config(shipped)
    part.progress.facts |= {"mean": config["latents_mean"], "std": config["latents_std"], "from": "shipped"}


def _weights(shipped: Path, module: str) -> dict[str, torch.Tensor]:
    values = {name: value.float() for name, value in load_file(shipped / FILES[module]).items()}
    values.pop("encoder.embed_tokens.weight", None)
    return values


def _vae_config(shipped: Path) -> dict[str, Any]:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return dict(AutoencoderKLWan.load_config(shipped / "vae"))


def _check_names(found: set[str], expected: set[str], shipped: Path) -> None:
    if found != expected:
        odd = sorted(found ^ expected)[0]
        raise ValueError(f"{shipped} holds another architecture ({odd} is in one of the two only).")
