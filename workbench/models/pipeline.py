"""Build a `WanPipeline` from a folder that was checked, and refuse what the libraries would let pass.

Knows diffusers and transformers; everything lies on the CPU afterwards.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.models.folder import safetensors_shapes, weight_files
from workbench.models.memory import LARGE_ENCODER

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline
    from torch import nn

LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError)


def load_pipeline(
    folder: Path,
    *,
    name: str,
    dtype: torch.dtype,
    passing_text: bool = False,
    transformer: nn.Module | None = None,
) -> WanPipeline:
    """Load all components of a folder, the VAE in float32, the others in `dtype`.

    Norms, time embedding and tables of the transformer stay in float32 in any dtype.

    Args:
        folder: was checked by `folder.check_folder`.
        name: how the user called the model.
        passing_text: leave the text encoder out; see `text.text_encoder`.
        transformer: takes the place of the one in the folder.

    Raises:
        InputError: one sentence, with the tensor that does not fit.
    """
    import torch
    from diffusers import WanPipeline

    given: dict[str, Any] = {} if transformer is None else {"transformer": transformer}
    if passing_text:
        given["text_encoder"] = None
    with quiet():
        try:
            pipeline = WanPipeline.from_pretrained(
                str(folder),
                dtype={"default": dtype, "vae": torch.float32},
                local_files_only=True,
                use_safetensors=True,
                **given,
            )
        except LOAD_ERRORS as error:
            sentence = _misfit(folder, name=name) or f"{name} cannot be loaded ({short(error)})."
            raise InputError(sentence) from error
    for component, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module) and component not in given:
            _refuse_holes(module, _stored_shapes(folder / component, name=name), name=name)
    return pipeline


def load_text_encoder(folder: Path, *, name: str, dtype: torch.dtype) -> nn.Module:
    """Load the text encoder of a folder alone; one of more than a billion parameters in bfloat16.

    Raises:
        InputError: it is missing, cut or does not fit its configuration.
    """
    import torch
    from transformers import UMT5EncoderModel

    component = folder / "text_encoder"
    stored = _stored_shapes(component, name=name)
    count = sum(torch.Size(shape).numel() for shape in stored.values())
    chosen = torch.bfloat16 if count > LARGE_ENCODER else dtype
    with quiet():
        try:
            encoder = UMT5EncoderModel.from_pretrained(str(component), dtype=chosen, local_files_only=True)
        except LOAD_ERRORS as error:
            raise InputError(f"The text encoder of {name} cannot be loaded ({short(error)}).") from error
    _refuse_holes(encoder, stored, name=name)
    module: nn.Module = encoder.eval()
    return module


def _stored_shapes(component: Path, *, name: str) -> dict[str, tuple[int, ...]]:
    stored: dict[str, tuple[int, ...]] = {}
    for file in weight_files(component, name=name):
        stored.update(safetensors_shapes(file, what=f"{name}: {file.name}"))
    return stored


def _refuse_holes(module: nn.Module, stored: dict[str, tuple[int, ...]], *, name: str) -> None:
    """Refuse a component with tensors that its files lack: the libraries leave them empty or draw them at
    random.
    """
    state = module.state_dict()
    filled = {tensor.data_ptr() for key, tensor in state.items() if key in stored and not tensor.is_meta}
    for key, tensor in state.items():
        if key not in stored and (tensor.is_meta or tensor.data_ptr() not in filled):
            raise InputError(
                f"The configuration of {name} asks for the tensor '{key}', which its weights lack; "
                "fetch the model again."
            )


def _misfit(folder: Path, *, name: str) -> str | None:
    """Say which tensor of the transformer's files does not fit its configuration, None where all fit."""
    component = folder / "transformer"
    stored = _stored_shapes(component, name=name)
    try:
        model = empty_transformer(component)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        return f"The transformer configuration of {name} cannot be built ({short(error)})."
    for key, tensor in model.state_dict().items():
        if key in stored and stored[key] != tuple(tensor.shape):
            sides = f"{list(stored[key])}; its configuration says {list(tensor.shape)}"
            return f"The tensor '{key}' of {name} has shape {sides}."
    return None


def empty_transformer(component: Path) -> nn.Module:
    """Build the transformer of a configuration with parameters that take no memory."""
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel

    with quiet(), init_empty_weights(include_buffers=False):
        model: nn.Module = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(component))
    return model


def short(error: BaseException) -> str:
    """Return the kind and the first line of an error of the libraries."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and warnings of diffusers and transformers while a folder is loaded."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    levels = [(module, module.get_verbosity()) for module in (diffusers_logging, transformers_logging)]
    bars = transformers_logging.is_progress_bar_enabled()
    for module, _ in levels:
        module.set_verbosity(logging.ERROR)
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, level in levels:
            module.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
            diffusers_logging.enable_progress_bar()
