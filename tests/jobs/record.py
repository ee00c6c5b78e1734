"""Run the full matrices of the jobs and write what they counted to docs/results/reliability.json.

python -m tests.jobs.record              those not recorded for this code; can be cut and repeated
python -m tests.jobs.record save_kills   one, in any case; the others keep their recorded results
python -m tests.jobs.record --list       what is recorded, what is not, and the minutes each took last
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.jobs import matrices, random_blows
from tests.jobs.test_tensors import fuzz
from tests.test_workspace import fuzz_configs
from workbench.workspace import read_json, write_json

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "docs" / "results" / "reliability.json"
SOURCES = (
    "workbench/jobs/*.py", "workbench/worker.py", "workbench/workspace.py",
    "tests/jobs/demo.py", "tests/jobs/matrices.py", "tests/jobs/random_blows.py",
)  # fmt: skip


def stage_kills(folder: Path, *, repeats: int = 5) -> dict[str, Any]:
    """Kill worker, app and both at each of the twelve stages, several times each."""
    wrong: list[str] = []
    truths: list[float] = []
    for stage in matrices.STAGES:
        for target in ("worker", "app", "both"):
            for repeat in range(repeats):
                seen = matrices.stage_kill(folder / f"{stage}-{target}-{repeat}", stage, target=target)
                expected = ("cancelled", 0) if stage == "stopping" else ("done", 1)
                truths.append(seen.seconds_to_truth)
                if (seen.state, seen.artefacts) != expected or not seen.exact or seen.twice:
                    wrong.append(str(seen))
    return {
        "runs": len(truths),
        "wrong": wrong,
        "seconds_until_no_dead_job_says_running": {
            "p95": round(sorted(truths)[int(0.95 * len(truths))], 2),
            "max": round(max(truths), 2),
        },
    }


def _random_steps(count: int) -> tuple[int, ...]:
    return tuple(random.Random(3).sample(range(2, 41), count))


MATRICES: dict[str, Callable[[Path], Any]] = {
    "save_kills": lambda folder: matrices.save_kills(folder, repeats=200),
    "concurrent_claims": lambda folder: matrices.concurrent_claims(folder, jobs=10_000),
    "fuzzed_headers": lambda folder: fuzz(folder, rounds=10_000, seed=1),
    "fuzzed_configs": lambda _: fuzz_configs(rounds=10_000, seed=1),
    "resume_exact": lambda folder: matrices.resume_exact(folder, stops=tuple(range(1, 41))),
    "full_disk": lambda folder: matrices.full_disk(
        folder, free_megabytes=tuple(round(0.65 * point, 2) for point in range(20))
    ),
    "not_a_number": lambda folder: matrices.not_a_number(folder, steps=_random_steps(20)),
    "cancel_latency_seconds": lambda folder: matrices.cancel_latency(folder, repeats=100),
    "out_of_memory": matrices.out_of_memory,
    "random_blows": lambda folder: random_blows.chaos(folder, jobs=10, blows=100, seed=1),
    "stage_kills": stage_kills,
    "soak": lambda folder: matrices.soak(folder, jobs=500),
}


def main(words: list[str]) -> None:
    """Run the named matrices, or all that are not recorded for this code; write each result at once."""
    if words == ["--list"]:
        sys.stdout.write("".join(f"{line}\n" for line in _listed()))
        return
    unknown = [word for word in words if word not in MATRICES]
    if unknown:
        sys.exit(f"There is no matrix {unknown[0]!r}; name some of {', '.join(MATRICES)}, or --list.")
    os.nice(5)
    for name in words or [name for name in MATRICES if not _is_recorded(name)]:
        sources = sources_sha256()
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            result = MATRICES[name](Path(folder))
            seconds = round(time.monotonic() - begun, 1)
        recorded = _recorded()
        recorded[name] = {
            "result": json.loads(json.dumps(result)),
            "seconds": seconds,
            "load_average": round(os.getloadavg()[0], 1),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python -m tests.jobs.record {name}",
            "sources_sha256": sources,
            "hardware": hardware(),
            "versions": {package: version(package) for package in ("torch", "safetensors", "filelock")}
            | {"python": platform.python_version()},
        }
        write_json(RESULTS, {"results": recorded})
        sys.stderr.write(f"{name}: {json.dumps(result)} ({seconds} s)\n")


def sources_sha256() -> str:
    """Return a digest of the code that the results depend on."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(CHECKOUT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _recorded() -> dict[str, Any]:
    return dict(read_json(RESULTS, what=RESULTS.name)["results"]) if RESULTS.exists() else {}


def _is_recorded(name: str) -> bool:
    return bool(_recorded().get(name, {}).get("sources_sha256") == sources_sha256())


def _listed() -> list[str]:
    lines = []
    for name in MATRICES:
        entry = _recorded().get(name)
        state = "not recorded" if entry is None else "recorded" if _is_recorded(name) else "of other code"
        took = "" if entry is None else f"{entry['seconds'] / 60:6.1f} min  {entry['date'][:10]}"
        lines.append(f"{name:<24} {state:<14} {took}")
    return lines


def hardware() -> str:
    """Return the processor and the memory of this machine in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 1e9
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GB"


if __name__ == "__main__":
    main(sys.argv[1:])
