"""The result file of one experiment: rewritten after every condition, read again by a run that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kernels.benchmarks.measuring import hardware, versions
from workbench.errors import InputError
from workbench.workspace import read_json, write_json

SCHEMA_VERSION = 1
Row = dict[str, Any]


@dataclass
class Results:
    """Rows of one experiment under one setting.

    Attributes:
        path: where they are kept.
        head: what was asked and how; a file with another head is not gone on with.
        origin: hardware, versions, command and date of the run that wrote last.
        order: names of all conditions, in the order in which they are told.
        rows: every row names its condition.
        conclusions: what follows from the rows, filled when all are there.
    """

    path: Path
    head: Row
    origin: Row
    order: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    conclusions: Row = field(default_factory=dict)

    @classmethod
    def open(
        cls, path: Path, *, head: Mapping[str, Any], origin: Mapping[str, Any], order: Sequence[str]
    ) -> Results:
        """Start a file, or go on with the one that is there.

        Raises:
            InputError: the file there is of other settings or weights, or damaged.
        """
        results = cls(path, {"schema_version": SCHEMA_VERSION, **head}, dict(origin), order)
        if not path.exists():
            return results
        found = read_json(path, what=path.name)
        differing = [name for name, value in results.head.items() if found.get(name) != value]
        if differing:
            raise InputError(
                f"{path.name} was measured with another {differing[0]}; "
                "choose another --out, or start over with --again."
            )
        results.rows = [row for row in found.get("rows", []) if "failed" not in row]
        return results

    def done(self, condition: str) -> bool:
        """Return whether a condition was measured."""
        return any(row["condition"] == condition for row in self.rows)

    def add(self, condition: str, rows: Sequence[Row], *, seconds: float) -> None:
        """Keep the rows of a condition."""
        self.rows += [{"condition": condition, **row, "seconds": round(seconds, 2)} for row in rows]
        self.write()

    def fail(self, condition: str, reason: str) -> None:
        """Keep that a condition could not be measured; it is tried again by the next run."""
        self.rows.append({"condition": condition, "failed": reason})
        self.write()

    def finish(self, conclusions: Mapping[str, Any]) -> None:
        """Write what follows from the rows."""
        self.conclusions = dict(conclusions)
        self.write()

    def write(self) -> None:
        """Write the file: the old content or the new, never a mix; it says what it lacks."""
        place = {name: index for index, name in enumerate(self.order)}
        self.rows.sort(key=lambda row: place[row["condition"]])
        body = {"missing": self.missing, "conclusions": self.conclusions, "rows": self.rows}
        write_json(self.path, {**self.head, **self.origin, **body})

    @property
    def missing(self) -> list[str]:
        """Conditions that are not measured yet, or could not be."""
        there = {row["condition"] for row in self.rows if "failed" not in row}
        return [name for name in self.order if name not in there]


def origin_of(device: torch.device, *, command: str, workers: int) -> Row:
    """Return hardware, versions, command and date of this run."""
    packages = {name: version(name) for name in ("diffusers", "transformers", "peft")}
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware(device), "workers": workers},
        "versions": {**versions(), **packages},
    }
