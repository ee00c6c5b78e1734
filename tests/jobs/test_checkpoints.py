"""Checkpoints: whole or absent, verified, the newest two kept; and a training loop that goes on exactly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.jobs.demo import DemoConfig, Training
from tests.jobs.matrices import OWNER, checkpoint_of, save_kills
from workbench.errors import Diverged, InputError
from workbench.jobs.checkpoints import (
    Checkpoint,
    ForeignCheckpoint,
    Owner,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from workbench.jobs.manifests import newest_manifest
from workbench.jobs.randomness import capture_randomness, restore_randomness
from workbench.types import CheckpointState


def save(folder: Path, done: int) -> Path:
    return save_checkpoint(folder, checkpoint_of(done, floats=5000), owner=OWNER)


def newest_done(folder: Path) -> int:
    found = load_newest(folder, owner=OWNER)
    assert found.checkpoint is not None
    return found.checkpoint.done


def test_the_newest_two_are_kept_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    for done in (3, 5, 8):
        save(tmp_path, done)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["000002", "000003"]
    found = load_newest(tmp_path, owner=OWNER)
    assert found.skipped == ()
    assert found.checkpoint is not None
    assert (found.checkpoint.stage, found.checkpoint.step, found.checkpoint.done) == ("train", 8, 8)
    assert torch.equal(found.checkpoint.state.tensors["weight"], torch.full((5000,), 8.0))
    assert found.checkpoint.state.meta == {"done": 8}


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none", owner=OWNER).checkpoint is None
    assert newest_manifest(tmp_path / "none") is None


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "empty"])
def test_a_damaged_one_is_passed_over_with_a_sentence(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(b"")
    found = load_newest(tmp_path, owner=OWNER)
    assert found.checkpoint is not None
    if name == "manifest.json" and damage == "flip" and not found.skipped:
        pytest.skip("the flipped bit left a manifest that says the same")
    assert found.checkpoint.done == 1
    assert len(found.skipped) == 1
    assert name in found.skipped[0]
    assert str(tmp_path) not in found.skipped[0]


def test_after_a_damaged_one_new_ones_take_its_place(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").unlink()
    save(tmp_path, 3)
    save(tmp_path, 4)
    assert newest_done(tmp_path) == 4
    assert load_newest(tmp_path, owner=OWNER).skipped == ()


def test_other_works_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ForeignCheckpoint, match=r"belongs to other work \('demo', .*this is 'measure'"):
        load_newest(tmp_path, owner=Owner("measure", OWNER.config_sha256))
    with pytest.raises(ForeignCheckpoint, match="it was not used"):
        load_newest(tmp_path, owner=Owner("demo", "f" * 64))


def test_a_checkpoint_cannot_point_outside_itself(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../secret"] = manifest["files"].pop("state.json")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="does not name its files"):
        load_checkpoint(path, owner=OWNER)
    secret = tmp_path / "secret"
    path = save(tmp_path, 2)
    (path / "state.json").rename(secret)
    (path / "state.json").symlink_to(secret)
    with pytest.raises(InputError, match=r"state.json of checkpoint 000002 is missing"):
        load_checkpoint(path, owner=OWNER)


def test_a_state_that_is_not_finite_never_replaces_a_good_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    bad = CheckpointState({"weight": torch.tensor([1.0, float("nan")])})
    with pytest.raises(Diverged, match="'weight' has 1 non-finite"):
        save_checkpoint(tmp_path, Checkpoint("train", 2, 2, bad, {}), owner=OWNER)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["000001"]
    assert newest_done(tmp_path) == 1


def test_no_kill_while_saving_loses_or_damages_one(tmp_path: Path) -> None:
    counts = save_kills(tmp_path, repeats=30)
    assert (counts["kills"], counts["lost"], counts["damaged"]) == (30, 0, 0)
    assert counts["acknowledged"] >= 30


def test_training_goes_on_exactly_through_a_checkpoint(tmp_path: Path) -> None:
    config = DemoConfig(optimizer="adam")
    torch.set_num_threads(1)
    straight = Training(config)
    for _ in range(20):
        straight.update()

    first = Training(config)
    for _ in range(9):
        first.update()
    process = {"threads": 1, "random": capture_randomness()}
    save_checkpoint(tmp_path, Checkpoint("train", 9, 9, first.state(0, 9), process), owner=OWNER)
    torch.randn(7), np.random.rand(3), random.random()

    second = Training(DemoConfig(optimizer="adam", seed=99))
    found = load_newest(tmp_path, owner=OWNER)
    assert found.checkpoint is not None
    assert second.load(found.checkpoint.state) == (0, 9)
    careless = Training(DemoConfig(optimizer="adam", seed=99))
    careless.load(found.checkpoint.state)
    for _ in range(11):
        careless.update()
    restore_randomness(dict(found.checkpoint.process["random"]))
    for _ in range(11):
        second.update()
    assert second.sha256() == straight.sha256()
    assert careless.sha256() != straight.sha256()


def test_parts_of_other_work_are_refused_by_name() -> None:
    small, large = Training(DemoConfig(width=4)), Training(DemoConfig(width=5))
    with pytest.raises(InputError, match=r"'tensor/weight' is \[5, 5\], this work needs \[4, 4\]"):
        small.load(large.state(0, 1))
    with pytest.raises(InputError, match=r"holds the optimizers \['adam'\], this work has \[\]"):
        small.load(Training(DemoConfig(width=4, optimizer="adam")).state(0, 1))
