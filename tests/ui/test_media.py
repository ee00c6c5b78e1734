"""Only finished clips and our own scripts can be read through the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from workbench.ui.media import find_media, media_url, routes, stylesheet
from workbench.workspace import Workspace


@pytest.fixture
def clip(workspace: Workspace) -> Path:
    folder = workspace.folder("clips") / "20260101-000000-a-ball-abcd"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(bytes(range(256)) * 8)
    (folder / "latents.safetensors").write_bytes(b"secret")
    return folder / "clip.mp4"


def test_clips_are_served_with_ranges(workspace: Workspace, clip: Path) -> None:
    client = TestClient(Starlette(routes=routes(workspace)))
    whole = client.get(media_url(workspace, clip))
    part = client.get(media_url(workspace, clip), headers={"range": "bytes=10-19"})
    assert whole.status_code == 200 and whole.headers["content-type"] == "video/mp4"
    assert part.status_code == 206 and part.content == clip.read_bytes()[10:20]


@pytest.mark.parametrize(
    ("kind", "folder", "name"),
    [
        ("clips", "..", "workbench.sqlite"),
        ("clips", "20260101-000000-a-ball-abcd", "latents.safetensors"),
        ("clips", "20260101-000000-a-ball-abcd", ".."),
        ("jobs", "x", "log.txt"),
        ("banks", "x", "bank.json"),
        ("clips", ".tmp-x", "clip.mp4"),
        ("clips", "20260101-000000-a-ball-abcd", "%2e%2e"),
        ("clips", "20260101-000000-a-ball-abcd", "missing.mp4"),
    ],
)
def test_nothing_else_is_found(workspace: Workspace, clip: Path, kind: str, folder: str, name: str) -> None:
    assert find_media(workspace, kind, folder, name) is None


def test_links_lead_nowhere(workspace: Workspace, clip: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    (clip.parent / "link.mp4").symlink_to(secret)
    (workspace.folder("clips") / "linked").symlink_to(tmp_path)
    assert find_media(workspace, "clips", clip.parent.name, "link.mp4") is None
    assert find_media(workspace, "clips", "linked", "secret.mp4") is None


@pytest.mark.parametrize(
    "address",
    [
        "/workbench/media/clips/..%2f..%2f/clip.mp4",
        "/workbench/media/clips/%252e%252e/clip.mp4",
        "/workbench/static/..%2fguard.py",
        "/workbench/static/__init__.py",
    ],
)
def test_addresses_outside_are_not_answered(workspace: Workspace, address: str) -> None:
    assert TestClient(Starlette(routes=routes(workspace))).get(address).status_code == 404


def test_one_sheet_holds_the_tokens_first() -> None:
    sheet = stylesheet()
    assert sheet.index("--op-softmax") < sheet.index(".painter")
    assert "http" not in sheet
