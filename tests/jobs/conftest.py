"""Fixtures of the jobs' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.harness import a_queue
from workbench.jobs import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue in a fresh workspace whose workers know the demo step and save at every step."""
    with a_queue(tmp_path / "work space é") as opened:
        yield opened
