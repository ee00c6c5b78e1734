"""Clips that come in and comparisons that go out: two routes beside gradio's, bounded and swept.

An upload is written under a name of ours in the cache, decoded, and removed whatever happens; what it became
is a comparison. An export is made in the cache, sent, and removed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from workbench.errors import InputError, WorkbenchError
from workbench.ui.guard import MAX_IMPORT_BYTES
from workbench.ui.media import ID
from workbench.workspace import Workspace

MAX_IMPORTED_BYTES = 1 << 30
"""All imported clips of a workspace together."""
TYPES = {
    "html": ("application/zip", ".zip"),
    "vote": ("application/zip", "-vote.zip"),
    "mp4": ("video/mp4", ".mp4"),
    "gif": ("image/gif", ".gif"),
    "json": ("application/json", ".json"),
}


def routes(workspace: Workspace) -> list[BaseRoute]:
    """Return the routes of imports and exports."""

    async def bring_in(request: Request) -> Response:
        values = request.path_params
        with tempfile.TemporaryDirectory(dir=workspace.folder("cache"), prefix=".tmp-import-") as folder:
            path = Path(folder) / "clip.mp4"
            try:
                await _receive(request, path)
                made = await run_in_threadpool(
                    _import, workspace, path, values, request.query_params.get("name", "")
                )
            except ClientDisconnect:
                return JSONResponse({"error": "The upload was cut off or too large; nothing was kept."}, 400)
            except WorkbenchError as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"comparison": made.name})

    def hand_out(request: Request) -> Response:
        values = request.path_params
        form = values["form"]
        folder = Path(tempfile.mkdtemp(dir=workspace.folder("cache"), prefix=".tmp-export-"))
        try:
            source = find_comparison_folder(workspace, values["comparison"])
            made = _export(source, folder, form)
        except WorkbenchError as error:
            shutil.rmtree(folder, ignore_errors=True)
            return JSONResponse({"error": str(error)}, 404)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        kind, end = TYPES[form]
        return FileResponse(
            made,
            media_type=kind,
            filename=f"{source.name}{end}",
            background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
        )

    return [
        Route("/workbench/import/{comparison}/{row}", bring_in, methods=["POST"]),
        Route("/workbench/export/{comparison}/{form}", hand_out, methods=["GET"]),
    ]


def find_comparison_folder(workspace: Workspace, name: str) -> Path:
    """Return the folder of a comparison by its id.

    Raises:
        InputError: no such comparison.
    """
    folder = workspace.folder("comparisons") / name
    if not ID.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
        raise InputError("That comparison is no longer in the workspace.")
    return folder


async def _receive(request: Request, path: Path) -> None:
    taken = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > MAX_IMPORT_BYTES:
                raise InputError(f"The clip is above {MAX_IMPORT_BYTES >> 20} MB; nothing was kept.")
            file.write(chunk)


def _import(workspace: Workspace, path: Path, values: dict[str, Any], name: str) -> Path:
    from workbench.comparison import import_clip

    source = find_comparison_folder(workspace, values["comparison"])
    row = values["row"]
    if not row.isdigit() or len(row) > 2:
        raise InputError("The row of an imported clip is a number from 0.")
    held = sum(file.stat().st_size for file in workspace.folder("comparisons").glob("*/imported-*.mp4"))
    if held + path.stat().st_size > MAX_IMPORTED_BYTES:
        raise InputError(
            f"Imported clips already take {held / 1e6:,.0f} MB of this workspace; delete some comparisons on "
            "the Runs page first."
        )
    shown = "".join(sign for sign in name if sign.isprintable())[:200]
    return import_clip(path, workspace, comparison=source, row=int(row), name=shown.removesuffix(".mp4"))


def _export(source: Path, folder: Path, form: str) -> Path:
    from workbench.comparison import export

    if form not in TYPES:
        raise InputError(f"There is no export of that form; known: {', '.join(TYPES)}.")
    archive: Callable[..., str] = shutil.make_archive
    if form not in ("html", "vote"):
        return export(source, folder / f"comparison.{form}", form=form)  # type: ignore[arg-type]
    made = export(source, folder / source.name, form=form)  # type: ignore[arg-type]
    return Path(archive(str(folder / "comparison"), "zip", root_dir=folder, base_dir=made.name))
