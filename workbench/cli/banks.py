"""`workbench bank show` and `bank merge`: what was measured, and one bank out of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.options import JsonOption, WorkspaceOption, bank_name, show
from workbench.errors import InputError
from workbench.workspace import Workspace

app = typer.Typer(help="Banks of measured cells.", no_args_is_help=True)


@app.command("show")
def show_bank(
    bank: Annotated[Path, typer.Argument(help="A bank folder, or embedded for the one that ships.")],
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the cells of a bank with their errors."""
    from workbench import planning

    del workspace
    found = planning.load_bank(Path(bank_name(bank)))
    rows: list[dict[str, Any]] = [
        {
            "block": cell.block,
            "rate": cell.label,
            "error": cell.error,
            "error_interval": [cell.error_low, cell.error_high],
            "error_branch_off": cell.error_off,
            "updates": cell.updates,
        }
        for cell in found.manifest.cells
    ]
    lines = [
        f"{row['block']:5d}  {row['rate']:8s}  {row['error']:.4f}  ({row['error_interval'][0]:.4f} to "
        f"{row['error_interval'][1]:.4f})  off {row['error_branch_off']:.4f}"
        for row in rows
    ]
    head = f"{found.folder.name}: {len(rows)} cells of {found.facts.name}"
    document = {"bank": str(found.folder), "model": found.facts.name, "cells": rows}
    show(document, as_json=as_json, prose="\n".join([head, "block  operator  error (95 % interval)", *lines]))


@app.command()
def merge(
    banks: Annotated[list[Path], typer.Argument(help="Banks of one model; of a cell the first one counts.")],
    name: Annotated[str, typer.Option("--name", help="What to call the new bank.")] = "merged",
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one bank out of several."""
    from workbench import planning

    if len(banks) < 2:
        raise InputError("Merging needs at least two banks; name another one.")
    opened = [planning.load_bank(Path(bank_name(bank))) for bank in banks]
    with Workspace.open(workspace).new_folder("banks", name=name) as folder:
        merged = planning.merge_banks(opened, folder.path)
    document = {"bank": str(folder.final), "cells": len(merged.manifest.cells)}
    show(document, as_json=as_json, prose=f"{folder.final}\n{document['cells']} cells")
