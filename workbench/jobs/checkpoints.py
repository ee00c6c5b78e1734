"""Checkpoints of interrupted work: complete or absent, verified by sha256 before anything is taken from them.

A checkpoint is a folder `checkpoints/000007/` of `tensors.safetensors`, `state.json` and `manifest.json`.
It is written under a temporary name, synced, given its manifest, renamed, and only then entered in the job
table. The newest two are kept. Knows nothing of what the state means.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from workbench.errors import InputError
from workbench.jobs.faults import fault_point
from workbench.jobs.manifests import (
    FILES,
    FORMAT,
    STATE,
    TENSORS,
    check_manifest,
    checkpoint_numbers,
    sweep_checkpoints,
)
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.types import CheckpointState
from workbench.workspace import DiskFull, disk_error, read_json, sync, write_json

KEPT = 2
SPARE_BYTES = 1_000_000


@dataclass(frozen=True)
class Owner:
    """What a checkpoint belongs to; another owner's checkpoint is refused by name."""

    kind: str
    config_sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: where the work stood, its state, and the generators and threads of the process.

    Attributes:
        stage, step: the stage and the steps done in it.
        done: steps done over all stages.
        process: random generators and thread count.
    """

    stage: str
    step: int
    done: int
    state: CheckpointState
    process: Mapping[str, Any]


class Found(NamedTuple):
    """The newest whole checkpoint, if any, and one sentence for each newer one that was damaged."""

    checkpoint: Checkpoint | None
    skipped: tuple[str, ...]


class ForeignCheckpoint(InputError):
    """A checkpoint of other work."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, owner: Owner) -> Path:
    """Write a checkpoint beside the existing ones, then drop all but the newest two.

    Args:
        folder: the job's folder of checkpoints.
        checkpoint: what to keep.
        owner: what it belongs to.

    Returns:
        the finished folder of the checkpoint.

    Raises:
        Diverged: a tensor is not finite; the earlier checkpoints stand.
        DiskFull, InputError: no room, or the place cannot be written; the earlier checkpoints stand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep_checkpoints(folder)
    needed = sum(tensor.nbytes for tensor in checkpoint.state.tensors.values()) + SPARE_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise disk_error(folder / "checkpoint", OSError(28, "No space left on device"), needed=needed)
    final = folder / f"{max(checkpoint_numbers(folder), default=0) + 1:06d}"
    temporary = folder / f".tmp-{final.name}"
    try:
        temporary.mkdir()
        _write_files(temporary, checkpoint, owner)
        temporary.rename(final)
        sync(folder)
    except DiskFull as error:
        raise disk_error(final, OSError(28, "No space left on device"), needed=needed) from error
    except OSError as error:
        raise disk_error(final, error, needed=needed) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fault_point("save-renamed")
    for number in checkpoint_numbers(folder)[:-KEPT]:
        _drop(folder / f"{number:06d}")
    return final


def load_newest(folder: Path, *, owner: Owner) -> Found:
    """Return the newest checkpoint that is whole; damaged ones are passed over, with a sentence each.

    Raises:
        ForeignCheckpoint: the newest whole checkpoint belongs to other work.
    """
    skipped: list[str] = []
    for number in reversed(checkpoint_numbers(folder)):
        try:
            return Found(load_checkpoint(folder / f"{number:06d}", owner=owner), tuple(skipped))
        except ForeignCheckpoint:
            raise
        except InputError as error:
            skipped.append(f"Checkpoint {number} was passed over: {error}")
    return Found(None, tuple(skipped))


def load_checkpoint(path: Path, *, owner: Owner) -> Checkpoint:
    """Read one checkpoint after checking its manifest, sizes and sha256.

    Raises:
        InputError: it is damaged or not whole; the sentence names the file.
        ForeignCheckpoint: it belongs to other work.
    """
    manifest = check_manifest(path)
    for name, facts in manifest["files"].items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise InputError(f"{name} of checkpoint {path.name} is missing.")
        if file.stat().st_size != facts["bytes"] or sha256_of(file) != facts["sha256"]:
            raise InputError(
                f"{name} of checkpoint {path.name} is damaged: its sha256 is not the manifest's."
            )
    if (manifest["kind"], manifest["config_sha256"]) != (owner.kind, owner.config_sha256):
        raise ForeignCheckpoint(
            f"Checkpoint {path.name} belongs to other work ({manifest['kind']!r}, configuration "
            f"{manifest['config_sha256'][:8]}), this is {owner.kind!r}, {owner.config_sha256[:8]}; "
            "it was not used."
        )
    state = read_json(path / STATE, what=f"state.json of checkpoint {path.name}")
    tensors = load_tensors(path / TENSORS, what=f"{TENSORS} of checkpoint {path.name}")
    return Checkpoint(
        stage=manifest["stage"],
        step=manifest["step"],
        done=manifest["done"],
        state=CheckpointState(tensors, state["meta"]),
        process=state["process"],
    )


def sha256_of(file: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_files(folder: Path, checkpoint: Checkpoint, owner: Owner) -> None:
    save_tensors(folder / TENSORS, checkpoint.state.tensors)
    fault_point("save-tensors")
    write_json(folder / STATE, {"meta": dict(checkpoint.state.meta), "process": dict(checkpoint.process)})
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in FILES
    }
    manifest = {
        "format": FORMAT,
        "kind": owner.kind,
        "config_sha256": owner.config_sha256,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "done": checkpoint.done,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "files": files,
    }
    write_json(folder / "manifest.json", manifest)
    fault_point("save-manifest")


def _drop(path: Path) -> None:
    """Remove a checkpoint so that a kill leaves either all of it or litter that is swept."""
    gone = path.with_name(f".tmp-drop-{path.name}")
    path.rename(gone)
    fault_point("save-pruning")
    shutil.rmtree(gone, ignore_errors=True)
