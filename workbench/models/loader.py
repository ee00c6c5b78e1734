"""Find and load models: a registry name, a diffusers folder or a hub id become a ready `WanPipeline`.

A hub id is always resolved to a local folder first; the folder is checked before diffusers sees it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from workbench.errors import InputError
from workbench.models import registry, single_file
from workbench.models.adapter import Adapter
from workbench.models.facts import ModelFacts
from workbench.models.folder import check_folder, companions, digest_of, read_facts, read_footprint
from workbench.models.footprint import Footprint
from workbench.models.hub import fetch_from_hub
from workbench.models.pipeline import load_pipeline
from workbench.models.placement import Placement, PlacementConfig, apply, free_memory, limit_memory, place

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline
    from torch import Tensor, nn

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass
class LoadedModel:
    """A model in memory.

    Attributes:
        name: how the user called it; a student keeps the name of its folder.
        folder: the local diffusers folder.
        device: where the transformer computes.
        footprint: parameters of its parts.
        placement: where its parts lie, and the estimate behind that.
        provenance: what was done to the model since (surgery), for the manifests of what it makes.
        texts: states of prompts that were encoded; see `text.encode`.
    """

    name: str
    folder: Path
    facts: ModelFacts
    pipeline: WanPipeline
    adapter: Adapter
    device: torch.device
    footprint: Footprint
    placement: Placement
    provenance: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Identifies the transformer's weights."""
        return self.facts.fingerprint

    @cached_property
    def companions(self) -> str:
        """Identifies text encoder and codec."""
        return companions(self.folder, name=self.name)

    @property
    def transformer(self) -> nn.Module:
        """The (first) transformer of the pipeline."""
        transformer: nn.Module = self.pipeline.transformer
        return transformer

    @property
    def transformer_dtype(self) -> torch.dtype:
        """What most of the transformer computes in."""
        dtype: torch.dtype = self.pipeline.transformer.dtype
        return dtype


class Found(NamedTuple):
    """Where a model is: its diffusers folder, and the file that takes its transformer's place, if any."""

    folder: Path
    file: Path | None = None


def locate(name: str, *, allow_network: bool = False) -> Found:
    """Return where the files of a model are, its folder or a single file and the folder of the rest.

    Raises:
        InputError: nothing of that name can be found or fetched.
    """
    path = _as_path(name) if registry.find(name) is None else None
    if path is not None and path.is_file() and path.suffix == ".safetensors":
        return Found(single_file.base_folder(path, allow_network=allow_network), path)
    return Found(resolve_folder(name, allow_network=allow_network))


def check_here(name: str) -> None:
    """Refuse a model whose files are not complete on this machine; loads nothing, uses no network.

    Raises:
        InputError: as `load_model` would, from names, configurations and headers alone.
    """
    found = locate(name)
    check_folder(found.folder, name=_display_name(name, found))


def resolve_folder(name: str, *, allow_network: bool = False) -> Path:
    """Return the local folder of a model.

    Args:
        name: registry name, folder or hub id.
        allow_network: whether a hub id that is not on this machine may be fetched.

    Raises:
        InputError: nothing of that name can be found or fetched.
    """
    entry = registry.find(name)
    if entry is not None and entry.hub_id is None:
        from workbench.models.embedded import default_folder

        folder = default_folder()
        if not (folder / "model_index.json").is_file():
            raise InputError(
                "The weights of the embedded model are missing from this installation; "
                "install the workbench again or give a diffusers folder with --model."
            )
        return folder
    if entry is not None and entry.hub_id is not None:
        return fetch_from_hub(entry.hub_id, name=name, allow_network=allow_network)
    path = _as_path(name)
    if path is not None and path.is_dir():
        if (path / "student.json").is_file():
            raise InputError(f"{path.name} is a student folder; open it with surgery.open_model.")
        return path
    if path is not None and path.is_file():
        raise InputError(
            f"{path.name} is a file; give the diffusers folder of the model, or a .safetensors file."
        )
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and " " not in name:
        return fetch_from_hub(name, name=name, allow_network=allow_network)
    near = registry.nearest_name(name)
    hint = f"did you mean '{near}'?" if near else f"known: {', '.join(registry.names())}."
    raise InputError(f"There is no model {name[:80]!r}, neither a folder nor a known name; {hint}")


def _as_path(name: str) -> Path | None:
    if not name.strip() or "\0" in name or len(name) > 4096:
        raise InputError(
            "The model name is empty or no file name; give a registry name, a folder or a hub id."
        )
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, UnicodeError, ValueError):
        return None
    return path


def model_facts(name: str, *, allow_network: bool = False) -> ModelFacts:
    """Return the facts of a model from configurations alone; a registry name needs no files at all.

    The fingerprint is set where the weights are on this machine.

    Raises:
        InputError: the model cannot be found, or is not a Wan pipeline.
    """
    entry = registry.find(name)
    if entry is not None:
        with contextlib.suppress(InputError):
            return _read_facts(name, locate(name))
        return entry.facts
    found = locate(name, allow_network=allow_network)
    check_folder(found.folder, name=_display_name(name, found))
    return _read_facts(name, found)


def model_companions(name: str) -> str:
    """Return what identifies a model's text encoder and codec; empty where they are not on this machine."""
    with contextlib.suppress(InputError):
        return companions(locate(name).folder, name=name)
    return ""


def model_footprint(name: str) -> Footprint:
    """Return how large the parts of a model are, from headers; a registry name needs no files at all.

    Raises:
        InputError: the model cannot be found, or is not a Wan pipeline.
    """
    entry = registry.find(name)
    if entry is not None and entry.footprint is not None:
        return entry.footprint
    found = locate(name)
    shown = _display_name(name, found)
    check_folder(found.folder, name=shown)
    return read_footprint(found.folder, name=shown)


def plan_placement(
    name: str, *, device: Device = "auto", dtype: Dtype = "auto", config: PlacementConfig | None = None
) -> Placement:
    """Decide from the memory that is free where the parts of a model would lie; loads nothing.

    Raises:
        InputError: it cannot fit in any way, or cannot be found.
    """
    chosen = choose_device(device)
    return place(
        model_footprint(name),
        model_facts(name),
        config or PlacementConfig(),
        device=chosen.type,
        bytes_each=_choose_dtype(dtype, chosen).itemsize,
        free=free_memory(chosen),
    )


def _read_facts(name: str, found: Found) -> ModelFacts:
    shown = _display_name(name, found)
    folder, file = found
    if file is not None:
        facts = read_facts(folder, name=shown)
        digest = digest_of(folder / "transformer", [file], name=shown)
        return facts.model_copy(update={"source": str(file.absolute()), "fingerprint": digest})
    source = str(folder.absolute()) if _as_path(name) == folder else shown
    return read_facts(folder, name=shown).model_copy(update={"source": source})


def load_model(
    name: str,
    *,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_network: bool = False,
    placement: PlacementConfig | None = None,
) -> LoadedModel:
    """Load a Wan model.

    Args:
        name: registry name, diffusers folder, hub id, or a safetensors file of a transformer.
        device: "auto" takes CUDA where there is one; recorded in the result.
        dtype: "auto" is float32 on a CPU and bfloat16 on a GPU (the VAE stays float32 on both).
        allow_network: whether weights may be fetched from the hub.
        placement: offload, tiling, text encoder and a bound on memory; None decides by what is free.

    Raises:
        InputError: one sentence: not found, not reachable, not a Wan pipeline, incomplete, too new, or
            more than the memory can hold.
    """
    check_versions()
    found = locate(name, allow_network=allow_network)
    shown = _display_name(name, found)
    check_folder(found.folder, name=shown)
    facts, footprint = _read_facts(name, found), read_footprint(found.folder, name=shown)
    where, config = choose_device(device), placement or PlacementConfig()
    chosen_dtype = _choose_dtype(dtype, where)
    chosen = place(
        footprint, facts, config,
        device=where.type, bytes_each=chosen_dtype.itemsize, free=free_memory(where),
    )  # fmt: skip
    if config.memory_gb is not None:
        limit_memory(where, config.memory_gb)
    transformer = None
    if found.file is not None:
        transformer = single_file.load_transformer(found.file, found.folder, dtype=chosen_dtype)
    pipeline = load_pipeline(
        found.folder,
        name=shown,
        dtype=chosen_dtype,
        passing_text=chosen.passing_text,
        transformer=transformer,
    )
    apply(pipeline, chosen, where)
    pipeline.set_progress_bar_config(disable=True)
    adapter = adapter_of(pipeline.transformer)
    return LoadedModel(shown, found.folder, facts, pipeline, adapter, where, footprint, chosen)


def adapter_of(transformer: nn.Module) -> Adapter:
    """Return the adapter of a transformer's architecture.

    Raises:
        InputError: no adapter knows the class.
    """
    from workbench.models.ltx import LtxAdapter
    from workbench.models.wan import WanAdapter

    adapters: tuple[Adapter, ...] = (WanAdapter(), LtxAdapter())
    for adapter in adapters:
        if adapter.accepts(transformer):
            return adapter
    raise InputError(
        f"{type(transformer).__name__} is not a transformer that the workbench knows; give a Wan one."
    )


def choose_device(device: Device) -> torch.device:
    """Return the torch device of a choice.

    Raises:
        InputError: CUDA was asked for and is not there.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"Device must be auto, cpu or cuda, got {device!r}.")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("No CUDA device is available on this machine; choose --device cpu.")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    import torch

    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in choices:
        raise InputError(f"Dtype must be auto, {', '.join(choices)}, got {dtype!r}.")
    return choices[dtype]


def check_versions() -> None:
    """Refuse a diffusers or torch that is too old, naming both versions.

    Raises:
        InputError: an unsupported version is installed.
    """
    from importlib.metadata import version

    for package, least in (("diffusers", (0, 42)), ("torch", (2, 11))):
        found = version(package)
        numbers = tuple(int(part) for part in found.split("+")[0].split(".")[:2] if part.isdigit())
        if numbers < least:
            wanted = ".".join(map(str, least))
            raise InputError(
                f"{package} {found} is installed and {wanted} or newer is needed; run make setup."
            )


def _display_name(name: str, found: Found) -> str:
    entry = registry.find(name)
    if entry is not None:
        return entry.name
    if found.file is not None:
        return found.file.stem
    return found.folder.name if _as_path(name) == found.folder else name
