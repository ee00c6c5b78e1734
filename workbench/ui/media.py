"""The two folders the browser may read: the interface's own scripts and styles, and finished clips.

Knows paths and file types; knows nothing of gradio. A clip is served by the id of its folder, never by path.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from workbench.workspace import Workspace

HERE = Path(__file__).parent
SERVED = {"clips": "clips", "comparisons": "comparisons", "captures": "captures", "cache": "cache"}
TYPES = {
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".html": "text/html; charset=utf-8",
}
CODE_TYPES = {".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
STYLES = ("tokens.css", "base.css", "controls.css", "shell.css", "gradio.css")


def media_url(workspace: Workspace, path: Path) -> str:
    """Return the address under which the browser reads a clip file of the workspace."""
    kind, *rest = workspace.relative(path).split("/")
    return f"/workbench/media/{kind}/" + "/".join(quote(part) for part in rest)


def find_media(workspace: Workspace, kind: str, folder: str, name: str) -> Path | None:
    """Return the file behind an address, or None where it is not one that may be served."""
    if kind not in SERVED or not ID.fullmatch(folder) or not ID.fullmatch(name):
        return None
    path = workspace.root / SERVED[kind] / folder / name
    if path.suffix not in TYPES or path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        return None
    return path


def stylesheet() -> str:
    """Return all styles of the interface as one sheet: tokens first, then the page, then each component."""
    files = [HERE / name for name in STYLES] + sorted((HERE / "components").glob("*.css"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def routes(workspace: Workspace) -> list[BaseRoute]:
    """Return the routes that stand beside gradio's own."""
    sheet = stylesheet()

    def media(request: Request) -> Response:
        values = request.path_params
        path = find_media(workspace, values["kind"], values["folder"], values["name"])
        if path is None:
            raise HTTPException(404, "No such clip in this workspace.")
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)

    def script(request: Request) -> Response:
        name = request.path_params["name"]
        path = HERE / "components" / name
        if not ID.fullmatch(name) or path.suffix not in CODE_TYPES or not path.is_file():
            raise HTTPException(404, "No such part of the interface.")
        return FileResponse(path, media_type=CODE_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    def style(_: Request) -> Response:
        return Response(sheet, media_type="text/css", headers={"Cache-Control": "no-cache"})

    return [
        Route("/workbench/media/{kind}/{folder}/{name}", media, methods=["GET", "HEAD"]),
        Route("/workbench/static/workbench.css", style, methods=["GET"]),
        Route("/workbench/static/{name}", script, methods=["GET"]),
    ]
