"""The bank: for every measured cell its distilled feature maps and its errors, in one folder.

    bank.json                        what was measured, on which model, with which errors
    cells/block-03-R4.safetensors    the weights of one cell

A cell's weights are written before `bank.json` names them, so that a bank on disk is always whole. A foreign
bank is believed in nothing: shapes, names, digests and finite values are checked on reading.
Knows how a bank is stored, not how a cell is distilled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor

from workbench.errors import InputError
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.models.facts import Count, ModelFacts
from workbench.operators import OperatorField, OperatorSpec, build, label
from workbench.planning.plan import ModelIdentity, Plan, check_schema_version
from workbench.types import StrictModel
from workbench.workspace import read_json, write_json

SCHEMA_VERSION = 1
FILE = "bank.json"
CELLS = "cells"
MAX_NAMED = 5
SHIPPED = Path(__file__).parent / "banks"
"""Banks that ship with the workbench, by name."""

Scalar = str | int | float | bool | None
Error = Annotated[float, Field(ge=0)]


class TimestepError(StrictModel):
    """Relative error at one timestep of the sampling runs, with its 95 % interval over prompts."""

    timestep: float
    error: Error
    low: Error | None = None
    high: Error | None = None


class Cell(StrictModel):
    """One measured (block, operator spec). Errors are relative L1, |y - y'| / |y|, on held-out prompts.

    Attributes:
        error: of the distilled operator; `error_low` and `error_high` bound its 95 % interval over prompts.
        error_off: with the linear branch switched off (1 for a linear operator: nothing is left).
        error_undistilled: before the first update.
        first_loss: value loss on held-out teacher activations before the first update; `last_loss` after
        the last. losses: (update, training loss) pairs.
        by_timestep: the error by timestep.
        file: weights, relative to the bank; set when the cell is saved, like `sha256`.
    """

    block: Annotated[int, Field(ge=0)]
    spec: OperatorField
    error: Error
    error_low: Error
    error_high: Error
    error_off: Error
    error_undistilled: Error
    first_loss: Error
    last_loss: Error
    updates: Annotated[int, Field(ge=0)]
    seconds: Error
    losses: tuple[tuple[int, float], ...] = ()
    by_timestep: tuple[TimestepError, ...] = ()
    file: str = ""
    sha256: str = ""

    @property
    def label(self) -> str:
        return label(self.spec)

    @property
    def key(self) -> tuple[int, str]:
        return self.block, self.label


class BankManifest(StrictModel):
    """The content of `bank.json`.

    Attributes:
        model: facts of the model that was measured, with its fingerprint.
        size: clip size in pixels of the measured runs.
        provenance: how it was measured: prompts, steps, seed, versions.
    """

    schema_version: int = SCHEMA_VERSION
    model: ModelFacts
    size: tuple[Count, Count, Count]
    cells: tuple[Cell, ...] = ()
    provenance: dict[str, Scalar | list[Scalar] | dict[str, Scalar]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _cells_fit(self) -> BankManifest:
        keys = [cell.key for cell in self.cells]
        for cell in self.cells:
            if cell.block >= self.model.num_blocks:
                raise ValueError(
                    f"block {cell.block} is above the {self.model.num_blocks} blocks of the model"
                )
            if keys.count(cell.key) > 1:
                raise ValueError(f"block {cell.block} {cell.label} is listed twice")
            if Path(cell.file).name != cell.file or not cell.file.endswith(".safetensors"):
                raise ValueError(f"block {cell.block} {cell.label} names the file {cell.file[:80]!r}")
        return self


@dataclass(frozen=True)
class Bank:
    """A bank that was read and checked; weights are read cell by cell when asked for."""

    folder: Path
    manifest: BankManifest

    @cached_property
    def cells(self) -> dict[tuple[int, str], Cell]:
        """Every measured cell by (block, label)."""
        return {cell.key: cell for cell in self.manifest.cells}

    @property
    def facts(self) -> ModelFacts:
        return self.manifest.model

    @property
    def model_fingerprint(self) -> str:
        return self.manifest.model.fingerprint

    @property
    def model(self) -> ModelIdentity:
        """Which model was measured."""
        return ModelIdentity.of(self.facts)

    def check_model(self, facts: ModelFacts) -> None:
        """Refuse a model other than the measured one.

        Raises:
            InputError: names both.
        """
        self.model.check(facts, what=f"Bank {self.folder.name}")

    def missing(self, plan: Plan) -> tuple[tuple[int, str], ...]:
        """Return the cells that a plan needs and the bank does not hold."""
        wanted = [(block, label(spec)) for block, spec in plan.converted.items() if spec.needs_training]
        return tuple(key for key in wanted if key not in self.cells)

    def check_complete(self, plan: Plan) -> None:
        """Refuse a plan over cells that were not measured.

        Raises:
            InputError: names the missing cells.
        """
        missing = self.missing(plan)
        if missing:
            named = ", ".join(f"block {block} {name}" for block, name in missing[:MAX_NAMED])
            more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
            raise InputError(
                f"Bank {self.folder.name} lacks {len(missing)} of the cells of this plan: {named}{more}; "
                f"measure them first{_duration(self.measuring_seconds(len(missing)))}."
            )

    def measuring_seconds(self, num_cells: int) -> float | None:
        """Estimate how long measuring so many cells would take, from how long this bank's own took.

        None where the bank does not say.
        """
        own = self.manifest.provenance.get("seconds_per_cell")
        if isinstance(own, int | float) and own > 0:
            return num_cells * float(own)
        seconds = [cell.seconds for cell in self.manifest.cells if cell.seconds > 0]
        return num_cells * sum(seconds) / len(seconds) if seconds else None

    def cell(self, block: int, spec: OperatorSpec) -> Cell:
        """Return a measured cell.

        Raises:
            InputError: it was not measured.
        """
        found = self.cells.get((block, label(spec)))
        if found is None:
            raise InputError(
                f"Block {block} {label(spec)} is not in bank {self.folder.name}; measure it first."
            )
        return found

    def weights(self, block: int, spec: OperatorSpec) -> dict[str, Tensor]:
        """Return the feature-map weights of a cell, by name inside the operator; bit-equal to what was saved.

        Raises:
            InputError: not measured, or the file is missing, cut, changed, foreign or not finite.
        """
        cell = self.cell(block, spec)
        what = f"bank {self.folder.name}: {cell.file}"
        path = self.folder / CELLS / cell.file
        tensors = load_tensors(path, expected=expected_weights(cell.spec, self.facts), what=what)
        if file_digest(path) != cell.sha256:
            raise InputError(f"{what} is not the file that was saved (its sha256 differs); measure it again.")
        return tensors


def load_bank(path: Path, facts: ModelFacts | None = None) -> Bank:
    """Read a bank folder strictly.

    Args:
        path: the folder, its bank.json, or the name of a bank that ships with the workbench.
        facts: of the model it is wanted for; None skips that check.

    Raises:
        InputError: no bank, damaged, of a newer version, files missing, or for another model.
    """
    folder = bank_folder(path)
    what = f"bank {folder.name}"
    if not (folder / FILE).is_file():
        raise InputError(
            f"{folder.name!r} is not a bank ({FILE} is missing); measure cells first or check the path."
        )
    data = read_json(folder / FILE, what=what)
    check_schema_version(data, SCHEMA_VERSION, what=what)
    bank = Bank(folder, BankManifest.parse(data, what=what))
    for cell in bank.manifest.cells:
        if not (folder / CELLS / cell.file).is_file():
            raise InputError(f"{what} names {cell.file}, which is missing; measure block {cell.block} again.")
    if facts is not None:
        bank.check_model(facts)
    return bank


def bank_folder(path: Path | str) -> Path:
    """Return the folder of a bank: as given, or of the one of that name that ships with the workbench."""
    path = Path(path)
    if path.name == FILE:
        return path.parent
    shipped = SHIPPED / path
    return shipped if len(path.parts) == 1 and not path.exists() and shipped.is_dir() else path


class BankWriter:
    """Writes a bank cell by cell; after every call the folder is a whole bank."""

    def __init__(self, folder: Path, manifest: BankManifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def create(
        cls,
        folder: Path,
        facts: ModelFacts,
        *,
        size: tuple[int, int, int],
        provenance: Mapping[str, Scalar | list[Scalar] | dict[str, Scalar]] | None = None,
    ) -> BankWriter:
        """Start an empty bank in a folder, which is made if it is absent.

        Raises:
            InputError: a bank is there already, or the folder cannot be written.
        """
        if (folder / FILE).exists():
            raise InputError(f"{folder.name!r} holds a bank already; extend it or choose another name.")
        writer = cls(
            folder,
            BankManifest(model=facts, size=(size[0], size[1], size[2]), provenance=dict(provenance or {})),
        )
        writer._write_manifest()
        return writer

    @classmethod
    def open(cls, folder: Path, facts: ModelFacts) -> BankWriter:
        """Go on with an existing bank of the same model.

        Raises:
            InputError: as `load_bank`.
        """
        return cls(folder, load_bank(folder, facts).manifest)

    def save_cell(self, cell: Cell, weights: Mapping[str, Tensor]) -> Cell:
        """Add a cell, or replace the one of the same block and label.

        Args:
            cell: without `file` and `sha256`, which are set here.
            weights: state dict of the operator.

        Returns:
            The cell as stored.

        Raises:
            Diverged: a weight is not finite; the bank keeps what it had.
            InputError: the disk is full, or the weights do not fit the spec.
        """
        wanted = expected_weights(cell.spec, self.manifest.model)
        if {name: tuple(tensor.shape) for name, tensor in weights.items()} != wanted:
            raise InputError(f"The weights of block {cell.block} {cell.label} do not fit its operator.")
        old = next((known for known in self.manifest.cells if known.key == cell.key), None)
        name = _file_name(cell, previous=old.file if old else "")
        (self.folder / CELLS).mkdir(parents=True, exist_ok=True)
        path = self.folder / CELLS / name
        save_tensors(path, weights)
        stored = cell.model_copy(update={"file": name, "sha256": file_digest(path)})
        others = [known for known in self.manifest.cells if known.key != cell.key]
        ordered = sorted([*others, stored], key=lambda known: known.key)
        self.manifest = self.manifest.model_copy(update={"cells": tuple(ordered)})
        self._write_manifest()
        if old is not None:
            (self.folder / CELLS / old.file).unlink(missing_ok=True)
        return stored

    def merge(self, other: Bank) -> tuple[Cell, ...]:
        """Take over the cells of another bank of the same model that this one lacks.

        Returns:
            The cells taken over.

        Raises:
            InputError: the other bank is of another model, or one of its files is damaged.
        """
        other.check_model(self.manifest.model)
        if other.manifest.size != self.manifest.size:
            raise InputError(
                f"Bank {other.folder.name} was measured at {_size(other.manifest.size)} and this one at "
                f"{_size(self.manifest.size)}, so that their errors cannot be compared; measure at one size."
            )
        known = {cell.key for cell in self.manifest.cells}
        taken = [cell for cell in other.manifest.cells if cell.key not in known]
        return tuple(self.save_cell(cell, other.weights(cell.block, cell.spec)) for cell in taken)

    def _write_manifest(self) -> None:
        write_json(self.folder / FILE, json.loads(self.manifest.model_dump_json()), compact=True)


def merge_banks(banks: Sequence[Bank], folder: Path) -> Bank:
    """Write a bank with the cells of several banks of one model; of a cell in several the first is taken.

    Raises:
        InputError: banks of different models or sizes, or a damaged one.
    """
    first = banks[0]
    for other in banks[1:]:
        other.check_model(first.facts)
    names: list[Scalar] = [bank.folder.name for bank in banks]
    provenance = {**first.manifest.provenance, "merged": names}
    writer = BankWriter.create(folder, first.facts, size=first.manifest.size, provenance=provenance)
    for bank in banks:
        writer.merge(bank)
    return load_bank(folder)


def expected_weights(spec: OperatorSpec, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the weights of a cell."""
    return {name: tuple(tensor.shape) for name, tensor in build(spec, facts).state_dict().items()}


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(size: tuple[int, int, int]) -> str:
    return "×".join(map(str, size))


def _duration(seconds: float | None) -> str:
    """Return how long as a clause; estimates are said to be such."""
    if seconds is None:
        return ""
    shown = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    return f", about {shown} (estimated from this bank)"


def _file_name(cell: Cell, *, previous: str) -> str:
    name = f"block-{cell.block:02d}-{cell.label}"
    return f"{name}.safetensors" if previous != f"{name}.safetensors" else f"{name}.again.safetensors"
