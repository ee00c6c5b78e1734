"""Which artefacts of the workspace the page works with: ids only. Knows folders, not what is in them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from workbench.errors import InputError
from workbench.types import StrictModel
from workbench.ui.media import ID
from workbench.workspace import Kind, Workspace, read_json

if TYPE_CHECKING:
    from workbench.models import ModelFacts

Part = Literal["capture", "bank", "student", "comparison"]
FOLDERS: dict[Part, tuple[Kind, str]] = {
    "capture": ("captures", "capture.json"),
    "bank": ("banks", "bank.json"),
    "student": ("students", "student.json"),
    "comparison": ("comparisons", "comparison.json"),
}


class Study(StrictModel):
    """The model, and ids of the artefacts shown, "" where there is none yet.

    Attributes:
        model: registry name or folder; "" is the one that the app was started with.
    """

    model: str = ""
    capture: str = ""
    bank: str = ""
    student: str = ""
    comparison: str = ""

    def folder(self, workspace: Workspace, part: Part) -> Path | None:
        """Return the folder of a part of the study, None where there is none."""
        name = getattr(self, part)
        return workspace.folder(FOLDERS[part][0]) / name if name else None


class Maker(NamedTuple):
    """Which model an artefact is of."""

    name: str
    fingerprint: str

    def fits(self, facts: ModelFacts) -> bool:
        """Return whether the artefact is of this model with these weights, as far as that is known."""
        if self.fingerprint and facts.fingerprint:
            return self.fingerprint == facts.fingerprint
        return self.name == facts.name


def maker(document: Path) -> Maker:
    """Return which model an artefact is of, by its document; empty names where it does not say."""
    return _maker(document, document.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2048)
def _maker(document: Path, _: int) -> Maker:
    try:
        data = read_json(document, what=document.parent.name)
    except InputError:
        return Maker("", "")
    made = data.get("teacher") or data.get("model")
    made = made if isinstance(made, dict) else {}
    return Maker(str(made.get("name", "")), str(made.get("fingerprint", "")))


def newest(workspace: Workspace, part: Part, facts: ModelFacts | None = None) -> list[str]:
    """Return the ids of all whole artefacts of a kind, newest first; with `facts` only of that model."""
    kind, document = FOLDERS[part]
    return [
        path.name
        for path in sorted(workspace.folder(kind).iterdir(), reverse=True)
        if ID.fullmatch(path.name)
        and (path / document).is_file()
        and (facts is None or maker(path / document).fits(facts))
    ]


def restore(workspace: Workspace, asked: Mapping[str, str], facts: ModelFacts, *, model: str = "") -> Study:
    """Return the study of a model that a link asks for; what it leaves out, or is gone, is the newest."""
    chosen: dict[str, str] = {"model": model}
    for part in FOLDERS:
        present = newest(workspace, part, facts)
        wanted = asked.get(part, "")
        chosen[part] = wanted if wanted in present else next(iter(present), "")
    return Study(**chosen)


def adopt(study: Study, workspace: Workspace, results: Iterable[Path], facts: ModelFacts) -> Study:
    """Return the study with what finished jobs made for its model."""
    changes: dict[str, str] = {}
    for path in results:
        for part, (kind, document) in FOLDERS.items():
            folder = path if path.is_dir() else path.parent
            if folder.parent != workspace.folder(kind) or not (folder / document).is_file():
                continue
            if maker(folder / document).fits(facts):
                changes[part] = folder.name
    return study.model_copy(update=changes)
