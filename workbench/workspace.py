"""The folder that holds everything a user makes, and the only way files get into it.

Every artefact is complete or absent: files are written beside their place, synced and renamed.
Knows folders and JSON; knows nothing of what the artefacts mean.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_path

from workbench.errors import InputError

Kind = Literal[
    "captures", "banks", "plans", "students", "clips", "comparisons", "evaluations", "studies",
    "datasets", "jobs", "cache"
]  # fmt: skip
KINDS: tuple[Kind, ...] = (
    "captures", "banks", "plans", "students", "clips", "comparisons", "evaluations", "studies",
    "datasets", "jobs", "cache",
)  # fmt: skip
MAX_JSON_BYTES = 16 * 1024 * 1024
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LITTER_SECONDS = 3600.0


class DiskFull(InputError):
    """No room for a file: work that can wait tries again when there is.

    Attributes:
        folder: where the file should have gone.
        needed: bytes that were wanted, 0 where unknown.
    """

    def __init__(self, message: str, *, folder: Path, needed: int = 0) -> None:
        super().__init__(message)
        self.folder = folder
        self.needed = needed


@dataclass(frozen=True)
class Workspace:
    """One user's folder; paths inside it are stored relative, so that it can be moved."""

    root: Path

    @classmethod
    def open(cls, root: str | Path | None = None) -> Workspace:
        """Open a workspace, making its folders.

        Args:
            root: the folder; None takes `$WORKBENCH_WORKSPACE`, else the platform's data folder.

        Raises:
            InputError: the folder cannot be made or written.
        """
        chosen = root or os.environ.get("WORKBENCH_WORKSPACE") or user_data_path("linearization-workbench")
        path = Path(chosen).expanduser().absolute()
        try:
            for kind in KINDS:
                (path / kind).mkdir(parents=True, exist_ok=True)
            probe = path / f".write-probe-{secrets.token_hex(4)}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"Workspace {path.name!r} cannot be written ({error.strerror}); "
                "choose a writable folder with --workspace."
            ) from None
        return cls(path)

    @property
    def database(self) -> Path:
        return self.root / "workbench.sqlite"

    def folder(self, kind: Kind) -> Path:
        return self.root / kind

    def relative(self, path: Path) -> str:
        """Return `path` relative to the workspace, for storing; a path outside stays absolute."""
        try:
            return path.absolute().relative_to(self.root).as_posix()
        except ValueError:
            return str(path)

    @contextmanager
    def new_folder(self, kind: Kind, *, name: str = "") -> Iterator[NewFolder]:
        """Make an artefact folder that appears under its final name only when the block succeeds.

        The temporary folder is locked while it is written, so that `sweep` can tell it from litter.

        Yields:
            a NewFolder: write into `.path`; after the block the artefact stands at `.final`.

        Raises:
            DiskFull, InputError: the disk is full or the folder cannot be written.
        """
        folder = self.folder(kind)
        final, descriptor = folder / new_id(name), -1
        temporary = _temporary(final)
        try:
            while (found := _make_locked(temporary, unless=final)) is None:
                final = folder / new_id(name)
                temporary = _temporary(final)
            descriptor = found
            yield NewFolder(path=temporary, final=final)
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    sync(file)
            sync(temporary)
            temporary.rename(final)
            sync(final.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise disk_error(final, error) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def sweep(self) -> list[str]:
        """Remove what killed writers left: temporary folders nobody holds, temporary files of an hour ago.

        Returns:
            the removed names, relative to the workspace.
        """
        removed: list[str] = []
        for folder in (self.root, *(self.folder(kind) for kind in KINDS)):
            for entry in folder.glob(".*"):
                if _removed_as_litter(entry):
                    removed.append(self.relative(entry))
        return removed


@dataclass(frozen=True)
class NewFolder:
    """An artefact being written: `path` is where to write now, `final` where it will stand."""

    path: Path
    final: Path


def _temporary(final: Path) -> Path:
    return final.with_name(f".tmp-{final.name}")


def _make_locked(folder: Path, *, unless: Path) -> int | None:
    """Make a folder and lock it; make it again where a sweep took it before the lock stood.

    Returns None where another has the folder, or finished its own as `unless`.
    """
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            return None
        if unless.exists():
            folder.rmdir()
            return None
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return descriptor
            os.close(descriptor)


def _removed_as_litter(entry: Path) -> bool:
    if not (entry.name.startswith((".tmp", ".write-probe-")) or entry.name.endswith(".tmp")):
        return False
    try:
        if entry.is_symlink() or not entry.is_dir():
            old = abs(time.time() - entry.lstat().st_mtime) > LITTER_SECONDS
            if old:
                entry.unlink()
            return old
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def new_id(name: str = "") -> str:
    """Return a sortable id: UTC time, a slug of the display name, four random hex digits."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return "-".join(part for part in (stamp, slug, secrets.token_hex(2)) if part)


def sync(path: Path) -> None:
    """Flush a file or a folder entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Mapping[str, Any], *, compact: bool = False) -> None:
    """Write a JSON document atomically: the old content or the new, never a mix; for people, or compact.

    Raises:
        DiskFull, InputError: the disk is full, the place cannot be written, or a text is not valid Unicode;
            the old file is intact.
        ValueError: the data holds NaN or infinity.
    """
    try:
        form: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
        content = (json.dumps(data, allow_nan=False, ensure_ascii=False, **form) + "\n").encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path.name!r} would hold a text that is not valid Unicode (position {error.start}); remove it."
        ) from None
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise disk_error(path, error, needed=len(content)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object strictly: UTF-8 (BOM allowed), no duplicate keys, finite numbers only.

    Args:
        path: the file.
        what: how to call it in an error, for example "plan demo.json".

    Raises:
        InputError: one sentence that names the thing and the place of the first fault.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{what} is larger than {MAX_JSON_BYTES >> 20} MB; it is not such a file.")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{what} does not exist; check the path.") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{what} cannot be read ({error.strerror}).") from None
    return parse_json(text, what=what)


def parse_json(text: str, *, what: str) -> dict[str, Any]:
    """Decode a JSON object under the rules of `read_json`.

    Raises:
        InputError: one sentence that names the thing and the place of the first fault.
    """
    if not text.strip():
        raise InputError(f"{what} is empty.")
    try:
        data = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, what),
            parse_constant=lambda word: _refuse_constant(word, what),
            parse_float=lambda digits: _finite(digits, what),
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{what} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise InputError(f"{what} is nested too deeply.") from None
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{what} holds a number with too many digits.") from None
    if not isinstance(data, dict):
        raise InputError(f"{what} must be a JSON object, got {type(data).__name__}.")
    return data


def _unique(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise InputError(f"{what} states '{key}' twice; keep one.")
        seen[key] = value
    return seen


def _refuse_constant(word: str, what: str) -> float:
    raise InputError(f"{what} holds {word}; only finite numbers are accepted.")


def _finite(digits: str, what: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InputError(f"{what} holds {digits[:20]}, which is not a finite number.")
    return value


def disk_error(path: Path, error: OSError, *, needed: int = 0) -> InputError:
    """Return the error to raise for a failed write: its sentence names the place, the room and the way out.

    Args:
        path: what should have been written; only its name and its folder's name are shown.
        error: what the system said.
        needed: bytes that were wanted, 0 where unknown.
    """
    folder = path.parent
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
    except OSError:
        free = "its file system does not answer"
    if error.errno not in DISK_FULL:
        return InputError(
            f"Cannot write {path.name!r} in {folder.name!r} ({error.strerror}); {free}, nothing that existed "
            "was changed, choose another place or make this one writable."
        )
    wanted = f"needs {needed / 1e6:,.1f} MB, " if needed else ""
    return DiskFull(
        f"No room for {path.name!r} in {folder.name!r} ({error.strerror}): {wanted}{free}; nothing that "
        "existed was changed, free some space or choose another --workspace.",
        folder=folder,
        needed=needed,
    )
