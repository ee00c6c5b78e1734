"""Read the artefacts of a study for the pages; what is gone or of another model is simply not there.

Knows which reader belongs to which artefact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.ui.context import Context
from workbench.ui.session import Study, newest

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.comparison import Comparison
    from workbench.planning import Bank, Plan
    from workbench.surgery import Student


def read_bank(context: Context, study: Study) -> Bank | None:
    """Return the bank of a study, None where there is none of this model."""
    folder = study.folder(context.workspace, "bank")
    if folder is None:
        return None
    from workbench.planning import load_bank

    try:
        return load_bank(folder, context.facts)
    except InputError:
        return None


def read_capture(context: Context, name: object) -> Capture:
    """Return a capture by the id that a script sends.

    Raises:
        InputError: no such capture.
    """
    if not isinstance(name, str) or name not in newest(context.workspace, "capture"):
        raise InputError(f"There is no capture {str(name)[:80]!r} in this workspace; capture first.")
    return context.load_capture(context.workspace.folder("captures") / name)


def find_capture(context: Context, study: Study) -> Capture | None:
    """Return the capture of a study, None where there is none."""
    try:
        return read_capture(context, study.capture)
    except InputError:
        return None


def find_comparison(context: Context, study: Study) -> Comparison | None:
    """Return the comparison of a study, None where there is none."""
    folder = study.folder(context.workspace, "comparison")
    if folder is None:
        return None
    from workbench.comparison import read

    try:
        return read(folder)
    except InputError:
        return None


def find_student(context: Context, name: str) -> Student | None:
    """Return a student of the workspace by id, None where it is none of this model."""
    from workbench.surgery import read_student

    try:
        student = read_student(context.workspace.folder("students") / name)
        student.plan.model.check(context.facts, what="student")
    except InputError:
        return None
    return student


def saved_plans(context: Context) -> list[tuple[str, Plan]]:
    """Return the plans of this model that the workspace holds, newest first, by file name."""
    from workbench.planning import load_file

    plans = []
    for path in sorted(context.workspace.folder("plans").glob("*.json"), reverse=True):
        try:
            plans.append((path.name, load_file(path, context.facts)))
        except InputError:
            continue
    return plans


def study_texts(context: Context, study: Study) -> dict[str, str]:
    """Return what the parts of a study are called in the study bar."""
    texts = {}
    if capture := find_capture(context, study):
        texts["capture"] = capture.manifest.config.prompt
    if study.student and (student := find_student(context, study.student)):
        texts["student"] = student.name
    if comparison := find_comparison(context, study):
        texts["comparison"] = f"{comparison.plan}, {comparison.settings.prompt}"
    return texts


def read_plan(context: Context, choice: Any) -> Plan:
    """Return a painted choice as a plan of this model.

    Raises:
        InputError: not one operator for every block.
    """
    from workbench.operators import parse_rate
    from workbench.planning import make_plan

    facts = context.facts
    if not isinstance(choice, list) or len(choice) != facts.num_blocks:
        raise InputError(
            f"A plan names one operator for each of the {facts.num_blocks} blocks of {facts.name}."
        )
    return make_plan({block: parse_rate(word) for block, word in enumerate(choice)}, facts)
