"""Read the artefacts of a study for the pages; what is gone or of another model is simply not there.

Knows which reader belongs to which artefact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import InputError
from workbench.ui.context import Context
from workbench.ui.presenters import operators
from workbench.ui.presenters.plans import MAX_SAVED
from workbench.ui.presenters.study import StudyParts
from workbench.ui.session import FOLDERS, Part, Study, maker, newest

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.comparison import Comparison
    from workbench.operators import OperatorSpec
    from workbench.planning import Bank, Plan, Timings
    from workbench.surgery import Student


def read_bank(context: Context, study: Study) -> Bank | None:
    """Return the bank of a study, None where there is none of this model."""
    folder = study.folder(context.workspace, "bank")
    if folder is None:
        return None
    from workbench.planning import load_bank

    try:
        return load_bank(folder, context.at(study).facts)
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


def saved_plans(context: Context, *, most: int | None = None) -> list[tuple[str, Plan]]:
    """Return the plans of this model that the workspace holds, newest first, by file name; `most` of them."""
    from workbench.planning import load_file

    plans: list[tuple[str, Plan]] = []
    for path in sorted(context.workspace.folder("plans").glob("*.json"), reverse=True):
        if len(plans) == most:
            break
        try:
            plans.append((path.name, load_file(path, context.facts)))
        except InputError:
            continue
    return plans


def columns_of(context: Context, bank: Bank | None, student: Student | None) -> dict[str, OperatorSpec]:
    """Return the painter's columns, label to spec: of the model, a bank, a student and the saved plans."""
    beside = [plan for _, plan in saved_plans(context, most=MAX_SAVED)]
    return operators(context.facts, bank, [student.plan, *beside] if student else beside)


def study_parts(context: Context, study: Study) -> StudyParts:
    """Return the parts of a study, read; None where there is none."""
    here = context.at(study)
    bank = read_bank(here, study)
    student = find_student(here, study.student) if study.student else None
    return StudyParts(
        study=study,
        facts=here.facts,
        capture=find_capture(here, study),
        bank=bank,
        student=student,
        comparison=find_comparison(here, study),
        columns=tuple(columns_of(here, bank, student)),
        outdated=frozenset(
            part for part in FOLDERS if not getattr(study, part) and _of_other_weights(here, part)
        ),
    )


def _of_other_weights(context: Context, part: Part) -> bool:
    """Return whether there is such an artefact of a model of this name, but of other weights."""
    kind, document = FOLDERS[part]
    folder = context.workspace.folder(kind)
    names = newest(context.workspace, part)
    return any(maker(folder / name / document).name == context.facts.name for name in names)


def read_timings(context: Context) -> Timings | None:
    """Return the milliseconds that were measured for the model on this device, None where none were."""
    from workbench.evaluation.operator_times import find_times

    found = find_times(context.workspace, context.facts)
    return None if found is None else found.timings
