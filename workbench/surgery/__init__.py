"""Surgery: installing a plan with its cells into a model, reversibly, and the students that it makes."""

from workbench.surgery.install import (
    CellSource,
    ConvertedBlock,
    FreshCells,
    Report,
    install,
    install_operators,
    installed,
    operators_of,
    restore,
    set_linear_branch,
)
from workbench.surgery.student import (
    Student,
    StudentManifest,
    SurgeryConfig,
    install_student,
    is_student,
    linearize,
    open_facts,
    open_model,
    read_student,
    save_student,
)

__all__ = [
    "CellSource",
    "ConvertedBlock",
    "FreshCells",
    "Report",
    "Student",
    "StudentManifest",
    "SurgeryConfig",
    "install",
    "install_operators",
    "install_student",
    "installed",
    "is_student",
    "linearize",
    "open_facts",
    "open_model",
    "operators_of",
    "read_student",
    "restore",
    "save_student",
    "set_linear_branch",
]
