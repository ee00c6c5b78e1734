"""Which artefacts of the workspace the page works with: ids only. Knows folders, not what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from workbench.types import StrictModel
from workbench.ui.media import ID
from workbench.workspace import Kind, Workspace

Part = Literal["capture", "bank", "student", "comparison"]
FOLDERS: dict[Part, tuple[Kind, str]] = {
    "capture": ("captures", "capture.json"),
    "bank": ("banks", "bank.json"),
    "student": ("students", "student.json"),
    "comparison": ("comparisons", "comparison.json"),
}


class Study(StrictModel):
    """Ids of the artefacts shown, "" where there is none yet."""

    capture: str = ""
    bank: str = ""
    student: str = ""
    comparison: str = ""

    def folder(self, workspace: Workspace, part: Part) -> Path | None:
        """Return the folder of a part of the study, None where there is none."""
        name = getattr(self, part)
        return workspace.folder(FOLDERS[part][0]) / name if name else None


def newest(workspace: Workspace, part: Part) -> list[str]:
    """Return the ids of all whole artefacts of a kind, newest first."""
    kind, document = FOLDERS[part]
    folders = (path for path in workspace.folder(kind).iterdir() if (path / document).is_file())
    return sorted((path.name for path in folders if ID.fullmatch(path.name)), reverse=True)


def restore(workspace: Workspace, asked: Mapping[str, str]) -> Study:
    """Return the study that a link asks for; what it leaves out, or what is gone, is the newest there is."""
    chosen: dict[str, str] = {}
    for part in FOLDERS:
        present = newest(workspace, part)
        wanted = asked.get(part, "")
        chosen[part] = wanted if wanted in present else next(iter(present), "")
    return Study(**chosen)


def adopt(study: Study, workspace: Workspace, results: Iterable[Path]) -> Study:
    """Return the study with what finished jobs made."""
    changes: dict[str, str] = {}
    for path in results:
        for part, (kind, document) in FOLDERS.items():
            folder = path if path.is_dir() else path.parent
            if folder.parent == workspace.folder(kind) and (folder / document).is_file():
                changes[part] = folder.name
    return study.model_copy(update=changes)
