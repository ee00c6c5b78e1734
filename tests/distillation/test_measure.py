"""Measuring: losses fall, errors beat a switched-off branch, a resumed run has the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from workbench.distillation import MeasureConfig, measure
from workbench.distillation.cells import CellTrainer
from workbench.distillation.ship import halve
from workbench.errors import InputError, Paused
from workbench.models import LoadedModel
from workbench.planning import parse_assign
from workbench.planning.bank import Bank, load_bank
from workbench.surgery import install, installed
from workbench.types import CheckpointState, SilentReporter
from workbench.workspace import Workspace

SMALL = {
    "blocks": (0, 2),
    "rates": ("R4", "linear"),
    "updates": 60,
    "updates_per_state": 4,
    "steps": 2,
    "num_prompts": 2,
}


class Recording(SilentReporter):
    """Keeps metrics and notes; pauses after a visit, and hands out a state, if told to."""

    def __init__(self, *, pause_after: int | None = None, state: CheckpointState | None = None) -> None:
        self.pause_after = pause_after
        self.saved = state
        self.metrics: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.stages: list[str] = []

    def stage(self, name: str, steps: int) -> None:
        self.stages.append(name)

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        if metrics:
            self.metrics.append(metrics)
        if state is not None and step == self.pause_after:
            self.saved = state()
            raise Paused("paused")

    def restore(self) -> CheckpointState | None:
        return self.saved

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(
    model: LoadedModel, workspace: Workspace, reporter: Recording | None = None, **settings: object
) -> Bank:
    config = MeasureConfig(**{**SMALL, "num_held_out": 2, "queries": 32, **settings})  # type: ignore[arg-type]
    return load_bank(measure(model, config, workspace, reporter=reporter or Recording()), model.facts)


def weights(bank: Bank) -> dict[str, torch.Tensor]:
    return {
        f"{cell.block}.{cell.label}.{name}": tensor
        for cell in bank.manifest.cells
        for name, tensor in bank.weights(cell.block, cell.spec).items()
    }


def test_losses_fall_and_errors_beat_the_switched_off_branch(
    micro_model: LoadedModel, workspace: Workspace
) -> None:
    reporter = Recording()
    before = {name: tensor.clone() for name, tensor in micro_model.transformer.state_dict().items()}
    bank = run(micro_model, workspace, reporter, updates=120)
    assert set(bank.cells) == {(block, label) for block in (0, 2) for label in ("R4", "linear")}
    for cell in bank.manifest.cells:
        assert cell.last_loss < cell.first_loss
        assert cell.error < min(cell.error_off, cell.error_undistilled)
        assert cell.error_low <= cell.error <= cell.error_high
        assert cell.updates == 120 and len(cell.by_timestep) == 2
        assert all(each.low <= each.error <= each.high for each in cell.by_timestep)
        assert cell.losses[0][1] > cell.losses[-1][1]
    assert set(reporter.metrics[0]) == {"block-00-R4", "block-00-linear", "block-02-R4", "block-02-linear"}
    after = micro_model.transformer.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("pause_after", [1, 9])
def test_a_resumed_run_is_bit_equal(micro_model: LoadedModel, workspace: Workspace, pause_after: int) -> None:
    whole = run(micro_model, workspace)
    paused = Recording(pause_after=pause_after)
    with pytest.raises(Paused):
        run(micro_model, workspace, paused)
    resumed = run(micro_model, workspace, Recording(state=paused.saved))
    expected = weights(whole)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(resumed).items())
    for cell, again in zip(whole.manifest.cells, resumed.manifest.cells, strict=True):
        assert cell.losses == again.losses and cell.error == again.error


def test_the_number_of_workers_changes_nothing(micro_model: LoadedModel, workspace: Workspace) -> None:
    alone = weights(run(micro_model, workspace))
    torch.set_num_threads(2)
    try:
        together = weights(run(micro_model, workspace))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_cell_that_gains_no_more_stops_early(micro_model: LoadedModel, workspace: Workspace) -> None:
    settings = {"patience": 10, "lr": 1e-6, "updates": 200, "updates_per_state": 1}
    reporter = Recording()
    bank = run(micro_model, workspace, reporter, **settings)
    assert all(cell.updates < 200 for cell in bank.manifest.cells)
    assert [note for note in reporter.notes if "No cell gains" in note]
    paused = Recording(pause_after=5)
    with pytest.raises(Paused):
        run(micro_model, workspace, paused, **settings)
    again = run(micro_model, workspace, Recording(state=paused.saved), **settings)
    assert all(torch.equal(weights(bank)[name], tensor) for name, tensor in weights(again).items())


def test_a_foreign_state_is_refused(micro_model: LoadedModel, workspace: Workspace) -> None:
    paused = Recording(pause_after=1)
    with pytest.raises(Paused):
        run(micro_model, workspace, paused)
    with pytest.raises(InputError, match="other cells"):
        run(micro_model, workspace, Recording(state=paused.saved), rates=("R2",))


def test_trajectories_are_sampled_once(micro_model: LoadedModel, workspace: Workspace) -> None:
    run(micro_model, workspace)
    files = {path: path.stat().st_ino for path in workspace.folder("cache").iterdir()}
    run(micro_model, workspace, blocks=(1,))
    assert {path: path.stat().st_ino for path in workspace.folder("cache").iterdir()} == files


def test_a_cell_that_diverges_keeps_its_last_good_weights(
    micro_model: LoadedModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = CellTrainer.loss

    def poisoned(self, attention, *, rows=slice(None)):  # type: ignore[no-untyped-def]
        found = loss(self, attention, rows=rows)
        return found * float("nan") if self.name == "block-02-R4" and self.num_updates == 20 else found

    monkeypatch.setattr(CellTrainer, "loss", poisoned)
    reporter = Recording()
    bank = run(micro_model, workspace, reporter)
    assert {cell.key: cell.updates for cell in bank.manifest.cells} == {
        (0, "R4"): 60, (0, "linear"): 60, (2, "R4"): 20, (2, "linear"): 60,
    }  # fmt: skip
    assert all(torch.isfinite(tensor).all() for tensor in weights(bank).values())
    assert [note for note in reporter.notes if "block-02-R4 stopped at update 20" in note]


def test_a_bank_is_extended(micro_model: LoadedModel, workspace: Workspace) -> None:
    first = run(micro_model, workspace, updates=8)
    second = run(micro_model, workspace, updates=8, rates=("R2",), extend=str(first.folder))
    assert len(second.cells) == 6
    both = weights(second)
    assert all(torch.equal(both[name], tensor) for name, tensor in weights(first).items())


@pytest.mark.parametrize("loss", ["value-normalised", "mse", "mse-normalised", "score"])
def test_every_loss_lowers_the_error(micro_model: LoadedModel, workspace: Workspace, loss: str) -> None:
    bank = run(micro_model, workspace, loss=loss, rates=("R4",), blocks=(0,), updates=60)
    cell = bank.manifest.cells[0]
    assert cell.error < cell.error_undistilled


def test_rehyat_is_distilled_too(micro_model: LoadedModel, workspace: Workspace) -> None:
    bank = run(micro_model, workspace, rates=("T1o0",), blocks=(0,), updates=60)
    cell = bank.manifest.cells[0]
    assert cell.label == "T1o0" and cell.error < cell.error_off


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"blocks": (0, 99)}, "Block 99"),
        ({"blocks": ()}, "No block"),
        ({"rates": ("R0",)}, "R0"),
        ({"rates": ("softmax",)}, "softmax"),
        ({"rates": ("R25",)}, "R25"),
        ({"rates": ("T1o0",), "loss": "score"}, "score"),
        ({"prompts": (" ",)}, "prompt is empty"),
        ({"prompts": ("a red ball",), "held_out_prompts": ("a red ball",)}, "held out"),
        ({"cache_megabytes": 1, "steps": 1000, "num_prompts": 8}, "cache_megabytes"),
        ({"extend": "/nowhere"}, "nowhere"),
        ({"frames": 8}, "4k"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    micro_model: LoadedModel, workspace: Workspace, settings: dict[str, object], named: str
) -> None:
    reporter = Recording()
    with pytest.raises(InputError, match=named):
        run(micro_model, workspace, reporter, **settings)
    assert not reporter.stages and not list(workspace.folder("banks").iterdir())


def test_a_damaged_trajectory_is_sampled_again(micro_model: LoadedModel, workspace: Workspace) -> None:
    first = run(micro_model, workspace)
    path: Path = sorted(workspace.folder("cache").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert all(torch.equal(weights(first)[n], t) for n, t in weights(run(micro_model, workspace)).items())


def test_a_bank_ships_in_half_precision_with_the_errors_of_what_is_reloaded(
    micro_model: LoadedModel, workspace: Workspace, tmp_path: Path
) -> None:
    bank = run(micro_model, workspace)
    settings = {**SMALL, "num_held_out": 2, "queries": 32}
    config = MeasureConfig(**settings)  # type: ignore[arg-type]
    shipped = halve(bank, tmp_path / "shipped", micro_model, config, workspace, reporter=Recording())
    sizes = [
        sum(path.stat().st_size for path in one.folder.rglob("*.safetensors")) for one in (shipped, bank)
    ]
    assert set(shipped.cells) == set(bank.cells) and sizes[0] < 0.6 * sizes[1]
    for key, cell in bank.cells.items():
        halved = shipped.cells[key]
        assert halved.error == pytest.approx(cell.error, rel=0.05) and halved.error != cell.error
        assert (halved.error_off, halved.losses) == (cell.error_off, cell.losses)
    plan = parse_assign("0:R4,2:linear", micro_model.facts)
    install(micro_model, plan, shipped)
    assert installed(micro_model) is not None
