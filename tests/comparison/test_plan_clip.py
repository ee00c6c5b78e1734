"""Paint and see: a plan's clip is made once, beside the teacher's, and is another when a cell is another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.banks import write_bank
from workbench.comparison import plan_clip
from workbench.errors import InputError
from workbench.evaluation.clip_cache import ClipCache
from workbench.models import ModelFacts, load_model
from workbench.types import SilentReporter
from workbench.video import read_mp4
from workbench.workflow import STEPS, check
from workbench.workspace import Workspace

PLAN = ("R4", "softmax", "linear")


def wish(model: Path, bank: Path | str, **changes: object) -> dict[str, object]:
    asked = {"model": str(model), "prompt": "a ball", "steps": 2, "operators": list(PLAN), "bank": str(bank)}
    return {**asked, **changes}


def test_a_clip_is_made_once_and_says_how_far_the_plan_is_off(
    workspace: Workspace, micro_model_folder: Path, micro_facts: ModelFacts
) -> None:
    bank = write_bank(workspace.folder("banks") / "b", micro_facts).folder
    config = check("render", wish(micro_model_folder, bank))
    assert isinstance(config, plan_clip.RenderConfig)
    assert plan_clip.find_render(config, workspace) is None
    made = STEPS["render"].run(config, workspace, SilentReporter())
    record = plan_clip.read_render(made.path)
    assert record.plan == PLAN and record.velocity_error is not None and record.velocity_error > 0
    assert record.mean_psnr is not None and len(record.psnr) == 9
    assert len(read_mp4(made.path / plan_clip.CLIP)) == 9
    teacher = plan_clip.find_render(plan_clip.teacher_of(config), workspace)
    assert teacher is not None and plan_clip.read_render(teacher).psnr == ()
    again = STEPS["render"].run(config, workspace, SilentReporter())
    assert again.path == made.path, "nothing is rendered twice"


def test_the_key_follows_weights_cells_and_settings(
    workspace: Workspace, micro_model_folder: Path, micro_facts: ModelFacts
) -> None:
    first = write_bank(workspace.folder("banks") / "a", micro_facts, seed=0).folder
    same = write_bank(workspace.folder("banks") / "b", micro_facts, seed=0).folder
    other = write_bank(workspace.folder("banks") / "c", micro_facts, seed=1).folder

    def key(bank: Path, **changes: object) -> str:
        config = plan_clip.RenderConfig.parse(wish(micro_model_folder, bank, **changes), what="render")
        return plan_clip.render_key(config)

    assert key(first) == key(same), "the same cells are the same clip, wherever they lie"
    different = [
        key(first),
        key(other),
        key(first, seed=1),
        key(first, prompt="a red ball"),
        key(first, dense_first=1),
        key(first, operators=["linear", "softmax", "R4"]),
    ]
    assert len(set(different)) == len(different)


def test_a_changed_codec_makes_other_clips(
    workspace: Workspace, micro_model_folder: Path, micro_facts: ModelFacts, tmp_path: Path
) -> None:
    bank = write_bank(workspace.folder("banks") / "a", micro_facts, seed=0).folder
    changed = tmp_path / micro_model_folder.name
    shutil.copytree(micro_model_folder, changed)
    file = next((changed / "vae").glob("*.safetensors"))
    weights = load_file(file)
    name = next(key for key in weights if key.startswith("decoder"))
    save_file({**weights, name: weights[name] + 1}, file, metadata={"format": "pt"})

    def of(folder: Path) -> tuple[str, str, Path]:
        config = plan_clip.RenderConfig.parse(wish(folder, bank), what="render")
        model = load_model(str(folder), device="cpu")
        cache = ClipCache(workspace, points=1, max_bytes=1_000_000)
        return model.fingerprint, plan_clip.render_key(config), cache.path(model, config)

    assert of(micro_model_folder)[0] == of(changed)[0], "cells stay valid"
    assert not set(of(micro_model_folder)[1:]) & set(of(changed)[1:])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"operators": ["R4"]}, "one operator for each of the 3 blocks"),
        ({"operators": ["R8", "softmax", "softmax"]}, "lacks 1 of the cells"),
        ({"bank": ""}, "needs measured cells"),
        ({"frames": 8}, "Frames must be"),
    ],
)
def test_what_cannot_be_rendered_is_refused_before_anything_is_loaded(
    workspace: Workspace,
    micro_model_folder: Path,
    micro_facts: ModelFacts,
    changes: dict[str, object],
    sentence: str,
) -> None:
    bank = write_bank(workspace.folder("banks") / "b", micro_facts).folder
    with pytest.raises(InputError, match=sentence):
        check("render", {**wish(micro_model_folder, bank), **changes})
