"""The folder that holds everything a user makes, and the only way files get into it.

Every artefact is complete or absent: files are written beside their place, synced and renamed.
Knows folders and JSON; knows nothing of what the artefacts mean.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_path

from workbench.errors import InputError

Kind = Literal["captures", "banks", "plans", "students", "clips", "comparisons", "studies", "jobs", "cache"]
KINDS: tuple[Kind, ...] = (
    "captures", "banks", "plans", "students", "clips", "comparisons", "studies", "jobs", "cache",
)  # fmt: skip
MAX_JSON_BYTES = 16 * 1024 * 1024


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

        Yields:
            a NewFolder: write into `.path`; after the block the artefact stands at `.final`.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        final = self.folder(kind) / new_id(name)
        temporary = self.folder(kind) / f".tmp-{final.name}"
        try:
            temporary.mkdir(parents=True)
            yield NewFolder(path=temporary, final=final)
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    sync(file)
            sync(temporary)
            temporary.rename(final)
            sync(final.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(_disk_sentence(final, error)) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@dataclass(frozen=True)
class NewFolder:
    """An artefact being written: `path` is where to write now, `final` where it will stand."""

    path: Path
    final: Path


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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON document atomically: the old content or the new, never a mix.

    Raises:
        InputError: the disk is full or the place cannot be written; the old file is intact.
        ValueError: the data holds NaN or infinity.
    """
    text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(_disk_sentence(path, error)) from error


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


def _disk_sentence(path: Path, error: OSError) -> str:
    try:
        free = shutil.disk_usage(path.parent).free / 1e6
        room = f"; {free:,.0f} MB are free there"
    except OSError:
        room = ""
    return (
        f"Cannot write {path.name!r} in the workspace ({error.strerror}){room}. "
        "Nothing that existed was changed; free some space or choose another --workspace."
    )
