"""The full matrices, minutes each: not in the ordinary run; `python -m tests.jobs.record` keeps results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.record import MATRICES

pytestmark = pytest.mark.slow


def test_two_hundred_kills_while_saving(tmp_path: Path) -> None:
    counts = MATRICES["save_kills"](tmp_path)
    assert (counts["kills"], counts["lost"], counts["damaged"]) == (200, 0, 0)


def test_ten_thousand_claims(tmp_path: Path) -> None:
    assert MATRICES["concurrent_claims"](tmp_path) == {"claims": 10_000, "double": 0, "once": 10_000}


def test_ten_thousand_fuzzed_headers_and_configs(tmp_path: Path) -> None:
    counts = MATRICES["fuzzed_headers"](tmp_path)
    assert counts["slowest"] < 10.0
    assert counts["grown_megabytes"] < 200
    assert sum(MATRICES["fuzzed_configs"](tmp_path).values()) == 10_000


def test_a_stop_at_every_step(tmp_path: Path) -> None:
    result = MATRICES["resume_exact"](tmp_path)
    assert result == {"stops": 40, "differing": [], "without_random_state_differs": True}


def test_a_full_disk_at_twenty_points(tmp_path: Path) -> None:
    assert MATRICES["full_disk"](tmp_path / "disk")["wrong"] == []


def test_not_a_number_at_random_steps(tmp_path: Path) -> None:
    assert MATRICES["not_a_number"](tmp_path) == {"runs": 20, "wrong": []}


def test_a_hundred_cancels(tmp_path: Path) -> None:
    assert MATRICES["cancel_latency_seconds"](tmp_path)["p95"] < 10.0


def test_a_hundred_and_eighty_kills(tmp_path: Path) -> None:
    result = MATRICES["stage_kills"](tmp_path)
    assert (result["runs"], result["wrong"]) == (180, [])


def test_out_of_memory_in_each_way(tmp_path: Path) -> None:
    states = MATRICES["out_of_memory"](tmp_path)
    assert states == {"limit": "oom", "cuda": "oom", "killed for memory": "oom", "the next job": "done"}


def test_a_hundred_random_blows(tmp_path: Path) -> None:
    counts = MATRICES["random_blows"](tmp_path)
    assert (counts["exact"], counts["twice"], counts["litter"]) == (10, False, 0), counts


def test_five_hundred_tiny_jobs(tmp_path: Path) -> None:
    result = MATRICES["soak"](tmp_path)
    assert (result["done"], result["twice"], result["litter"]) == (500, False, 0)
    assert result["rss_growth"] < 0.05
    assert result["more_files"] <= 2
