"""A job's metrics: lines of JSON that are only ever appended. A reader keeps a cursor and takes what is new.

Rows hold `stage`, `step`, `done` (steps over all stages), `seconds` and the metrics. Rows with `event` tell
what happened: note, saved, resumed, sample, interrupted, disk full. After a crash, steps may appear again:
"resumed" says from where.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

FILE_NAME = "metrics.jsonl"
CHUNK_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 64 * 1024


class NewRows(NamedTuple):
    """Rows since a cursor, and the cursor to ask with next time."""

    rows: list[dict[str, Any]]
    next: int


class MetricsWriter:
    """Appends rows; a full disk loses rows, never the work."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(
            folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self.lost_rows = 0
        self._mend()

    def append(self, row: dict[str, Any]) -> None:
        """Append one row; numbers that are not finite become null."""
        plain = {name: _finite(value) for name, value in row.items()}
        line = (json.dumps(plain, separators=(",", ":"), ensure_ascii=False) + "\n").encode(
            "utf-8", "replace"
        )
        try:
            if os.write(self._descriptor, line) != len(line):
                self._mend()
                self.lost_rows += 1
        except OSError:
            self.lost_rows += 1

    def _mend(self) -> None:
        """End a line that a killed writer, or a full disk, left open."""
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            try:
                os.write(self._descriptor, b"\n")
            except OSError:
                self.lost_rows += 1

    def close(self) -> None:
        os.close(self._descriptor)


def read_metrics(folder: Path, *, after: int = 0) -> NewRows:
    """Return the whole rows behind the cursor `after` (0: from the start), at most about 4 MB of them."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            file.seek(max(0, after))
            chunk = file.read(CHUNK_BYTES)
    except FileNotFoundError:
        return NewRows([], 0)
    end = chunk.rfind(b"\n") + 1
    return NewRows([row for line in chunk[:end].splitlines() if (row := _parse(line))], max(0, after) + end)


def last_row(folder: Path) -> dict[str, Any] | None:
    """Return the last row that reports a step, None without one."""
    return next((row for row in _latest_first(folder) if "done" in row and "event" not in row), None)


def seconds_per_step(folder: Path, stage: str) -> float | None:
    """Return the pace of the latest steps of a stage, None where fewer than two are known."""
    steps = []
    for row in _latest_first(folder):
        if row.get("event") == "resumed" or row.get("stage", stage) != stage:
            break
        if "event" not in row and {"step", "seconds"} <= set(row):
            steps.append(row)
    if len(steps) < 2 or steps[0]["step"] <= steps[-1]["step"]:
        return None
    seconds: float = steps[0]["seconds"] - steps[-1]["seconds"]
    return seconds / (steps[0]["step"] - steps[-1]["step"])


def _latest_first(folder: Path) -> list[dict[str, Any]]:
    try:
        with (folder / FILE_NAME).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return [_parse(line) for line in reversed(file.read().splitlines())]
    except FileNotFoundError:
        return []


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
