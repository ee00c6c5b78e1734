"""Comparisons: two real clips of one prompt and seed, their figures, and a page that needs no server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.banks import write_bank
from workbench.comparison import CompareConfig, compare, load, player_data, read
from workbench.comparison.compare import fidelity
from workbench.comparison.page import inline_modules, page
from workbench.errors import InputError
from workbench.models import ModelFacts
from workbench.planning import parse_short
from workbench.surgery import save_student
from workbench.types import SilentReporter
from workbench.video import read_mp4
from workbench.workspace import Workspace


@pytest.fixture
def student(workspace: Workspace, micro_facts: ModelFacts, tmp_path: Path) -> Path:
    bank = write_bank(tmp_path / "bank", micro_facts)
    return save_student(parse_short("2xR4", micro_facts), bank, workspace)


def test_student_and_teacher_of_one_seed_are_kept_with_figures(
    student: Path, workspace: Workspace, micro_facts: ModelFacts
) -> None:
    folder = compare(
        CompareConfig(model=str(student), prompt="<b>a red ball</b>", seed=3, steps=2),
        workspace,
        reporter=SilentReporter(),
    )
    record = read(folder)
    frames = micro_facts.default_size.frames
    teacher, changed = (read_mp4(folder / clip.path) for clip in record.clips)
    assert teacher.shape == changed.shape == (frames, 48, 32, 3)
    assert len(record.metrics.psnr) == len(record.metrics.ssim) == frames
    assert record.metrics.equal_frames < frames, "the student must differ from the teacher"
    assert [clip.role for clip in record.clips] == ["teacher", "student"]
    assert record.clips[0].plan == ("softmax",) * 3 and record.clips[1].plan.count("R4") == 2
    assert record.plan == "2xR4" and record.settings.seed == 3
    document = load(folder)
    assert all(Path(clip["path"]).is_file() for clip in document["clips"])
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<b>a red ball</b>" not in text, "the prompt must be shown as text"
    assert not re.search(r"https?://", text), "the page must need no network"


def test_an_all_softmax_plan_gives_the_teachers_clip_again(
    workspace: Workspace, micro_facts: ModelFacts, micro_model_folder: Path, tmp_path: Path
) -> None:
    bank = write_bank(tmp_path / "bank", micro_facts)
    config = CompareConfig(
        model=str(micro_model_folder), plan="softmax", bank=str(bank.folder), prompt="a ball", steps=1
    )
    record = read(compare(config, workspace, reporter=SilentReporter()))
    assert record.metrics.equal_frames == micro_facts.default_size.frames
    assert record.metrics.mean_psnr is None and record.metrics.mean_ssim == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": "embedded"}, "not a student folder"),
        ({"model": "embedded", "plan": "2xR4"}, "give the bank too"),
        ({"model": "embedded", "bank": "somewhere"}, "give the plan too"),
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
    clip = {
        "role": "teacher",
        "name": hostile,
        "plan": ["softmax"],
        "url": "teacher.mp4",
        "facts": [["s", "1"]],
    }
    data = {
        "prompt": hostile,
        "seed": 1,
        "fps": 8,
        "frames": 2,
        "clips": [clip],
        "curves": {"psnr": [], "ssim": []},
    }
    text = page(data, made=hostile)
    assert 'onerror="window' not in text.replace("\\u003c", "<").split("<script type=")[0]
    assert text.count("</script>") == 2, "one for the data, one for the scripts"
    assert "import " not in inline_modules(["components/player.js"]).split("\n", 1)[0]


def test_player_data_uses_the_addresses_it_is_given(student: Path, workspace: Workspace) -> None:
    folder = compare(
        CompareConfig(model=str(student), prompt="a ball", steps=1), workspace, reporter=SilentReporter()
    )
    data = player_data(read(folder), lambda name: f"/x/{name}")
    assert [clip["url"] for clip in data["clips"]] == ["/x/teacher.mp4", "/x/student.mp4"]
