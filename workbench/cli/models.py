"""Commands about models: which there are, what one is and needs, and how one comes onto this machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.options import (
    FramesOption,
    HeightOption,
    JsonOption,
    WidthOption,
    WorkspaceOption,
    model_name,
    show,
    stated,
)
from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.surgery import Student

NameArgument = Annotated[
    str, typer.Argument(help="Registry name, student, hub id, diffusers folder or .safetensors file.")
]
GIGA = 1e9


def models(*, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the models and students known by name, and which of them are on this machine."""
    from workbench.models import model_footprint, registry
    from workbench.surgery import read_student, shipped_students

    del workspace
    rows: list[dict[str, Any]] = []
    for entry in registry.ENTRIES:
        facts = entry.facts
        rows.append(
            {
                "name": entry.name,
                "hub_id": entry.hub_id,
                "here": _here(entry.name),
                "blocks": facts.num_blocks,
                "heads": facts.num_heads,
                "head_dim": facts.head_dim,
                "transformers": facts.num_transformers,
                "parameters": model_footprint(entry.name).transformer if _sized(entry) else None,
                "default_size": list(facts.default_size),
            }
        )
    lines = [
        f"{row['name']:<18} {row['transformers']}× {_billions(row['parameters']):>7}  "
        f"{row['blocks']} blocks × {row['heads']} heads × {row['head_dim']}  "
        f"{'here' if row['here'] else 'not here'}"
        for row in rows
    ]
    students = [_student(read_student(name)) for name in shipped_students()]
    lines += [f"{row['name']:<18} {row['plan']} of {row['teacher']}: {row['summary']}" for row in students]
    show({"models": rows, "students": students}, as_json=as_json, prose="\n".join(lines))


def facts(
    model: NameArgument,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Estimate for a GPU of so much memory.")
    ] = None,
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a model is and what memory it is estimated to need, without loading it."""
    from workbench import surgery
    from workbench.models import model_footprint, registry

    del workspace
    name = model_name(model)
    known, plan = surgery.open_facts(name)
    usual = known.default_size
    stated_size = stated(frames=frames, height=height, width=width)
    size = usual._replace(**stated_size)
    if memory_gb is not None and not (memory_gb > 0 and math.isfinite(memory_gb)):
        raise InputError(f"--memory-gb is the memory of a GPU in 1e9 bytes, above 0, got {memory_gb:g}.")
    grid = known.token_grid(size)
    entry = registry.recognise(known)
    footprint = model_footprint(known.source or name)
    document = {
        **known.model_dump(mode="json"),
        "architecture": None if entry is None else entry.name,
        "plan": None if plan is None else plan.short_name,
        "parameters": footprint._asdict(),
        "size": list(size),
        "grid": list(grid),
        "tokens": grid.num_tokens,
        "estimates": _estimates(footprint, known, size, memory_gb=memory_gb),
    }
    show(document, as_json=as_json, prose=_facts_prose(document))


def download(
    model: NameArgument,
    *,
    allow_network: Annotated[
        bool, typer.Option("--allow-network", help="Say yes to fetching from the hub.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a model from the hub onto this machine; nothing is fetched without --allow-network."""
    from workbench.models import DownloadConfig, fetch

    del workspace
    settings = {"model": model, "allow_network": allow_network}
    name, folder, fingerprint = fetch(DownloadConfig.parse(settings, what="download settings"))
    document: dict[str, Any] = {
        "model": name,
        "folder": str(folder),
        "fingerprint": fingerprint,
    }
    show(document, as_json=as_json, prose=f"{name} is complete on this machine: {folder}")


def _student(student: Student) -> dict[str, str]:
    manifest = student.manifest
    return {
        "name": student.folder.name,
        "teacher": manifest.teacher.name,
        "plan": manifest.plan,
        "summary": str(manifest.provenance.get("summary", "not measured")),
    }


def _here(name: str) -> bool:
    from workbench.models import resolve_folder

    try:
        resolve_folder(name)
    except InputError:
        return False
    return True


def _sized(entry: Any) -> bool:
    return entry.footprint is not None or _here(entry.name)


def _billions(parameters: int | None) -> str:
    if parameters is None:
        return "–"
    return f"{parameters / GIGA:.1f} B" if parameters >= GIGA else f"{parameters / 1e6:.1f} M"


def _estimates(footprint: Any, facts: Any, size: Any, *, memory_gb: float | None) -> dict[str, Any]:
    """Return estimated peaks in GB of every way to place the model on a GPU in bfloat16."""
    from workbench.models.memory import LARGE_ENCODER, Free, Offload, needs
    from workbench.models.placement import RESERVE

    found: dict[str, Any] = {"dtype": "bfloat16", "reserve_gb": RESERVE / GIGA, "ways": []}
    passing = footprint.text_encoder > LARGE_ENCODER
    ways: tuple[Offload, ...] = ("none", "model", "group")
    for offload in ways:
        for tiling in (False, True):
            need: Free = needs(
                footprint, facts, size,
                bytes_each=2, offload=offload, tiling=tiling, passing_text=passing,
            )  # fmt: skip
            total = (need.device + RESERVE) / GIGA
            way = {
                "offload": offload,
                "vae_tiling": tiling,
                "gpu_gb": round(total, 1),
                "host_gb": round(need.host / GIGA, 1),
            }
            found["ways"].append(way if memory_gb is None else {**way, "fits": total <= memory_gb})
    return found


def _facts_prose(document: dict[str, Any]) -> str:
    clip = "×".join(map(str, document["size"]))
    two = f", {document['num_transformers']} transformers" if document["num_transformers"] > 1 else ""
    lines = [
        f"{document['name']}: {document['num_blocks']} blocks × {document['num_heads']} heads × "
        f"{document['head_dim']}, {_billions(document['parameters']['transformer'])} parameters{two}"
        + (f" (architecture of {document['architecture']})" if document["architecture"] else ""),
        f"{clip}: {document['tokens']:,} tokens {tuple(document['grid'])}.",
        "Estimated peak in bfloat16, GB of GPU memory / of the machine:",
    ]
    for way in document["estimates"]["ways"]:
        tiles = " + VAE tiles" if way["vae_tiling"] else ""
        fits = "" if "fits" not in way else ("  fits" if way["fits"] else "  too much")
        lines.append(f"  offload {way['offload']}{tiles}: {way['gpu_gb']} / {way['host_gb']}{fits}")
    return "\n".join(lines)
