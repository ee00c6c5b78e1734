"""Bring a model of the Hugging Face hub to a local folder: from its cache, or over the network if allowed.

Knows nothing of what is in the folder. No token ever appears in a message.
"""

from __future__ import annotations

from pathlib import Path

from workbench.errors import InputError

PROBE_SECONDS = 4.0
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt")


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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(WANTED), local_files_only=True))
    except HFValidationError:
        raise InputError(f"{name!r} is neither a folder nor a valid hub id; check the name.") from None
    except (LocalEntryNotFoundError, OSError):
        folder = None
    if folder is not None and _complete(folder):
        return folder
    if not allow_network:
        state = "is not on this machine" if folder is None else f"is only partly here ({_unfinished(folder)})"
        raise InputError(
            f"{name} {state}; allow the download with --allow-network, "
            "or use the embedded model, which still works."
        )
    return _download(repository, name=name)


def _complete(folder: Path) -> bool:
    """Return whether a snapshot has an index and no blob of its repository is unfinished."""
    blobs = folder.parent.parent / "blobs"
    return (folder / "model_index.json").exists() and not any(blobs.glob("*.incomplete"))


def _unfinished(folder: Path) -> str:
    parts = sorted((folder.parent.parent / "blobs").glob("*.incomplete"))
    if not parts:
        return "model_index.json is missing"
    return f"an unfinished file of {parts[0].stat().st_size:,} bytes, {len(parts)} in all"


def _download(repository: str, *, name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        HfApi().model_info(repository, timeout=PROBE_SECONDS)
        return Path(snapshot_download(repository, allow_patterns=list(WANTED)))
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
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, OSError):
        raise InputError(
            f"{name} is not on this machine and the hub cannot be reached; the embedded model still works."
        ) from None
