"""Clips of one's own come in checked and bounded; comparisons go out whole; nothing refused stays on disk."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from workbench.comparison import read
from workbench.comparison.compare import fidelity
from workbench.comparison.page import write_page
from workbench.comparison.record import FILE, Column, ComparedClip, Comparison
from workbench.sampling import GenerateConfig
from workbench.ui.guard import MAX_IMPORT_BYTES, Guard
from workbench.ui.handover import routes
from workbench.video import read_mp4, write_mp4
from workbench.workspace import Workspace, write_json

OWN = "http://127.0.0.1:7860"
FRAMES = (5, 32, 48)


def clip(seed: int, frames: int = FRAMES[0]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (frames, *FRAMES[1:], 3), dtype=np.uint8)


@pytest.fixture
def comparison(workspace: Workspace) -> Path:
    folder = workspace.folder("comparisons") / "made"
    folder.mkdir()
    for name, seed in (("teacher.mp4", 0), ("student.mp4", 1)):
        write_mp4(folder / name, clip(seed), fps=8)
    metrics = fidelity(clip(0), clip(1))
    record = Comparison(
        settings=GenerateConfig(prompt="a ball"),
        prompts=("a ball",),
        columns=(Column(role="teacher", name="teacher"), Column(role="student", name="2xR4")),
        model={"name": "micro", "fingerprint": "x"},
        plan="2xR4",
        size=FRAMES,
        tokens=10,
        fps=8,
        clips=(
            ComparedClip(role="teacher", name="teacher", path="teacher.mp4", seconds=1.0),
            ComparedClip(role="student", column=1, name="2xR4", path="student.mp4", metrics=metrics),
        ),
        metrics=metrics,
        cost={},
        made={"created": "2026-01-01T00:00:00+00:00"},
    )
    write_json(folder / FILE, record.model_dump(mode="json"))
    write_page(folder, record)
    return folder


@pytest.fixture
def client(workspace: Workspace, comparison: Path) -> TestClient:
    return TestClient(Starlette(routes=routes(workspace), middleware=[Middleware(Guard)]), base_url=OWN)


def held(workspace: Workspace) -> list[str]:
    """Every file of the workspace."""
    files = (path for path in workspace.root.rglob("*") if path.is_file())
    return sorted(path.relative_to(workspace.root).as_posix() for path in files)


def test_an_own_clip_becomes_a_column_of_a_copy(
    client: TestClient, workspace: Workspace, comparison: Path, tmp_path: Path
) -> None:
    write_mp4(tmp_path / "mine.mp4", clip(2), fps=30)
    answer = client.post(
        "/workbench/import/made/0?name=<b>mine</b>.mp4", content=(tmp_path / "mine.mp4").read_bytes()
    )
    assert answer.status_code == 200, answer.text
    record = read(workspace.folder("comparisons") / answer.json()["comparison"])
    added = record.clips[-1]
    assert added.role == "imported" and added.name == "<b>mine</b>"
    assert added.metrics and len(added.metrics.psnr) == FRAMES[0] and added.seconds is None
    assert len(read(comparison).clips) == 2, "the comparison itself stays as it was"
    folder = workspace.folder("comparisons") / answer.json()["comparison"]
    assert read_mp4(folder / added.path).shape == (*FRAMES, 3)
    assert "<b>mine" not in (folder / "index.html").read_text().split('<script type="application/json"')[0]
    assert not list(workspace.folder("cache").iterdir())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not an MP4"),
        (b"<script>alert(1)</script>", "not an MP4"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 400, "not a video"),
        (b"PK\x03\x04" + b"\0" * 100, "not an MP4"),
    ],
)
def test_what_is_no_clip_is_refused_in_a_sentence_and_leaves_nothing(
    client: TestClient, workspace: Workspace, body: bytes, sentence: str
) -> None:
    before = held(workspace)
    answer = client.post("/workbench/import/made/0?name=x.mp4", content=body)
    assert answer.status_code == 400 and sentence in answer.json()["error"]
    assert str(workspace.root) not in answer.text
    assert held(workspace) == before


def test_too_long_and_too_large_clips_are_refused(
    client: TestClient, workspace: Workspace, tmp_path: Path
) -> None:
    write_mp4(tmp_path / "long.mp4", np.zeros((258, 16, 16, 3), np.uint8), fps=8)
    write_mp4(tmp_path / "wide.mp4", np.zeros((1, 16, 1296, 3), np.uint8), fps=8)
    before = held(workspace)
    for name, sentence in (("long", "258 frames"), ("wide", "1296")):
        content = (tmp_path / f"{name}.mp4").read_bytes()
        answer = client.post("/workbench/import/made/0?name=x", content=content)
        assert answer.status_code == 400 and sentence in answer.json()["error"]
    answer = client.post("/workbench/import/made/0", content=b"x" * (MAX_IMPORT_BYTES + 1))
    assert answer.status_code == 413 and "64 MB" in answer.text
    assert held(workspace) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/workbench/import/made/7", 400),
        ("/workbench/import/made/-1", 400),
        ("/workbench/import/gone/0", 400),
        ("/workbench/import/..%2fclips/0", 404),
    ],
)
def test_places_that_do_not_exist_are_refused(
    client: TestClient, workspace: Workspace, path: str, status: int, tmp_path: Path
) -> None:
    write_mp4(tmp_path / "mine.mp4", clip(2), fps=8)
    before = held(workspace)
    assert client.post(path, content=(tmp_path / "mine.mp4").read_bytes()).status_code == status
    assert held(workspace) == before


def test_other_pages_cannot_upload(client: TestClient, workspace: Workspace) -> None:
    before = held(workspace)
    for headers, status in (
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "attacker.example"}, 400),
    ):
        answer = client.post("/workbench/import/made/0", content=b"x", headers=headers)
        assert answer.status_code == status
    assert held(workspace) == before


def test_every_form_of_export_opens(client: TestClient, workspace: Workspace) -> None:
    before = held(workspace)
    answer = client.get("/workbench/export/made/html")
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert {"made/index.html", "made/teacher.mp4", "made/student.mp4", "made/comparison.json"} <= set(names)
    vote = zipfile.ZipFile(io.BytesIO(client.get("/workbench/export/made/vote").content))
    assert b"if (true)" in vote.read("made/index.html")
    film = client.get("/workbench/export/made/mp4").content
    assert film[4:8] == b"ftyp"
    assert client.get("/workbench/export/made/gif").content[:6] == b"GIF89a"
    assert json.loads(client.get("/workbench/export/made/json").content)["plan"] == "2xR4"
    for path in ("/workbench/export/made/exe", "/workbench/export/gone/html"):
        assert client.get(path).status_code == 404
    assert held(workspace) == before, "exports are swept"


def test_exports_are_side_by_side(comparison: Path, tmp_path: Path) -> None:
    from workbench.comparison import export

    film = read_mp4(export(comparison, tmp_path / "film.mp4", form="mp4"))
    assert film.shape == (FRAMES[0], FRAMES[1], 2 * FRAMES[2] + 4, 3)
