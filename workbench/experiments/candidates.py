"""The candidates for the student that ships: their figures beside the teacher's, and which is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from workbench.distillation.finetuned import FILE as RECORD
from workbench.evaluation.statistics import bootstrap_interval, paired_bootstrap
from workbench.experiments.results import Row
from workbench.operators import label
from workbench.planning import Plan, cost
from workbench.surgery import Student, read_student
from workbench.workspace import read_json

TARGET_RATIO = 0.60
TARGET_LOSS = 0.02
RULE = (
    "A finetuned student counts only if its held-out velocity error is lower and its adherence higher than "
    f"those of the distilled one. Of those at attention_ratio <= {TARGET_RATIO} whose mean adherence is "
    f"within {TARGET_LOSS * 100:.0f} points of the teacher's, the one of least attention_ratio is taken; if "
    f"there is none, the one of highest adherence at attention_ratio <= {TARGET_RATIO}; if none is so "
    "cheap, the one of highest adherence."
)


@dataclass(frozen=True)
class Candidate:
    """One student in half precision, in the workspace.

    Attributes:
        velocity_error: on held-out trajectories of the teacher.
        lost: why it is not judged by clips; empty where it is.
        finetuning: how a finetuned one was finetuned, as `finetuning_of` says it.
    """

    plan: Plan
    weights: Literal["distilled", "finetuned"]
    folder: Path
    velocity_error: float
    lost: str = ""
    finetuning: str = ""

    @property
    def name(self) -> str:
        shown = f", {self.finetuning}" if self.finetuning else ""
        return f"{self.plan.short_name} {self.weights}{shown}"


def finetuning_of(student: Student) -> str:
    """Return in a few words how a student was finetuned; "" for one that was not."""
    if not (student.folder / RECORD).is_file():
        return ""
    config = read_json(student.folder / RECORD, what=f"{RECORD} of student {student.name}")["config"]
    rank = f" of rank {config['rank']}" if config["method"] == "lora" else ""
    updates = f"{config['updates']:,} updates of {config['accumulate']} states"
    return f"{config['method']}{rank}, {config.get('optimizer', 'adamw')}, {updates}"


def adherences(document: Mapping[str, Any], index: int) -> list[float]:
    """Return the share of what every prompt asked for that is right in a model's clip, in their order."""
    asked = [clip["verdicts"] for clip in document["clips"] if clip["key"].startswith(f"m{index}-")]
    return [mean(verdict == "right" for verdict in verdicts.values()) for verdicts in asked]


def teacher_row(document: Mapping[str, Any]) -> Row:
    """Return the teacher's figures in a suite."""
    found = document["models"][0]
    own = adherences(document, 0)
    return {
        "name": found["name"],
        "fingerprint": found["fingerprint"],
        "adherence": _interval(own),
        "by_attribute": found["adherence"],
        "seconds_per_clip": found["seconds_per_clip"],
    }


def row_of(candidate: Candidate, document: Mapping[str, Any], judged: Sequence[Candidate]) -> Row:
    """Return a candidate's figures beside the teacher's; of one that was not judged, its cost alone.

    Args:
        document: the suite, whose models are the teacher and `judged` in their order.
    """
    student = read_student(candidate.folder)
    price = cost(candidate.plan, student.manifest.teacher)
    files = [path for path in candidate.folder.iterdir() if path.is_file()]
    row: Row = {
        "name": candidate.name,
        "plan": candidate.plan.short_name,
        "blocks": [label(spec) for spec in candidate.plan.operators],
        "weights": candidate.weights,
        "finetuning": candidate.finetuning,
        "attention_ratio": price.attention_ratio,
        "dit_ratio": price.dit_ratio,
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 2),
        "velocity_error": candidate.velocity_error,
        "lost": candidate.lost,
        "shipped": False,
    }
    if candidate.lost:
        return row
    index = judged.index(candidate) + 1
    found, own = document["models"][index], adherences(document, index)
    difference = asdict(paired_bootstrap(own, adherences(document, 0)))
    motion = {name: value for name, value in found["motion"].items() if name != "sentence"}
    row |= {
        "adherence": _interval(own),
        "adherence_difference": difference,
        "by_attribute": found["adherence"],
        "psnr": found["pair"].get("psnr"),
        "ssim": found["pair"].get("ssim"),
        "motion_ratio": motion,
        "seconds_per_clip": found["seconds_per_clip"],
    }
    row["summary"] = (
        f"{price.attention_ratio:.0%} of the attention's operations, {price.dit_ratio:.0%} of the "
        f"transformer's; adherence {mean(own):.1%}, {difference['mean'] * 100:+.1f} points from the "
        f"teacher's (95 %: {difference['low'] * 100:+.1f} to {difference['high'] * 100:+.1f}, {len(own)} "
        "prompts)"
    )
    return row


def settle(rows: Sequence[Row]) -> None:
    """Say of every finetuned student whose adherence is not above the distilled one's that it lost."""
    distilled = {tuple(row["blocks"]): row for row in rows if row["weights"] == "distilled"}
    for row in rows:
        if row["weights"] != "finetuned" or row["lost"]:
            continue
        before = distilled[tuple(row["blocks"])]["adherence"]["mean"]
        if row["adherence"]["mean"] <= before:
            row["lost"] = f"its adherence is not above the distilled student's {before:.3f}"


def choose(rows: Sequence[Row]) -> Row:
    """Return the row to ship, by `RULE`; `chosen_because` says which part of it applied."""
    able = [row for row in rows if not row["lost"]]
    cheap = [row for row in able if row["attention_ratio"] <= TARGET_RATIO]
    good = [row for row in cheap if row["adherence_difference"]["mean"] >= -TARGET_LOSS]
    if good:
        best = min(good, key=lambda row: (row["attention_ratio"], -row["adherence"]["mean"]))
        best["chosen_because"] = "the cheapest within the target"
        return best
    best = max(cheap or able, key=lambda row: (row["adherence"]["mean"], -row["attention_ratio"]))
    best["chosen_because"] = (
        f"none at attention_ratio <= {TARGET_RATIO} is within {TARGET_LOSS * 100:.0f} points of the teacher; "
        f"this has the highest adherence{' of those' if cheap else ', and none is so cheap'}"
    )
    return best


def _interval(values: Sequence[float]) -> Row:
    low, high = bootstrap_interval(values)
    return {"mean": mean(values), "low": low, "high": high, "prompts": len(values)}
