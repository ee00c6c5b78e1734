"""What a suite says: means with intervals, paired differences, noise floors, a table, a sheet, the clips.

Prompts are the units of every interval: the seeds of a prompt are averaged first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from workbench.evaluation.adherence import ATTRIBUTES
from workbench.evaluation.clip_cache import CachedClip, ClipCache, points_of
from workbench.evaluation.measures import CLIP_MEASURES, PAIR_MEASURES
from workbench.evaluation.sheets import save_sheet, strip
from workbench.evaluation.statistics import (
    bootstrap_interval,
    paired_bootstrap,
    paired_ratio,
    wilson_interval,
)
from workbench.evaluation.suite_config import Asked, Floor, Run, SuiteConfig
from workbench.evaluation.suite_table import table
from workbench.evaluation.temporal import STILL
from workbench.video import write_mp4
from workbench.workspace import Workspace, read_json, write_json

SUITE = "suite.json"
TABLE = "table.md"
SHEET = "sheet.png"
CLIPS = "clips"
SHEET_PROMPTS = 16


@dataclass(frozen=True)
class SuiteRecord:
    """Everything that a finished suite measured.

    Attributes:
        results: By `Run.key`: file, seconds, measures, verdicts, and for all but the reference's own clips
            the pair and its divergence.
        models: By index (and "0p" for the reference in another precision): name, fingerprint, dtype, …
    """

    config: SuiteConfig
    asked: list[Asked]
    runs: list[Run]
    results: Mapping[str, dict[str, Any]]
    models: Mapping[str, dict[str, Any]]
    cache: ClipCache

    def select(self, model: int, floor: Floor | None = None) -> list[Run]:
        """Return the runs of a model, or of a noise floor."""
        return [run for run in self.runs if run.model == model and run.floor == floor]

    def by_prompt(self, runs: Sequence[Run], read: Callable[[dict[str, Any]], float | None]) -> list[float]:
        """Return one value a prompt, the mean over its seeds; prompts without a value are left out."""
        found: dict[int, list[float]] = {}
        for run in runs:
            value = read(self.results[run.key])
            if value is not None:
                found.setdefault(run.prompt, []).append(value)
        return [float(np.mean(values)) for _, values in sorted(found.items())]


def load_suite(folder: Path) -> dict[str, Any]:
    """Return the result of a suite as JSON data.

    Raises:
        InputError: no suite, or a damaged one.
    """
    return read_json(folder / SUITE, what=f"suite {folder.name}")


def write_suite(record: SuiteRecord, workspace: Workspace) -> Path:
    """Write a suite's folder: suite.json, table.md, sheet.png, clips/*.mp4; returns it."""
    document = summary(record)
    with workspace.new_folder("evaluations", name="suite") as folder:
        (folder.path / CLIPS).mkdir()
        strips: dict[str, np.ndarray] = {}
        for run in record.runs:
            clip = _clip(record, run)
            if clip is None or run.floor is not None:
                continue
            fps = int(record.models[str(run.model)]["fps"])
            write_mp4(folder.path / CLIPS / f"{run.key}.mp4", clip.frames, fps=fps)
            if run.seed == record.config.seeds[0] and run.prompt < SHEET_PROMPTS:
                strips[run.key] = strip(clip.frames)
        shown = range(min(SHEET_PROMPTS, len(record.asked)))
        seed = record.config.seeds[0]
        rows = [[strips.get(Run(m, p, seed).key) for m in range(len(record.config.models))] for p in shown]
        names = [model["name"] for model in document["models"]]
        save_sheet(
            folder.path / SHEET,
            [[image for image in row if image is not None] for row in rows],
            titles=[record.asked[prompt].prompt for prompt in shown],
            heads=names,
        )
        (folder.path / TABLE).write_text(table(document), encoding="utf-8")
        write_json(folder.path / SUITE, document)
    return folder.final


def _clip(record: SuiteRecord, run: Run) -> CachedClip | None:
    return record.cache.load(Path(record.results[run.key]["file"]))


def summary(record: SuiteRecord) -> dict[str, Any]:
    """Return the figures of a suite as JSON data."""
    models = []
    for index in range(len(record.config.models)):
        runs = record.select(index)
        entry: dict[str, Any] = {
            **record.models[str(index)],
            "asked_as": record.config.models[index],
            "seconds_per_clip": round(float(np.median([record.results[r.key]["seconds"] for r in runs])), 3),
            "measures": {name: _mean(record, runs, _reader("measures", name)) for name in CLIP_MEASURES},
            **_adherence(record, runs),
        }
        if index:
            entry |= _beside(record, runs)
            entry["against_reference"] = _differences(record, index)
            entry["motion"] = _motion(record, index)
        models.append(entry)
    clips = [
        {"key": run.key, "prompt": run.prompt, "seed": run.sampling_seed, "floor": run.floor}
        | {k: v for k, v in record.results[run.key].items() if k != "file"}
        for run in record.runs
    ]
    return {
        "schema_version": 1,
        "what": "a suite: every model beside the first on the same prompts and seeds",
        "config": record.config.model_dump(mode="json"),
        "prompts": [asked.prompt for asked in record.asked],
        "models": models,
        "noise_floor": _floors(record),
        "divergence_steps": [
            step + 1 for step in points_of(int(record.models["0"]["steps"]), record.config.points)
        ],
        "meanings": {name: asdict(measure) for name, measure in {**CLIP_MEASURES, **PAIR_MEASURES}.items()},
        "intervals": "95 %: Wilson for shares, else percentile bootstrap over prompts (4,000 resamples)",
        "clips": clips,
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _reader(part: str, name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: result.get(part, {}).get(name)


def _mean(
    record: SuiteRecord, runs: Sequence[Run], read: Callable[[dict[str, Any]], float | None]
) -> dict[str, float] | None:
    values = record.by_prompt(runs, read)
    if not values:
        return None
    low, high = bootstrap_interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "prompts": len(values)}


def _beside(record: SuiteRecord, runs: Sequence[Run]) -> dict[str, Any]:
    """Means of what compares clips with the reference's, and the mean divergence along the way."""
    pair = {name: _mean(record, runs, _reader("pair", name)) for name in PAIR_MEASURES}
    ways = [record.results[run.key]["divergence"] for run in runs]
    return {
        "pair": {name: value for name, value in pair.items() if value is not None},
        "divergence": [round(float(value), 5) for value in np.mean(ways, axis=0)],
    }


def _adherence(record: SuiteRecord, runs: Sequence[Run]) -> dict[str, Any]:
    counts = {name: Counter[str]() for name in ATTRIBUTES}
    for run in runs:
        for name, verdict in record.results[run.key]["verdicts"].items():
            counts[name][verdict] += 1
    asked = {name: count.total() for name, count in counts.items() if count.total()}
    if not asked:
        return {}
    return {
        "adherence": {name: counts[name]["right"] / total for name, total in asked.items()},
        "intervals": {
            name: list(wilson_interval(counts[name]["right"], total)) for name, total in asked.items()
        },
        "undecided": {name: counts[name]["undecided"] / total for name, total in asked.items()},
        "asked": asked,
    }


def _right(name: str) -> Callable[[dict[str, Any]], float | None]:
    def read(result: dict[str, Any]) -> float | None:
        verdict = result["verdicts"].get(name)
        return None if verdict is None else float(verdict == "right")

    return read


def _differences(record: SuiteRecord, index: int) -> dict[str, Any]:
    """Paired differences model - reference of every clip measure and every judged attribute."""
    ours, theirs = record.select(index), record.select(0)
    readers = {name: _reader("measures", name) for name in CLIP_MEASURES}
    readers |= {name: _right(name) for name in ATTRIBUTES}
    found = {}
    for name, read in readers.items():
        first, second = record.by_prompt(ours, read), record.by_prompt(theirs, read)
        if first:
            found[name] = asdict(paired_bootstrap(first, second))
    return found


def _motion(record: SuiteRecord, index: int) -> dict[str, Any]:
    """How much the model moves beside the reference, over all clips together, as a number and a sentence."""
    read = _reader("measures", "speed")
    ours, theirs = (record.by_prompt(record.select(which), read) for which in (index, 0))
    found = paired_ratio(ours, theirs, offset=STILL)
    percent = round(abs(1 - found.ratio) * 100)
    word = "less" if found.ratio < 1 else "more"
    sure = not found.low <= 1 <= found.high
    model, reference = record.models[str(index)], record.models["0"]["name"]
    interval = f"95 %: {found.low:.2f} to {found.high:.2f}, {found.num_pairs} prompts"
    sentence = (
        f"{model['plan'] or model['name']} moves {percent} % {word} than {reference} "
        f"(ratio {found.ratio:.2f}, {interval if found.num_pairs > 1 else 'one prompt, so no interval'}"
        f"{'' if sure else '; no difference shown'})."
    )
    return {**asdict(found), "sentence": sentence}


def _floors(record: SuiteRecord) -> dict[str, Any]:
    """What other noise and other rounding alone do to the reference: smaller differences mean nothing."""
    found: dict[str, Any] = {}
    names: tuple[Floor, ...] = ("another seed", "another precision")
    for floor in names:
        runs = record.select(0, floor)
        if runs:
            label = str(floor)
            if floor == "another precision":
                label = f"{record.models['0p']['dtype']} against {record.models['0']['dtype']}"
            found[floor] = {"label": label, "clips": len(runs), **_beside(record, runs)}
    return found
