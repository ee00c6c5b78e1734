"""Everything the workspace holds, as plain data; renaming and deleting what nothing is using.

Knows which document stands in which folder; loads no tensors.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.jobs import Job, Queue
from workbench.jobs.states import ACTIVE
from workbench.ui.media import ID, media_url
from workbench.ui.presenters.study import short_time
from workbench.workspace import Kind, Workspace, read_json, write_json

DOCUMENTS: dict[Kind, str] = {
    "captures": "capture.json",
    "banks": "bank.json",
    "plans": "",
    "students": "student.json",
    "clips": "manifest.json",
    "comparisons": "comparison.json",
    "evaluations": "evaluation.json",
    "studies": "study.json",
}
LABEL = "label.json"
MAX_NAME = 120
MAX_DOCUMENT_BYTES = 4 << 20
NEEDED = ("queued", "paused", "interrupted", *ACTIVE)
"""States in which a job still needs what its settings name."""


class Artefact(NamedTuple):
    """One thing of the workspace: its folder (a file, for a plan), its id, and what its document says."""

    kind: Kind
    id: str
    path: Path
    document: dict[str, Any]
    name: str


def artefacts(workspace: Workspace) -> Iterator[Artefact]:
    """Yield everything that is whole, newest first."""
    for kind, document in DOCUMENTS.items():
        for path in sorted(workspace.folder(kind).iterdir(), reverse=True):
            if not ID.fullmatch(path.name) or path.is_symlink():
                continue
            source = path / document if document else path
            if source.suffix != ".json" or not source.is_file():
                continue
            yield _artefact(kind, path, source)


def _artefact(kind: Kind, path: Path, source: Path) -> Artefact:
    document: dict[str, Any] = {}
    if source.stat().st_size <= MAX_DOCUMENT_BYTES:
        try:
            document = read_json(source, what=path.name)
        except InputError:
            document = {}
    return Artefact(kind, path.name, path, document, _name(kind, path, document))


def _name(kind: Kind, path: Path, document: Mapping[str, Any]) -> str:
    if kind in ("plans", "students"):
        return str(document.get("name") or document.get("short_name") or document.get("plan") or path.stem)
    label = path / LABEL
    if label.is_file():
        try:
            return str(read_json(label, what=path.name).get("name", path.name))
        except InputError:
            return path.name
    for key in ("config", "settings"):
        settings = document.get(key)
        if isinstance(settings, dict) and settings.get("prompt"):
            return str(settings["prompt"])
    model = document.get("model")
    cells = document.get("cells")
    named = str(model.get("name", "")) if isinstance(model, dict) else ""
    return f"{named}, {len(cells)} cells" if named and isinstance(cells, list | dict) else named or path.name


def shown(workspace: Workspace, queue: Queue) -> dict[str, Any]:
    """Return the table of artefacts and how much room each kind takes."""
    jobs = queue.list()
    found = list(artefacts(workspace))
    texts = {one.id: str(one.document) for one in found}
    rows: list[dict[str, Any]] = [
        {
            "kind": one.kind,
            "id": one.id,
            "name": one.name[:200],
            "bytes": size_of(one.path),
            "made": _made(one),
            "used": _used_by(one, found, texts),
            "busy": users(one, jobs),
            "job": maker_of(one, jobs),
            "poster": _poster(workspace, one),
        }
        for one in found
    ]
    room = Counter({str(kind): 0 for kind in (*DOCUMENTS, "jobs", "cache")})
    for row in rows:
        room[row["kind"]] += row["bytes"]
    room["jobs"] = size_of(workspace.folder("jobs"))
    room["cache"] = size_of(workspace.folder("cache"))
    return {"rows": rows, "room": dict(room), "free": shutil.disk_usage(workspace.root).free}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links are not followed."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def find(workspace: Workspace, question: Mapping[str, Any]) -> Artefact:
    """Return the artefact that a script names by `kind` and `id`.

    Raises:
        InputError: there is none.
    """
    kind, name = question.get("kind"), question.get("id")
    if isinstance(kind, str) and kind in DOCUMENTS and isinstance(name, str) and ID.fullmatch(name):
        document = DOCUMENTS[kind]
        path = workspace.folder(kind) / name
        source = path / document if document else path
        if not path.is_symlink() and source.suffix == ".json" and source.is_file():
            return _artefact(kind, path, source)
    raise InputError(f"There is no {str(name)[:80]!r} among the {str(kind)[:20]} of this workspace any more.")


def rename(workspace: Workspace, question: Mapping[str, Any]) -> str:
    """Give an artefact another name; its id, and so every path to it, stays.

    Raises:
        InputError: no such artefact, or no name.
    """
    found = find(workspace, question)
    name = " ".join(str(question.get("name", "")).split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InputError(f"A name has 1 to {MAX_NAME} printable characters.")
    if found.kind == "plans":
        write_json(found.path, {**read_json(found.path, what=found.id), "name": name})
    elif found.kind == "students":
        path = found.path / DOCUMENTS["students"]
        write_json(path, {**read_json(path, what=found.id), "name": name})
    else:
        write_json(found.path / LABEL, {"name": name})
    return name


def delete(workspace: Workspace, queue: Queue, question: Mapping[str, Any]) -> None:
    """Delete an artefact that no waiting or running job needs.

    Raises:
        InputError: no such artefact, or in use, with the jobs named.
    """
    found = find(workspace, question)
    needing = users(found, queue.list())
    if needing:
        more = f" and {len(needing) - 1} more" if len(needing) > 1 else ""
        raise InputError(
            f"{found.name!r} is in use by job {needing[0]}{more}; it was kept. Cancel that first."
        )
    gone = found.path.with_name(f".tmp-deleted-{found.path.name}")
    found.path.rename(gone)
    if gone.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def clear_cache(workspace: Workspace, queue: Queue) -> int:
    """Empty the cache and return the bytes that this gave back; it fills again as it is needed.

    Raises:
        InputError: a job runs that may be reading it.
    """
    busy = queue.list(states=ACTIVE)
    if busy:
        raise InputError(f"Job {busy[0].id} is {busy[0].state} and may need the cache; it was kept.")
    before = size_of(workspace.folder("cache"))
    for path in workspace.folder("cache").iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return before - size_of(workspace.folder("cache"))


def users(found: Artefact, jobs: list[Job]) -> list[str]:
    """Return the jobs that still need an artefact: those under way or resumable whose settings name it."""
    return [job.id for job in jobs if job.state in NEEDED and found.id in str(job.config)]


def maker_of(found: Artefact, jobs: list[Job]) -> str:
    """Return the id of the job that made an artefact, "" where none is left."""
    return next((job.id for job in reversed(jobs) if found.id in str(job.result or {})), "")


def form_of(found: Artefact, jobs: list[Job]) -> tuple[str, dict[str, Any]]:
    """Return kind and settings of the form that made an artefact.

    Raises:
        InputError: neither the artefact nor a job tells.
    """
    job = next((job for job in jobs if job.id == maker_of(found, jobs)), None)
    if job is not None:
        return job.kind, job.config
    kept = {"captures": ("capture", "config"), "comparisons": ("compare", "restore")}
    kind, key = kept.get(found.kind, ("", ""))
    settings = found.document.get(key)
    if isinstance(settings, dict) and settings.get("prompt"):
        return kind, settings
    raise InputError(f"The job that made {found.name!r} is gone, and with it the settings.")


def _used_by(one: Artefact, found: list[Artefact], texts: Mapping[str, str]) -> str:
    counts = Counter(other.kind for other in found if other.id != one.id and one.id in texts[other.id])
    return ", ".join(f"{count} {kind if count > 1 else kind[:-1]}" for kind, count in counts.items())


def _made(one: Artefact) -> str:
    for place in (one.document, one.document.get("made"), one.document.get("provenance")):
        moment = place.get("created") if isinstance(place, dict) else None
        if isinstance(moment, str):
            try:
                return short_time(moment)
            except ValueError:
                break
    from datetime import UTC, datetime

    return short_time(datetime.fromtimestamp(one.path.stat().st_mtime, UTC).isoformat())


def _poster(workspace: Workspace, one: Artefact) -> str:
    picture = one.path / "poster.png"
    return media_url(workspace, picture) if one.kind in ("captures", "clips") and picture.is_file() else ""
