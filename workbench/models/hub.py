"""Bring a model of the Hugging Face hub to a local folder: from its cache, or over the network if allowed.

Knows of a folder only whether it is complete. No token ever appears in a message.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from workbench.errors import InputError

PROBE_SECONDS = 4.0
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt")
PIPELINE = "WanPipeline"
INDEX = "model_index.json"


def fetch_from_hub(repository: str, *, name: str, allow_network: bool) -> Path:
    """Return the local snapshot folder of a hub repository.

    The cache is looked at first, so that a model that is there needs no network.

    Args:
        repository: "owner/name".
        name: how the user called it.
        allow_network: whether it may be fetched.

    Raises:
        InputError: not cached and not allowed, not reachable, not there, or access denied.
    """
    folder = cached_folder(repository, name=name)
    lack = None if folder is None else missing_part(folder)
    if folder is not None and lack is None:
        return folder
    if allow_network:
        return download(repository, name=name)
    state = "is not on this machine" if lack is None else f"is only partly here ({lack})"
    raise InputError(
        f"{name} {state}; fetch it with `workbench download {name} --allow-network`, "
        "or use the embedded model, which still works."
    )


def cached_folder(repository: str, *, name: str) -> Path | None:
    """Return the snapshot of a repository in the hub's cache, complete or not; None where there is none.

    Raises:
        InputError: no name that the hub could have.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise InputError(f"{name!r} is neither a folder nor a valid hub id; check the name.") from None
    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    try:
        revision = (root / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return None
    folder = root / "snapshots" / revision
    return folder if revision and folder.is_dir() else None


def missing_part(folder: Path) -> str | None:
    """Say what a snapshot in the hub's cache lacks, with the bytes expected and found; None if complete.

    Files left over from an interrupted download do not matter once everything is there.
    """
    root = folder.parent.parent
    listing = _listing(root / "trees" / f"{folder.name}.json")
    unfinished = sorted((root / "blobs").glob("*.incomplete"), key=lambda file: -file.stat().st_size)
    lacking = []
    for path, facts in listing.items():
        if _is_needed(path, folder) and not (folder / path).is_file():
            blob = str(facts.get("lfs_sha256") or facts.get("blob_id") or "?")
            here = max((file.stat().st_size for file in unfinished if file.name.startswith(blob)), default=0)
            lacking.append((here, int(facts.get("size") or 0), path))
    if lacking:
        here, size, path = max(lacking)
        more = f", {len(lacking) - 1} more files are missing" if len(lacking) > 1 else ""
        return f"{path} has {here:,} of {size:,} bytes{more}"
    if not (folder / INDEX).is_file():
        return f"{INDEX} is missing"
    dangling = next(
        (link for link in sorted(folder.rglob("*")) if link.is_symlink() and not link.exists()), None
    )
    if dangling is not None:
        return f"{dangling.relative_to(folder)} is missing"
    if unfinished and (bare := next((part for part in _components(folder) if not _has_files(part)), None)):
        size = unfinished[0].stat().st_size
        return f"'{bare.name}' is not there, an unfinished file has {size:,} bytes, {len(unfinished)} in all"
    return None


def _listing(file: Path) -> dict[str, dict[str, Any]]:
    """Return the hub's own record of a revision's files, {} where there is none."""
    with suppress(OSError, ValueError, AttributeError):
        files = json.loads(file.read_text(encoding="utf-8")).get("files")
        if isinstance(files, dict):
            return {path: facts for path, facts in files.items() if isinstance(facts, dict)}
    return {}


def _is_needed(path: str, folder: Path) -> bool:
    parts = Path(path).parts
    if path == INDEX:
        return True
    names = [part.name for part in _components(folder)]
    return (
        len(parts) == 2 and (parts[0] in names or not names) and any(fnmatch(path, glob) for glob in WANTED)
    )


def _components(folder: Path) -> list[Path]:
    """Return the folders that the index of a pipeline names."""
    with suppress(OSError, ValueError, AttributeError):
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [
            folder / key for key, entry in index.items() if isinstance(entry, list) and entry and entry[0]
        ]
    return []


def _has_files(component: Path) -> bool:
    weighty = component.name not in ("tokenizer", "scheduler")
    return any(file.is_file() for file in component.glob("*.safetensors" if weighty else "*"))


def download(repository: str, *, name: str) -> Path:
    """Fetch a model from the hub into its cache, whatever offline mode says; what is there is kept.

    Before the large files come, the hub is asked whether it has the model, whether it is a Wan pipeline,
    and whether the disk has room.

    Raises:
        InputError: one sentence: no network, no such model, access denied, another pipeline, no room.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    cached_folder(repository, name=name)
    with _one_sentence(name), _online():
        info = HfApi().model_info(repository, timeout=PROBE_SECONDS, files_metadata=True)
        files = {entry.rfilename: int(entry.size or 0) for entry in info.siblings or ()}
        if INDEX not in files:
            raise InputError(f"{name} has no {INDEX} on the hub; give a repository in diffusers format.")
        hf_hub_download(repository, "model_index.json", etag_timeout=PROBE_SECONDS)
        folder = cached_folder(repository, name=name)
        assert folder is not None
        _refuse_other_pipeline(folder, name=name)
        _require_room(files, folder, name=name)
        return Path(snapshot_download(repository, allow_patterns=list(WANTED)))


def _refuse_other_pipeline(folder: Path, *, name: str) -> None:
    class_name = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("_class_name")
    if class_name != PIPELINE:
        raise InputError(
            f"{INDEX} of {name} says {class_name!r}; supported: {PIPELINE}; nothing was fetched."
        )


def _require_room(files: dict[str, int], folder: Path, *, name: str) -> None:
    missing = sum(
        size
        for path, size in files.items()
        if any(fnmatch(path, glob) for glob in WANTED) and not (folder / path).is_file()
    )
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise InputError(
            f"{name} needs {missing / 1e9:,.1f} GB more in the hub's cache, {free / 1e9:,.1f} GB are free; "
            "free some space or point HF_HOME to another disk."
        )


@contextmanager
def _online() -> Iterator[None]:
    """Lift the offline mode that the command line and the app set, for as long as a download takes."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence without a token."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise InputError(
            f"Access to {name} is denied by the hub; accept its terms there and log in with `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"The hub has no model {name!r}, or it is private; check the name or log in with `hf auth login`."
        ) from None
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no"
        reason = f"the hub answered {code}; try later"
        if code in (401, 403):
            reason = "access denied by the hub; check your token"
        raise InputError(f"{name} could not be fetched: {reason}.") from None
    except InputError:
        raise
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, OSError, ValueError) as error:
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise InputError(f"{name} could not be fetched: the hub's answer makes no sense.") from None
        raise InputError(
            f"{name} is not on this machine and the hub cannot be reached; the embedded model still works."
        ) from None
