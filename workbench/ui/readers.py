"""Read the artefacts of a study for the pages, tolerant of what is gone. Knows which reader belongs to which artefact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import InputError
from workbench.ui.context import Context
from workbench.ui.session import Study
from workbench.workspace import read_json

if TYPE_CHECKING:
    from workbench.planning.bank import Bank


def read_bank(context: Context, study: Study) -> Bank | None:
    """Return the bank of a study, None where there is none, or none of this model."""
    folder = study.folder(context.workspace, "bank")
    if folder is None:
        return None
    from workbench.planning.bank import load_bank

    try:
        return load_bank(folder, context.facts)
    except InputError:
        return None


def study_texts(context: Context, study: Study) -> dict[str, str]:
    """Return what the parts of a study are called in the study bar."""
    texts = {}
    capture = study.folder(context.workspace, "capture")
    if capture is not None:
        document = read_json(capture / "capture.json", what=f"capture {study.capture}")
        texts["capture"] = str(document.get("config", {}).get("prompt", study.capture))
    if study.student:
        texts["student"] = (
            study.student.partition("-")[2].partition("-")[2].rpartition("-")[0] or study.student
        )
    if study.comparison:
        document = read_json(
            context.workspace.folder("comparisons") / study.comparison / "comparison.json",
            what=f"comparison {study.comparison}",
        )
        texts["comparison"] = str(document.get("prompt", study.comparison))
    return texts


def read_capture(context: Context, name: object, *, absent_ok: bool = False):
    return None
