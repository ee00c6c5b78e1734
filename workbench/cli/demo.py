"""The command that writes a demo which needs no installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.options import JsonOption, WorkspaceOption, show
from workbench.errors import InputError
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.export.demo import Demo


def demo(
    out: Annotated[Path, typer.Option("--out", help="A new folder; open its index.html.")],
    comparison: Annotated[
        Path | None,
        typer.Option("--comparison", help="Whose clips (default: the newest, else the shipped example)."),
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Whose errors (default: the newest).")] = None,
    capture: Annotated[
        Path | None, typer.Option("--capture", help="Whose attention (default: the newest).")
    ] = None,
    *,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a finished study as a page that opens anywhere, without a server."""
    from workbench.export.demo import write_demo

    opened = Workspace.open(workspace)
    chosen = comparison or _newest(opened, "comparisons", "comparison.json")
    found = _example() if chosen is None else _own(opened, chosen, bank, capture)
    page = write_demo(found, out.expanduser().absolute())
    show({"demo": str(page)}, as_json=as_json, prose=str(page))


def _own(workspace: Workspace, comparison: Path, bank: Path | None, capture: Path | None) -> Demo:
    from workbench.capture import load
    from workbench.comparison import read
    from workbench.export.demo import Demo
    from workbench.planning import load_bank

    fingerprint = read(comparison).model["fingerprint"]
    errors = bank or _newest(workspace, "banks", "bank.json")
    opened = load_bank(errors) if errors else None
    if opened is not None and bank is None and opened.facts.fingerprint != fingerprint:
        opened = None
    seen = capture or _newest(workspace, "captures", "capture.json")
    loaded = load(seen) if seen else None
    if loaded is not None and capture is None and loaded.manifest.model.fingerprint != fingerprint:
        loaded = None
    cells = {
        place: {"error": cell.error, "low": cell.error_low, "high": cell.error_high, "off": cell.error_off}
        for place, cell in (opened.cells.items() if opened else ())
    }
    return Demo(
        comparison=comparison,
        columns=_columns([label for _, label in cells]),
        cells=cells,
        capture=loaded,
        heads=None if loaded is None else _heads(loaded),
    )


def _example() -> Demo:
    from workbench import example
    from workbench.export.demo import Demo

    shipped = example.load()
    if shipped is None:
        raise InputError("There is no comparison in this workspace, and no example; compare first.")
    cells = {
        (cell.block, cell.label): {
            "error": cell.error,
            "low": cell.error_low,
            "high": cell.error_high,
            "off": cell.error_off,
        }
        for cell in shipped.cells
    }
    labels = _columns([label for _, label in cells])
    return Demo(comparison=example.FOLDER / example.COMPARISON, columns=labels, cells=cells)


def _columns(labels: list[str]) -> tuple[str, ...]:
    usual = ("R2", "R4", "R8", "R16", "linear")
    return ("softmax", *usual, *sorted(set(labels) - set(usual)))


def _heads(capture: Capture) -> dict[str, Any]:
    from workbench.analysis import profile

    named = {
        "entropy": "entropy, nats",
        "same_frame": "own frame",
        "near": "near",
        "first_frame": "first frame",
    }
    columns = [
        {"key": key, "label": label, "bar": key != "entropy", "digits": 2, "tip": ""}
        for key, label in named.items()
    ]
    rows = [
        {
            "block": head.block,
            "head": head.head,
            "kind": head.kind,
            **{key: round(float(getattr(head, key)), 4) for key in named},
        }
        for head in profile(capture).heads
    ]
    return {"columns": columns, "rows": rows}


def _newest(workspace: Workspace, kind: str, document: str) -> Path | None:
    folders = [path for path in (workspace.root / kind).iterdir() if not path.name.startswith(".")]
    whole = sorted((path for path in folders if (path / document).is_file()), reverse=True)
    return whole[0] if whole else None
