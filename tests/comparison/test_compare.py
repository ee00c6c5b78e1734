"""Comparisons: real clips of the same prompts and seed, their figures, and a page that needs no server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.banks import write_bank
from workbench.comparison import CompareConfig, Side, compare, load, player_data, read, scores
from workbench.comparison.compare import fidelity
from workbench.comparison.page import inline_modules, page
from workbench.errors import InputError, Paused
from workbench.models import ModelFacts
from workbench.planning import parse_short
from workbench.surgery import save_student
from workbench.types import CheckpointState, SilentReporter
from workbench.video import read_mp4
from workbench.workspace import Workspace


@pytest.fixture
def student(workspace: Workspace, micro_facts: ModelFacts, tmp_path: Path) -> Path:
    bank = write_bank(tmp_path / "bank", micro_facts)
    return save_student(parse_short("2xR4", micro_facts), bank, workspace)


def test_every_side_gets_every_prompt_with_figures(
    student: Path, workspace: Workspace, micro_facts: ModelFacts, micro_model_folder: Path, tmp_path: Path
) -> None:
    sides = (
        Side(model=str(student)),
        Side(model=str(student), linear_branch=False),
        Side(plan="3xlinear", bank=str(tmp_path / "bank"), name="all linear"),
    )
    config = CompareConfig(
        model=str(micro_model_folder),
        prompt="<b>a red ball</b>",
        more_prompts=("a cube",),
        sides=sides,
        seed=3,
        steps=2,
    )
    folder = compare(config, workspace, reporter=SilentReporter())
    record = read(folder)
    frames = micro_facts.default_size.frames
    assert record.prompts == ("<b>a red ball</b>", "a cube")
    assert [column.name for column in record.columns] == ["teacher", "2xR4", "2xR4, branch off", "all linear"]
    assert [(clip.row, clip.column) for clip in record.clips] == [(r, c) for r in (0, 1) for c in range(4)]
    for clip in record.clips:
        assert read_mp4(folder / clip.path).shape == (frames, 48, 32, 3)
        assert clip.seconds and clip.tflop and clip.peak_bytes
        assert (clip.metrics is None) is (clip.column == 0)
    first = [clip.metrics for clip in record.clips[1:4]]
    assert len({one.mean_psnr for one in first if one}) == 3, "each side must have its own operators"
    assert record.clips[1].tflop == record.clips[2].tflop != record.clips[3].tflop
    assert record.restore == config.model_dump(mode="json")
    assert not (folder / "preview.png").exists()
    document = load(folder)
    assert all(Path(clip["path"]).is_file() for clip in document["clips"])
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<b>a red ball</b>" not in text, "the prompt must be shown as text"
    assert not re.search(r"https?://", text), "the page must need no network"
    found = scores([folder, folder])
    assert found[0].name == "teacher" and len(found) == 4
    assert all(len(one.clips) == 2 for one in found), "the same clip counts once"
    assert all(one.psnr and one.psnr.count == 2 and one.psnr.low is not None for one in found[1:])


def test_the_old_form_still_compares_one_student(student: Path, workspace: Workspace) -> None:
    config = CompareConfig(model=str(student), prompt="a red ball", seed=3, steps=1)
    record = read(compare(config, workspace, reporter=SilentReporter()))
    assert [clip.role for clip in record.clips] == ["teacher", "student"]
    assert record.clips[0].plan == ("softmax",) * 3 and record.clips[1].plan.count("R4") == 2
    assert record.plan == "2xR4" and record.student == student.name and record.settings.seed == 3


def test_a_comparison_of_the_first_schema_is_read_as_one_of_today(
    student: Path, workspace: Workspace
) -> None:
    folder = compare(
        CompareConfig(model=str(student), prompt="a ball", steps=1), workspace, reporter=SilentReporter()
    )
    path = folder / "comparison.json"
    today = json.loads(path.read_text())
    old = {key: today[key] for key in today if key not in ("prompts", "columns", "restore")}
    old["schema_version"] = 1
    kept = ("role", "name", "path", "plan", "seconds", "decode_seconds", "tflop")
    old["clips"] = [{key: clip[key] for key in kept} for clip in today["clips"]]
    path.write_text(json.dumps(old))
    record = read(folder)
    assert record.prompts == ("a ball",) and [clip.column for clip in record.clips] == [0, 1]
    assert record.clips[1].metrics == record.metrics
    assert player_data(record)["rows"][0]["clips"][1]["curves"]["ssim"]


class Pausing(SilentReporter):
    """Pauses when the second clip begins, keeping the state, and can go on from it."""

    def __init__(self, state: CheckpointState | None = None) -> None:
        self.state = state
        self.stages: list[str] = []
        self.pauses = state is None

    def stage(self, name: str, steps: int) -> None:
        self.stages.append(name)

    def step(self, step: int, *, state=None, **metrics: float) -> None:  # type: ignore[no-untyped-def]
        if self.pauses and self.stages[-1].startswith("2xR4: sampling") and state is not None:
            self.state = state()
            raise Paused("Paused.")

    def restore(self) -> CheckpointState | None:
        return self.state


def test_finished_clips_survive_a_pause(student: Path, workspace: Workspace) -> None:
    config = CompareConfig(model=str(student), prompt="a ball", steps=2)
    first = Pausing()
    with pytest.raises(Paused):
        compare(config, workspace, reporter=first)
    assert not list(workspace.folder("comparisons").iterdir()), "nothing half made is left"
    second = Pausing(first.state)
    resumed = read(compare(config, workspace, reporter=second))
    assert not any(stage.startswith("teacher") for stage in second.stages)
    whole = read(compare(config, workspace, reporter=SilentReporter()))
    assert resumed.metrics == whole.metrics


class Asking(SilentReporter):
    """Asks for a preview after each step."""

    def __init__(self) -> None:
        self.make = None
        self.sizes: list[tuple[int, int]] = []

    def offer_sample(self, make, every=0) -> None:  # type: ignore[no-untyped-def]
        self.make = make

    def step(self, step: int, *, state=None, **metrics: float) -> None:  # type: ignore[no-untyped-def]
        if self.make is not None and state is not None:
            from PIL import Image

            path = self.make()
            if path.is_file():
                self.sizes.append(Image.open(path).size)


def test_a_preview_shows_three_frames_and_changes_no_clip(student: Path, workspace: Workspace) -> None:
    config = CompareConfig(model=str(student), prompt="a ball", steps=3)
    asking = Asking()
    shown = read(compare(config, workspace, reporter=asking))
    assert set(asking.sizes) == {(3 * 32, 48)} and len(asking.sizes) >= 6
    unseen = read(compare(config, workspace, reporter=SilentReporter()))
    assert shown.metrics == unseen.metrics


def test_an_all_softmax_plan_gives_the_teachers_clip_again(
    workspace: Workspace, micro_facts: ModelFacts, micro_model_folder: Path, tmp_path: Path
) -> None:
    bank = write_bank(tmp_path / "bank", micro_facts)
    config = CompareConfig(
        model=str(micro_model_folder), plan="softmax", bank=str(bank.folder), prompt="a ball", steps=1
    )
    record = read(compare(config, workspace, reporter=SilentReporter()))
    assert record.metrics and record.metrics.equal_frames == micro_facts.default_size.frames
    assert record.metrics.mean_psnr is None and record.metrics.mean_ssim == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": "embedded"}, "not a student folder"),
        ({"model": "embedded", "plan": "2xR4"}, "give the bank too"),
        ({"model": "embedded", "bank": "somewhere"}, "give the plan too"),
        ({"sides": (Side(plan="2xR4", bank="x"),), "plan": "2xR4"}, "not both"),
        ({"sides": (Side(plan="2xR4", bank="x"),) * 2}, "twice"),
        ({"sides": (Side(plan="2xR4", bank="x"),), "more_prompts": ("a ball",)}, "same prompt"),
    ],
)
def test_a_comparison_without_a_student_is_refused_before_anything_loads(
    settings: dict[str, str], named: str, workspace: Workspace
) -> None:
    with pytest.raises(InputError, match=named):
        compare(CompareConfig(prompt="a ball", **settings), workspace, reporter=SilentReporter())
    assert not [path for path in workspace.folder("comparisons").iterdir() if not path.name.startswith(".")]


def test_fidelity_names_equal_frames() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    second = first.copy()
    second[1] = 255 - second[1]
    found = fidelity(first, second)
    assert found.psnr[0] is None and found.psnr[1] is not None and found.equal_frames == 2


def test_damaged_records_are_refused_in_a_sentence(workspace: Workspace) -> None:
    folder = workspace.folder("comparisons") / "x"
    folder.mkdir()
    with pytest.raises(InputError, match="not a comparison"):
        read(folder)
    (folder / "comparison.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(InputError, match="newer version"):
        read(folder)
    (folder / "comparison.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(InputError, match="missing"):
        read(folder)


def test_the_page_holds_its_scripts_and_escapes_what_users_wrote() -> None:
    hostile = '</script><img src=x onerror="window.broken=1">'
    clip = {"role": "teacher", "column": 0, "name": hostile, "plan": ["softmax"], "branch": True}
    clip |= {"url": "teacher.mp4", "facts": [["s", "1"]], "verdicts": [], "curves": None}
    rows = [{"prompt": hostile, "clips": [clip]}]
    data = {"rows": rows, "columns": [hostile], "seed": 1, "fps": 8, "frames": 2}
    text = page(data, made=hostile)
    assert 'onerror="window' not in text.replace("\\u003c", "<").split("<script type=")[0]
    assert text.count("</script>") == 2, "one for the data, one for the scripts"
    assert not re.search(r"^\s*import ", inline_modules(["components/player.js"]), re.MULTILINE)


def test_player_data_uses_the_addresses_it_is_given(student: Path, workspace: Workspace) -> None:
    folder = compare(
        CompareConfig(model=str(student), prompt="a ball", steps=1), workspace, reporter=SilentReporter()
    )
    (row,) = player_data(read(folder), lambda name: f"/x/{name}")["rows"]
    assert [clip["url"] for clip in row["clips"]] == ["/x/teacher.mp4", "/x/student.mp4"]
