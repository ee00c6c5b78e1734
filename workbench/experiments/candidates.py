"""The candidates for the student that ships: their figures beside the teacher's, and which is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from workbench.distillation.finetuned import FILE as RECORD
from workbench.evaluation.statistics import bootstrap_interval, paired_bootstrap, paired_ratio
from workbench.evaluation.temporal import STILL
from workbench.experiments.clips import RIGHT, Numbers
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.results import Row
from workbench.operators import label
from workbench.planning import Plan, cost
from workbench.surgery import Student, read_student
from workbench.workspace import read_json

TARGET_RATIO = 0.60
TARGET_LOSS = 0.02
RULE = (
    "A finetuned student counts only if its held-out velocity error is lower and its adherence higher than "
    f"those of the distilled one. Of those at attention_ratio <= {TARGET_RATIO} whose whole interval is "
    f"within {TARGET_LOSS * 100:.0f} points of the teacher, the one of least attention_ratio is taken; if "
    "there is none, of those whose mean is; of two with equal ratios the one of higher adherence, then the "
    f"smaller one. If none is so near, the one of highest adherence at attention_ratio <= {TARGET_RATIO}; if "
    "none is so cheap, the one of highest adherence."
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


def teacher_row(lab: Laboratory, own: Sequence[Numbers]) -> Row:
    """Return the teacher's figures over its clips."""
    return {
        "name": lab.model.name,
        "fingerprint": lab.model.fingerprint,
        "adherence": _interval(own, "adherence"),
        "by_attribute": _by_attribute(own),
    }


def row_of(candidate: Candidate, own: Sequence[Numbers] = (), teacher: Sequence[Numbers] = ()) -> Row:
    """Return a candidate's figures beside the teacher's; of one without clips, its cost alone.

    Args:
        own: the numbers of its clips, as `clip_numbers` gives them.
        teacher: those of the teacher's clips, of the same prompts and seeds.
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
    if not own:
        return row
    difference = paired_bootstrap(_column(own, "adherence"), _column(teacher, "adherence"))
    motion = paired_ratio(_column(own, "speed"), _column(teacher, "speed"), offset=STILL)
    row |= {
        "adherence": _interval(own, "adherence"),
        "adherence_difference": asdict(difference),
        "by_attribute": _by_attribute(own),
        "psnr": _interval(own, "psnr"),
        "ssim": _interval(own, "ssim"),
        "motion_ratio": asdict(motion),
    }
    row["summary"] = (
        f"{price.attention_ratio:.0%} of the attention's operations, {price.dit_ratio:.0%} of the "
        f"transformer's; adherence {row['adherence']['mean']:.1%}, {difference.mean * 100:+.1f} points from "
        f"the teacher's (95 %: {difference.low * 100:+.1f} to {difference.high * 100:+.1f}, {len(own)} "
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
    for part, what in (("low", "interval"), ("mean", "mean")):
        good = [row for row in cheap if row["adherence_difference"][part] >= -TARGET_LOSS]
        if good:
            best = min(good, key=_cheapest)
            best["chosen_because"] = f"the cheapest whose {what} is within the target"
            return best
    best = max(cheap or able, key=lambda row: (row["adherence"]["mean"], -row["attention_ratio"]))
    best["chosen_because"] = (
        f"none at attention_ratio <= {TARGET_RATIO} is within {TARGET_LOSS * 100:.0f} points of the teacher; "
        f"this has the highest adherence{' of those' if cheap else ', and none is so cheap'}"
    )
    return best


def _cheapest(row: Row) -> tuple[float, float, float]:
    return row["attention_ratio"], -row["adherence"]["mean"], row["megabytes"]


def _by_attribute(numbers: Sequence[Numbers]) -> Row:
    """Return for every attribute the share of clips that show it, of those asked to."""
    asked = sorted({name for one in numbers for name in one if name.startswith(RIGHT)})
    return {name.removeprefix(RIGHT): mean(one[name] for one in numbers if name in one) for name in asked}


def _column(numbers: Sequence[Numbers], name: str) -> list[float]:
    return [one[name] for one in numbers]


def _interval(numbers: Sequence[Numbers], name: str) -> Row:
    values = _column(numbers, name)
    low, high = bootstrap_interval(values)
    return {"mean": mean(values), "low": low, "high": high, "prompts": len(values)}
