"""Check a diffusers folder before anything is loaded from it, and read its facts and fingerprint.

Every fault is found from file names, sizes and headers, in well under a second even for a large model.
Knows files, headers and JSON; imports no diffusers.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from workbench.errors import InputError
from workbench.jobs.tensors import MAX_HEADER_BYTES, read_header
from workbench.models import registry
from workbench.models.facts import Count, ModelFacts
from workbench.models.footprint import Footprint, decode_bytes
from workbench.types import ClipSize, StrictModel
from workbench.workspace import read_json

PIPELINE = "WanPipeline"
RELATIVES = (
    "WanImageToVideoPipeline",
    "WanVACEPipeline",
    "WanVideoToVideoPipeline",
    "WanAnimatePipeline",
)
"""Pipelines that are not run here, whose transformers have the self-attention of Wan all the same."""

TRANSFORMER = "WanTransformer3DModel"
LIBRARIES = (None, "diffusers", "transformers")
DEFAULTS_FILE = "workbench.json"
WEIGHT_NAMES = ("diffusion_pytorch_model", "model")
SAMPLE_BYTES = 65536
NUM_SAMPLES = 16
WHOLE_BYTES = 64 * 1024 * 1024


class ModelDefaults(StrictModel):
    """Sampling defaults that a folder may state for itself in `workbench.json`."""

    text_tokens: Count = 512
    default_size: tuple[Count, Count, Count] = (81, 480, 832)
    default_steps: Count = 50
    default_guidance: Annotated[float, Field(ge=0)] = 5.0
    fps: Count = 16


def check_folder(folder: Path, *, name: str) -> None:
    """Refuse a folder from which a Wan pipeline cannot be loaded.

    Args:
        folder: a diffusers folder.
        name: how the user called the model.

    Raises:
        InputError: not a Wan pipeline, code from the folder would be needed, or weights are missing or cut.
    """
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        if (folder / "config.json").is_file() and (folder / "config.json").stat().st_size:
            raise InputError(
                f"{name} holds one component and not a pipeline; give the folder with model_index.json."
            )
        raise InputError(f"{name} is not a diffusers folder (model_index.json is missing); check the path.")
    index = read_json(index_file, what=f"model_index.json of {name}")
    class_name = index.get("_class_name")
    if class_name in RELATIVES:
        raise InputError(
            f"model_index.json of {name} says {class_name!r}; supported: {PIPELINE}; load it with diffusers "
            "and give its transformer to surgery.linearize, which takes it."
        )
    if class_name != PIPELINE:
        raise InputError(f"model_index.json of {name} says {class_name!r}; supported: {PIPELINE}.")
    for component, entry in index.items():
        if component.startswith("_") or not isinstance(entry, list):
            continue
        if not entry or entry[0] not in LIBRARIES:
            raise InputError(
                f"{name} wants code of its own for '{component}' ({entry[:1]}), which is never run; "
                "supported: components of diffusers and transformers."
            )
        if entry[0] is not None:
            check_component(folder / component, name=name)


def check_component(folder: Path, *, name: str) -> None:
    """Refuse a component whose configuration or weights are missing or incomplete.

    Raises:
        InputError: names the component and the first missing or cut file.
    """
    what = f"{name}: '{folder.name}'"
    if not folder.is_dir():
        raise InputError(f"{what} is missing from the folder; fetch the model again.")
    unfinished = next(iter(sorted(folder.rglob("*.incomplete"))), None)
    if unfinished is not None:
        raise InputError(f"{what} holds an unfinished download ({unfinished.name}); fetch the model again.")
    if folder.name == "scheduler":
        read_json(folder / "scheduler_config.json", what=f"{what}: scheduler_config.json")
        return
    if folder.name == "tokenizer":
        if not (folder / "tokenizer.json").is_file() and not any(
            file.is_file() for file in folder.glob("*.model")
        ):
            raise InputError(f"{what} holds no tokenizer files; fetch the model again.")
        return
    config = read_json(folder / "config.json", what=f"{what}: config.json")
    if folder.name.startswith("transformer") and config.get("_class_name") != TRANSFORMER:
        raise InputError(f"{what} is a {config.get('_class_name')!r}; supported: {TRANSFORMER}.")
    for file in weight_files(folder, name=name):
        safetensors_shapes(file, what=f"{what}: {file.name}")


def weight_files(folder: Path, *, name: str) -> tuple[Path, ...]:
    """Return the safetensors files of a component, all of which exist.

    Raises:
        InputError: there are none, only pickles, or a shard named by the index is missing.
    """
    what = f"{name}: '{folder.name}'"
    for stem in WEIGHT_NAMES:
        single = folder / f"{stem}.safetensors"
        if single.is_file():
            return (single,)
        index_file = folder / f"{stem}.safetensors.index.json"
        if index_file.is_file():
            index = read_json(index_file, what=f"{what}: {index_file.name}")
            shards = _shard_names(index, what=f"{what}: {index_file.name}")
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise InputError(
                    f"{what} lacks {len(missing)} of {len(shards)} weight files, first {missing[0]}; "
                    "finish the download."
                )
            return tuple(folder / shard for shard in shards)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.ckpt")):
        raise InputError(f"{what} holds pickle files, which are not accepted; convert to .safetensors.")
    raise InputError(f"{what} holds no weights (.safetensors); fetch the model again.")


def _shard_names(index: dict[str, Any], *, what: str) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{what} has no weight_map; fetch the model again.")
    shards = sorted({str(shard) for shard in weight_map.values()})
    if any(Path(shard).name != shard for shard in shards):
        raise InputError(f"{what} names files outside its folder, which are not read.")
    return shards


def safetensors_shapes(file: Path, *, what: str) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of a safetensors file, checking that the file is whole.

    Raises:
        InputError: not a safetensors file, or cut.
    """
    return {name: facts.shape for name, facts in read_header(file, what=what).tensors.items()}


def read_facts(folder: Path, *, name: str) -> ModelFacts:
    """Read the facts of a diffusers folder from its configurations, with the fingerprint of its weights.

    Defaults come from the folder's own `workbench.json`, else from the registry entry of the same
    architecture, else they are those of Wan2.1.

    Raises:
        InputError: a configuration is missing or wrong.
    """
    transformer = read_json(folder / "transformer" / "config.json", what=f"{name}: transformer/config.json")
    codec = read_json(folder / "vae" / "config.json", what=f"{name}: vae/config.json")
    second = folder / "transformer_2" / "config.json"
    data = {
        "name": name,
        "num_blocks": transformer.get("num_layers", 40),
        "num_heads": transformer.get("num_attention_heads", 40),
        "head_dim": transformer.get("attention_head_dim", 128),
        "ffn_dim": transformer.get("ffn_dim", 13824),
        "patch_size": transformer.get("patch_size", [1, 2, 2]),
        "rope_limit": transformer.get("rope_max_seq_len", 1024),
        "vae_scale": [codec.get("scale_factor_temporal", 4), codec.get("scale_factor_spatial", 8)],
        "num_transformers": 2 if second.is_file() else 1,
    }
    facts = ModelFacts.parse(data, what=f"The configuration of {name}")
    defaults_file = folder / DEFAULTS_FILE
    known = registry.recognise(facts)
    if defaults_file.is_file():
        what = f"{name}: {DEFAULTS_FILE}"
        stated = ModelDefaults.parse(read_json(defaults_file, what=what), what=what)
        facts = facts.model_copy(
            update={**stated.model_dump(), "default_size": ClipSize(*stated.default_size)}
        )
    elif known is not None:
        kept = ("text_tokens", "default_size", "default_steps", "default_guidance", "fps")
        facts = facts.model_copy(update={field: getattr(known.facts, field) for field in kept})
    return facts.model_copy(update={"fingerprint": fingerprint(folder / "transformer", name=name)})


def read_footprint(folder: Path, *, name: str) -> Footprint:
    """Read the sizes of a diffusers folder from headers and configurations.

    Raises:
        InputError: a file is missing or cut.
    """
    what = f"{name}: vae/config.json"
    return Footprint(
        transformer=count_parameters(folder / "transformer", name=name),
        text_encoder=count_parameters(folder / "text_encoder", name=name),
        vae=count_parameters(folder / "vae", name=name),
        decode_bytes=decode_bytes(read_json(folder / "vae" / "config.json", what=what), what=what),
    )


def count_parameters(component: Path, *, name: str) -> int:
    """Return the parameters of a component, from the headers of its files."""
    return sum(
        math.prod(shape)
        for file in weight_files(component, name=name)
        for shape in safetensors_shapes(file, what=f"{name}: {file.name}").values()
    )


def fingerprint(component: Path, *, name: str) -> str:
    """Return 16 hex digits that identify a component's architecture and weights.

    The digest covers the configuration and every weight file: all of a small one, the header and samples
    spread over the rest of a large one.

    Raises:
        InputError: the weights are missing or cut.
    """
    return digest_of(component, weight_files(component, name=name), name=name)


def companions(folder: Path, *, name: str) -> str:
    """Return 16 hex digits that identify text encoder and codec: clips depend on them as on the transformer.

    Raises:
        InputError: their weights are missing or cut.
    """
    parts = [fingerprint(folder / part, name=name) for part in ("text_encoder", "vae")]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def digest_of(component: Path, files: Sequence[Path], *, name: str) -> str:
    """Return the fingerprint of a component's configuration with these weight files.

    Raises:
        InputError: the configuration is missing or cut.
    """
    config = read_json(component / "config.json", what=f"{name}: {component.name}/config.json")
    facts = {key: value for key, value in sorted(config.items()) if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for file in files:
        digest.update(_sampled(file))
    return digest.hexdigest()[:16]


def _sampled(file: Path) -> bytes:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        header_length = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
        digest.update(stream.read(min(header_length, MAX_HEADER_BYTES)))
        start = stream.tell()
        step = SAMPLE_BYTES if size <= WHOLE_BYTES else (size - start) // NUM_SAMPLES
        for offset in range(start, size, step):
            stream.seek(offset)
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.digest()
