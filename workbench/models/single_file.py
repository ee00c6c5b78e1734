"""A transformer in one safetensors file, in the names of diffusers or of the authors' own release.

Everything else of the pipeline comes from the diffusers folder in which the file lies, or from the known
model of the same architecture. Nothing of the file is believed unchecked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, read_header
from workbench.models import registry
from workbench.models.hub import fetch_from_hub
from workbench.models.pipeline import empty_transformer
from workbench.models.registry import RegistryEntry

if TYPE_CHECKING:
    import torch
    from torch import nn

PREFIX = "model.diffusion_model."
AUTHORS_MARK = "head.modulation"


def base_folder(file: Path, *, allow_network: bool = False) -> Path:
    """Return the folder that gives everything but the transformer.

    Raises:
        InputError: no safetensors file, no Wan transformer, or its pipeline is not on this machine.
    """
    for folder in (file.parent, file.parent.parent):
        if (folder / "model_index.json").is_file():
            return folder
    entry = known_architecture(file)
    assert entry.hub_id is not None
    try:
        return fetch_from_hub(entry.hub_id, name=entry.name, allow_network=allow_network)
    except InputError as error:
        raise InputError(
            f"{file.name} is a transformer of the kind {entry.name}, whose other parts are needed: {error}"
        ) from None


def known_architecture(file: Path) -> RegistryEntry:
    """Return the registry entry whose transformer has the blocks and widths of a file.

    Raises:
        InputError: none has.
    """
    tensors = read_header(file, what=file.name).tensors
    names = [name.removeprefix(PREFIX) for name in tensors]
    blocks = {int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))}
    narrow = next(
        (tensors[key].shape for key in tensors if key.endswith(("ffn.0.weight", "ffn.net.0.proj.weight"))), ()
    )
    patch = next((tensors[key].shape for key in tensors if key.endswith("patch_embedding.weight")), ())
    if not blocks or len(narrow) != 2 or len(patch) != 5:
        raise InputError(f"{file.name} holds no Wan transformer; give the diffusers folder of the model.")
    for entry in registry.ENTRIES:
        facts = entry.facts
        if entry.hub_id is not None and (len(blocks), narrow[0], narrow[1], patch[1]) == (
            facts.num_blocks, facts.ffn_dim, facts.dim, entry.in_channels,
        ):  # fmt: skip
            return entry
    raise InputError(
        f"{file.name} has {len(blocks)} blocks of width {narrow[1]}, which is no model known by name; "
        "put the file into its diffusers folder."
    )


def load_transformer(file: Path, folder: Path, *, dtype: torch.dtype) -> nn.Module:
    """Load the transformer of a file into the architecture of a folder, on the CPU.

    Norms, time embedding and tables become float32, as when a folder is loaded.

    Raises:
        InputError: not a safetensors file, or a tensor that is missing, foreign or of another shape.
    """
    import torch
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    tensors: dict[str, Any] = load_tensors(file, what=file.name)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if AUTHORS_MARK in tensors:
        tensors = convert_wan_transformer_to_diffusers(tensors)
    model: Any = empty_transformer(folder / "transformer")
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _refuse_misfit(file, wanted, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    kept = set(model._keep_in_fp32_modules)
    for name, tensor in tensors.items():
        wide = not kept.isdisjoint(name.split("."))
        tensors[name] = tensor.to(torch.float32 if wide else dtype)
    model.load_state_dict(tensors, strict=True, assign=True)
    module: nn.Module = model.requires_grad_(True).eval()
    return module


def _refuse_misfit(file: Path, wanted: dict[str, tuple[int, ...]], came: dict[str, tuple[int, ...]]) -> None:
    missing = next((name for name in wanted if name not in came), None)
    foreign = next((name for name in came if name not in wanted), None)
    other = next((name for name in wanted if name in came and wanted[name] != came[name]), None)
    if missing is not None:
        raise InputError(f"{file.name} lacks the tensor '{missing}'; it is another model, or cut.")
    if foreign is not None:
        raise InputError(
            f"{file.name} has a tensor '{foreign[:80]}' that the transformer lacks; it is another model."
        )
    if other is not None:
        raise InputError(
            f"The tensor '{other}' of {file.name} has shape {list(came[other])}, expected "
            f"{list(wanted[other])}; it is another model."
        )
