"""`workbench doctor`: what this machine and installation are, to paste into an issue."""

from __future__ import annotations

from workbench.cli.options import JsonOption, WorkspaceOption, show
from workbench.workspace import Workspace


def doctor(workspace: WorkspaceOption = None, *, as_json: JsonOption = False) -> None:
    """Say what this machine is: versions, device, memory, disk, what auto picks."""
    from workbench.doctor import examine

    report = examine(Workspace.open(workspace))
    document = {**report.model_dump(mode="json"), "problems": list(report.problems)}
    show(document, as_json=as_json, prose=report.text)
