"""Finetuning: the velocity error falls, the student opens like any other, a resumed run has its bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.distillation.test_measure import Recording, run
from workbench.distillation import FinetuneConfig, finetune
from workbench.distillation.trajectories import SamplingSettings, TrajectoryCache
from workbench.errors import Diverged, InputError, Paused
from workbench.models import LoadedModel
from workbench.operators import Schedule, parse_rate
from workbench.planning.plan import make_plan
from workbench.surgery import linearize, open_model, restore, save_student
from workbench.types import CheckpointState
from workbench.video import read_mp4, write_mp4
from workbench.workspace import Workspace

SMALL = {"updates": 12, "num_prompts": 2, "num_held_out": 1, "steps": 2, "rank": 2, "lr": 5e-3}


@pytest.fixture
def student(micro_model: LoadedModel, workspace: Workspace) -> Path:
    bank = run(micro_model, workspace, updates=20, rates=("linear",))
    plan = make_plan({0: parse_rate("linear"), 2: parse_rate("linear")}, micro_model.facts)
    return save_student(plan, bank, workspace)


def train(student: Path, workspace: Workspace, reporter: Recording | None = None, **settings: object) -> Path:
    config = FinetuneConfig(model=str(student), **{**SMALL, **settings})  # type: ignore[arg-type]
    model = open_model(student, device="cpu")
    return finetune(model, config, workspace, reporter=reporter or Recording())


def bits(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.safetensors"))]


def test_the_error_falls_and_the_student_opens(student: Path, workspace: Workspace) -> None:
    reporter = Recording()
    folder = train(student, workspace, reporter, updates=60)
    record = json.loads((folder / "finetune.json").read_text(encoding="utf-8"))
    assert record["velocity_error"]["after"]["error"] < record["velocity_error"]["before"]["error"]
    assert len(record["losses"]) == 60 and reporter.metrics[0].keys() == {"loss", "lr", "gradient_norm"}
    model = open_model(folder, device="cpu")
    teacher = open_model(student, device="cpu")
    restore(teacher)
    keys = set(teacher.transformer.state_dict())
    assert set(model.transformer.state_dict()) != keys
    restore(model)
    restored, own = model.transformer.state_dict(), teacher.transformer.state_dict()
    assert set(restored) == keys
    assert all(torch.equal(restored[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("method", ["lora", "maps", "full"])
def test_the_saved_student_is_the_trained_one(student: Path, workspace: Workspace, method: str) -> None:
    config = FinetuneConfig(model=str(student), **{**SMALL, "method": method})  # type: ignore[arg-type]
    trained = open_model(student, device="cpu")
    folder = finetune(trained, config, workspace, reporter=Recording())
    opened, plain = open_model(folder, device="cpu"), open_model(student, device="cpu")
    restore(plain)
    linearize(plain.transformer, folder)
    latents = torch.randn(1, 4, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(1, 16, 16)
    with torch.no_grad():
        first, *others = (
            model.transformer(latents, torch.tensor([500.0]), text, return_dict=False)[0]
            for model in (trained, opened, plain)
        )
    assert all(torch.equal(first, other) for other in others)


def test_diffusers_reads_the_lora_file(student: Path, workspace: Workspace, micro_model: LoadedModel) -> None:
    folder = train(student, workspace)
    micro_model.pipeline.load_lora_weights(str(folder))
    attention = micro_model.transformer.get_submodule("blocks.1.attn1.to_q")
    assert type(attention).__name__ == "Linear" and type(attention).__module__.startswith("peft")
    assert attention.lora_B["default_0"].weight.abs().sum() > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora"},
        {"method": "maps", "accumulate": 2},
        {"method": "full", "lr": 1e-3},
        {"method": "full", "lr": 1e-3, "optimizer": "muon"},
    ],
)
def test_a_resumed_run_is_bit_equal(student: Path, workspace: Workspace, settings: dict[str, object]) -> None:
    whole = train(student, workspace, **settings)
    paused = Recording(pause_after=5)
    with pytest.raises(Paused):
        train(student, workspace, paused, **settings)
    resumed = train(student, workspace, Recording(state=paused.saved), **settings)
    assert bits(whole) == bits(resumed)


@pytest.mark.parametrize("objective", ["teacher", "flow"])
@pytest.mark.parametrize("dense_first", [0, 1])
def test_states_in_one_pass_teach_what_they_teach_one_by_one(
    micro_model: LoadedModel, workspace: Workspace, clips: Path, objective: str, dense_first: int
) -> None:
    settings: dict[str, object] = {"accumulate": 6, "objective": objective, "updates": 2}
    if objective == "flow":
        settings["clips"] = str(clips)
    bank = run(micro_model, workspace, updates=20, rates=("linear",))
    linear, schedule = parse_rate("linear"), Schedule(dense_first=dense_first)
    plan = make_plan({0: linear, 2: linear}, micro_model.facts, schedule=schedule)
    start = save_student(plan, bank, workspace)
    alone, together = Recording(), Recording()
    train(start, workspace, alone, **settings)
    train(start, workspace, together, **settings, batch=4)
    first = [row for row in alone.metrics if "loss" in row]
    second = [row for row in together.metrics if "loss" in row]
    assert len(first) == len(second) == 2
    for ours, theirs in zip(second, first, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_trajectories_sampled_together_are_those_sampled_alone(
    micro_model: LoadedModel, workspace: Workspace, tmp_path: Path
) -> None:
    settings = SamplingSettings(steps=2, guidance=3.0, size=micro_model.facts.default_size)
    prompts = [f"a ball number {index}" for index in range(5)]
    found = []
    for batch, room in ((1, workspace), (3, Workspace.open(tmp_path / "other"))):
        cache = TrajectoryCache(micro_model, room, settings=settings, max_bytes=10**9, batch=batch)
        cache.prepare(prompts[3:4], seed=0, reporter=Recording())
        found.append(cache.prepare(prompts, seed=0, reporter=Recording()))
    for alone, together in zip(*found, strict=True):
        assert alone.prompt == together.prompt and torch.equal(alone.timesteps, together.timesteps)
        assert torch.allclose(alone.latents, together.latents, atol=1e-4)
        assert all(torch.equal(text, together.text[branch]) for branch, text in alone.text.items())


def test_muon_is_for_the_whole_transformer(student: Path, workspace: Workspace) -> None:
    with pytest.raises(InputError, match="Optimizer muon moves the whole transformer's matrices and method"):
        train(student, workspace, method="lora", optimizer="muon")


def test_a_finetuned_student_is_finetuned_further(student: Path, workspace: Workspace) -> None:
    first = train(student, workspace)
    second = train(first, workspace, gradient_checkpointing=True)
    record = json.loads((second / "finetune.json").read_text(encoding="utf-8"))
    before = json.loads((first / "finetune.json").read_text(encoding="utf-8"))
    assert record["velocity_error"]["before"]["error"] == pytest.approx(
        before["velocity_error"]["after"]["error"], rel=1e-4
    )


def test_a_loss_that_is_not_finite_saves_nothing(
    student: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.distillation.lessons import TeacherLesson

    loss = TeacherLesson.loss
    monkeypatch.setattr(TeacherLesson, "loss", lambda self, state: loss(self, state) * float("nan"))
    before = sorted(workspace.folder("students").iterdir())
    with pytest.raises(Diverged, match="update 1"):
        train(student, workspace)
    assert sorted(workspace.folder("students").iterdir()) == before


def test_bad_input_is_refused(student: Path, workspace: Workspace, micro_model: LoadedModel) -> None:
    with pytest.raises(InputError, match="not a student"):
        finetune(
            micro_model,
            FinetuneConfig(model=str(micro_model.folder)),
            workspace,
            reporter=Recording(),
        )
    with pytest.raises(InputError, match="4k"):
        train(student, workspace, frames=8)
    damaged = train(student, workspace)
    lora = damaged / "pytorch_lora_weights.safetensors"
    lora.write_bytes(lora.read_bytes()[:-4])
    with pytest.raises(InputError, match="pytorch_lora_weights"):
        open_model(damaged, device="cpu")


def test_the_whole_transformer_is_finetuned_and_given_back(student: Path, workspace: Workspace) -> None:
    folder = train(student, workspace, method="full", lr=1e-3)
    model, teacher = open_model(folder, device="cpu"), open_model(student, device="cpu")
    restore(teacher)
    name = "blocks.1.ffn.net.2.weight"
    own = teacher.transformer.state_dict()
    assert not torch.equal(model.transformer.state_dict()[name], own[name])
    restore(model)
    restored = model.transformer.state_dict()
    assert set(restored) == set(own) and all(torch.equal(restored[key], own[key]) for key in own)
    again = train(folder, workspace, method="lora")
    assert (again / "transformer.safetensors").read_bytes() == (
        folder / "transformer.safetensors"
    ).read_bytes()


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        write_mp4(folder / f"{index}.mp4", rng.integers(0, 255, (11, 40, 52, 3), dtype=np.uint8), fps=8)
        (folder / f"{index}.txt").write_text(f"clip number {index}", encoding="utf-8")
    return folder


def test_flow_matching_learns_from_a_folder(student: Path, workspace: Workspace, clips: Path) -> None:
    settings = {"objective": "flow", "clips": str(clips), "updates": 60}
    folder = train(student, workspace, **settings)
    record = json.loads((folder / "finetune.json").read_text(encoding="utf-8"))
    assert record["flow_loss"]["after"] < record["flow_loss"]["before"]
    assert len(record["prompts"]) == 4 and record["velocity_error"]["after"]["states"] == 2
    paused = Recording(pause_after=7)
    with pytest.raises(Paused):
        train(student, workspace, paused, **settings)
    assert bits(train(student, workspace, Recording(state=paused.saved), **settings)) == bits(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda clips: (clips / "3.txt").unlink(), "3.txt"),
        (lambda clips: (clips / "3.txt").write_text("  "), "3.txt"),
        (lambda clips: [path.unlink() for path in clips.glob("*.mp4")], ".mp4"),
        (lambda clips: (clips / "3.mp4").write_bytes(b"no video"), "3.mp4"),
        (lambda clips: write_mp4(clips / "3.mp4", np.zeros((3, 40, 52, 3), np.uint8), fps=8), "3 frames"),
    ],
)
def test_clips_that_cannot_be_used_are_named(  # type: ignore[no-untyped-def]
    student: Path, workspace: Workspace, clips: Path, change, named: str
) -> None:
    change(clips)
    with pytest.raises(InputError, match=named):
        train(student, workspace, objective="flow", clips=str(clips))


def test_a_sample_shows_the_present_weights_and_changes_nothing(student: Path, workspace: Workspace) -> None:
    class Sampling(Recording):
        clip: Path | None = None

        def offer_sample(self, make: Callable[[], Path], every: int = 0) -> None:
            self.make = make

        def step(self, step: int, **rest: Any) -> None:
            if "loss" in rest and step == 6:
                self.clip = self.make()
            super().step(step, **rest)

    sampling = Sampling()
    assert bits(train(student, workspace, sampling)) == bits(train(student, workspace))
    assert sampling.clip is not None and read_mp4(sampling.clip).shape == (9, 48, 32, 3)


def test_arithmetic_in_bfloat16_trains_too(student: Path, workspace: Workspace) -> None:
    folder = train(student, workspace, precision="bfloat16", updates=60)
    record = json.loads((folder / "finetune.json").read_text(encoding="utf-8"))
    assert record["velocity_error"]["after"]["error"] < record["velocity_error"]["before"]["error"]


def test_states_of_other_work_are_refused(student: Path, workspace: Workspace) -> None:
    foreign = CheckpointState({}, {"work": "measure"})
    with pytest.raises(InputError, match="checkpoint"):
        train(student, workspace, Recording(state=foreign))
