"""Prompts become the text encoder's states; a large encoder is loaded for that alone, and freed after.

Knows prompts and the text encoder; knows nothing of sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.models.pipeline import load_text_encoder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workbench.models.loader import LoadedModel

REMEMBERED = 256
SPARE_BYTES = 1e9


class PromptStates(NamedTuple):
    """What the transformer sees of a prompt, [1, L, D] each; `uncond` is None without guidance."""

    cond: Tensor
    uncond: Tensor | None


def encode(model: LoadedModel, prompt: str, *, negative: str = "", guided: bool = True) -> PromptStates:
    """Return the states of a prompt as the pipeline itself would make them, on the model's device.

    States are remembered, so that a prompt is encoded once for as long as the model lives.

    Args:
        model: its text encoder may be resident or passing.
        prompt: as `check_prompt` gave it.
        negative: of the unconditional branch.
        guided: whether there is one.
    """
    remember(model, [prompt, negative] if guided else [prompt])
    cond = model.texts[prompt].to(model.device)
    return PromptStates(cond, model.texts[negative].to(model.device) if guided else None)


def remember(model: LoadedModel, prompts: Sequence[str]) -> None:
    """Encode all prompts that are not remembered, with one loading of the text encoder."""
    import torch

    missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in model.texts]
    if not missing:
        return
    pipeline: Any = model.pipeline
    with torch.no_grad(), text_encoder(model):
        for prompt in missing:
            states, _ = pipeline.encode_prompt(
                prompt=prompt,
                do_classifier_free_guidance=False,
                max_sequence_length=model.facts.text_tokens,
                device=model.device,
            )
            model.texts[prompt] = states.cpu()
    asked = set(prompts)
    unasked = [prompt for prompt in model.texts if prompt not in asked]
    for old in unasked[: max(0, len(model.texts) - REMEMBERED)]:
        del model.texts[old]


@contextmanager
def text_encoder(model: LoadedModel) -> Iterator[None]:
    """Put the text encoder into the pipeline where it is missing, and free it at the end."""
    import torch

    pipeline: Any = model.pipeline
    if pipeline.text_encoder is not None:
        yield
        return
    encoder = load_text_encoder(model.folder, name=model.name, dtype=model.transformer_dtype)
    encoder.to(_place(model, encoder))
    pipeline.text_encoder = encoder
    try:
        yield
    finally:
        pipeline.text_encoder = None
        del encoder
        if model.device.type == "cuda":
            torch.cuda.empty_cache()


def _place(model: LoadedModel, encoder: Any) -> torch.device:
    """Return the model's device where the encoder fits beside what is there, else the CPU."""
    import torch

    if model.device.type != "cuda":
        return model.device
    needed = sum(tensor.nbytes for tensor in encoder.parameters()) + SPARE_BYTES
    fits = torch.cuda.mem_get_info(model.device)[0] > needed and (
        model.placement.offload == "none" or needed < model.placement.device_peak
    )
    return model.device if fits else torch.device("cpu")
