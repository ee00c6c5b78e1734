"""Students that ship with the workbench: found by name, and lent to a new workspace.

`python -m workbench.experiments.ship_student` makes them. Knows folders, not what is in them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.models import ModelFacts
from workbench.workspace import Workspace, read_json

SHIPPED = Path(__file__).parent / "students"
STUDENT = "student.json"


def student_folder(name: str | Path) -> Path:
    """Return the folder of a student: as given, or of the one of that name that ships with the workbench."""
    path = Path(name).expanduser()
    shipped = SHIPPED / path
    return shipped if len(path.parts) == 1 and not path.exists() and shipped.is_dir() else path


def shipped_students() -> tuple[str, ...]:
    """Return the names of all students that ship with the workbench."""
    return tuple(sorted(file.parent.name for file in SHIPPED.glob(f"*/{STUDENT}")))


def lend_students(workspace: Workspace, facts: ModelFacts) -> tuple[Path, ...]:
    """Copy the students that ship for a model into a workspace that has none, to compare with at once.

    Returns:
        The new students; none where the workspace has students, or none ships for these weights.

    Raises:
        InputError: a shipped student is damaged, or the workspace cannot be written.
    """
    if any(workspace.folder("students").iterdir()):
        return ()
    lent = []
    for name in shipped_students():
        teacher = read_json(SHIPPED / name / STUDENT, what=f"student {name}").get("teacher", {})
        if (teacher.get("name"), teacher.get("fingerprint")) != (facts.name, facts.fingerprint):
            continue
        with workspace.new_folder("students", name=name) as made:
            shutil.copytree(SHIPPED / name, made.path, dirs_exist_ok=True)
        lent.append(made.final)
    return tuple(lent)
