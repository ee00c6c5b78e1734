"""Find and load models: a registry name, a diffusers folder or a hub id become a ready `WanPipeline`.

A hub id is always resolved to a local folder first; the folder is checked before diffusers sees it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import InputError
from workbench.models import registry
from workbench.models.adapter import Adapter
from workbench.models.facts import ModelFacts
from workbench.models.folder import check_folder, read_facts, safetensors_shapes, weight_files
from workbench.models.hub import fetch_from_hub

if TYPE_CHECKING:
    import torch
    from diffusers import WanPipeline
    from torch import nn

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass
class LoadedModel:
    """A model in memory.

    Attributes:
        name: how the user called it; a student keeps the name of its folder.
        folder: the local diffusers folder.
        device: where the transformer computes.
        provenance: what was done to the model since (surgery), for the manifests of what it makes.
    """

    name: str
    folder: Path
    facts: ModelFacts
    pipeline: WanPipeline
    adapter: Adapter
    device: torch.device
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Identifies the transformer's weights."""
        return self.facts.fingerprint

    @property
    def transformer(self) -> nn.Module:
        """The (first) transformer of the pipeline."""
        transformer: nn.Module = self.pipeline.transformer
        return transformer


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
        raise InputError(f"{path.name} is a file; give the diffusers folder of the model.")
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
            folder = resolve_folder(name)
            return _read_facts(name, folder)
        return entry.facts
    folder = resolve_folder(name, allow_network=allow_network)
    check_folder(folder, name=_display_name(name, folder))
    return _read_facts(name, folder)


def _read_facts(name: str, folder: Path) -> ModelFacts:
    shown = _display_name(name, folder)
    source = str(folder.absolute()) if _as_path(name) == folder else shown
    return read_facts(folder, name=shown).model_copy(update={"source": source})


def load_model(
    name: str, *, device: Device = "auto", dtype: Dtype = "auto", allow_network: bool = False
) -> LoadedModel:
    """Load a Wan model.

    Args:
        name: registry name, diffusers folder or hub id.
        device: "auto" takes CUDA where there is one; recorded in the result.
        dtype: "auto" is float32 on a CPU and bfloat16 on a GPU (the VAE stays float32 on both).
        allow_network: whether weights may be fetched from the hub.

    Raises:
        InputError: one sentence: not found, not reachable, not a Wan pipeline, incomplete, or too new.
    """
    check_versions()
    folder = resolve_folder(name, allow_network=allow_network)
    shown = _display_name(name, folder)
    check_folder(folder, name=shown)
    facts = _read_facts(name, folder)
    place = choose_device(device)
    pipeline = _load_pipeline(folder, name=shown, dtype=_choose_dtype(dtype, place))
    pipeline.to(place)
    pipeline.set_progress_bar_config(disable=True)
    return LoadedModel(shown, folder, facts, pipeline, adapter_of(pipeline.transformer), place)


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


def _display_name(name: str, folder: Path) -> str:
    entry = registry.find(name)
    if entry is not None:
        return entry.name
    return folder.name if _as_path(name) == folder else name


def _load_pipeline(folder: Path, *, name: str, dtype: torch.dtype) -> WanPipeline:
    import torch
    from diffusers import WanPipeline

    with _quiet():
        try:
            pipeline = WanPipeline.from_pretrained(
                str(folder),
                dtype={"default": dtype, "vae": torch.float32},
                local_files_only=True,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            sentence = _misfit(folder, name=name) or f"{name} cannot be loaded ({_short(error)})."
            raise InputError(sentence) from error
    for component, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            _refuse_holes(module, _stored_shapes(folder / component, name=name), name=name)
    return pipeline


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
    import torch
    from diffusers import WanTransformer3DModel

    component = folder / "transformer"
    stored = _stored_shapes(component, name=name)
    try:
        with torch.device("meta"):
            model: Any = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(component))
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        return f"The transformer configuration of {name} cannot be built ({_short(error)})."
    for key, tensor in model.state_dict().items():
        if key in stored and stored[key] != tuple(tensor.shape):
            sides = f"{list(stored[key])}; its configuration says {list(tensor.shape)}"
            return f"The tensor '{key}' of {name} has shape {sides}."
    return None


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
