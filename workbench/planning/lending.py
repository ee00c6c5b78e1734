"""A new workspace begins with the bank that ships for its model."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.errors import InputError
from workbench.models.facts import ModelFacts
from workbench.planning import bank
from workbench.workspace import Workspace


def lend(workspace: Workspace, facts: ModelFacts) -> Path | None:
    """Copy the bank that ships for a model into a workspace that has none, so that painting begins at once.

    Returns:
        The new bank, or None where the workspace has banks, or none ships for these weights.
    """
    folder = bank.bank_folder(facts.name)
    if (
        not (folder / bank.FILE).is_file()
        or folder.parent != bank.SHIPPED
        or any(workspace.folder("banks").iterdir())
    ):
        return None
    try:
        bank.load_bank(folder, facts)
    except InputError:
        return None
    with workspace.new_folder("banks", name=f"{facts.name} shipped") as made:
        shutil.copytree(folder, made.path, dirs_exist_ok=True)
    return made.final
