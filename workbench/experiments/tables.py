"""Tables of `docs/method.md` from the result files: `python -m workbench.experiments.tables`.

Where an experiment was run in full, that file is told; else the quick one, and the table says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.evaluation.statistics import bootstrap_interval, paired_bootstrap
from workbench.experiments.catalogue import EXPERIMENTS
from workbench.experiments.rates import LEAST_CLIPS
from workbench.experiments.results import Row
from workbench.workspace import read_json

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "method.md"
RESULTS = DOCS / "results" / "experiments"
Column = tuple[str, Callable[[Row], str]]


class VariantMean(NamedTuple):
    """Error of a variant over blocks and prompts, and how it differs from the usual choice by prompt."""

    variant: str
    mean: float
    low: float
    high: float
    off: float
    undistilled: float
    change: Row | None


def load(path: Path) -> Row:
    """Read a result file."""
    return read_json(path, what=path.name)


def variant_means(rows: Sequence[Row], rate: str) -> list[VariantMean]:
    """Return the mean of every variant at a rate over blocks, with intervals over prompts."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["rate"] == rate:
            groups.setdefault(row["variant"], []).append(row)
    values = {
        name: [sum(errors) / len(errors) for errors in zip(*(row["by_prompt"] for row in group), strict=True)]
        for name, group in groups.items()
    }
    found = []
    for name, group in groups.items():
        low, high = bootstrap_interval(values[name])
        change = None
        if name != "usual" and "usual" in values:
            paired = paired_bootstrap(values[name], values["usual"])
            change = {"mean": paired.mean, "low": paired.low, "high": paired.high}
        found.append(
            VariantMean(
                variant=name,
                mean=sum(values[name]) / len(values[name]),
                low=low,
                high=high,
                off=sum(row["error_off"] for row in group) / len(group),
                undistilled=sum(row["error_undistilled"] for row in group) / len(group),
                change=change,
            )
        )
    return found


def section(name: str, folder: Path = RESULTS) -> str:
    """Return what the page says of an experiment: where the rows come from, the table, the figure."""
    path = next(
        (folder / file for file in (f"{name}.json", f"{name}.quick.json") if (folder / file).exists()), None
    )
    if path is None:
        return f"Not measured yet: `workbench experiment {name}` (or `--quick`)."
    result = load(path)
    good = [row for row in result["rows"] if "failed" not in row]
    parts = [_source(result, path), TABLES[name](good), *CONCLUSIONS.get(name, _no_conclusion)(result)]
    missing = [re.sub(r"-[0-9a-f]{8}(?=-|$)", "", name) for name in result.get("missing", [])]
    if missing:
        parts.append(
            f"{len(missing)} conditions are not measured yet; the same command goes on: {', '.join(missing)}."
        )
    failed = [row for row in result["rows"] if "failed" in row]
    parts += [f"`{row['condition']}` failed: {row['failed']}" for row in failed]
    if path.with_suffix(".svg").exists():
        parts.append(f"![{result['title']}](results/experiments/{path.stem}.svg)")
    return "\n\n".join(parts)


def write_page(page: Path = PAGE, folder: Path = RESULTS) -> None:
    """Rewrite the page between the markers of every experiment."""
    text = page.read_text(encoding="utf-8")
    for name in EXPERIMENTS:
        begin, end = f"<!-- experiment {name}: begin -->", f"<!-- experiment {name}: end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        new = f"{begin}\n\n{section(name, folder)}\n\n{end}"
        text, count = pattern.subn(lambda _, new=new: new, text)  # type: ignore[misc]
        assert count == 1, f"{page.name} has no place for {name}"
    page.write_text(text, encoding="utf-8")


def _table(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    body = [[show(row) for _, show in columns] for row in rows]
    lines = [[title for title, _ in columns], ["---"] * len(columns), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _source(result: Row, path: Path) -> str:
    hardware, versions, shared = result["hardware"], result["versions"], result["shared"]
    scale = "Quick run" if shared["scale"] == "quick" else "Full run"
    steps = shared["clip_steps"] or "the model's"
    return (
        f"{scale} on {hardware['device']} ({hardware['workers']} processes), torch {versions['torch']}, "
        f"{result['date'][:10]}, `{path.name}`. Velocities on {shared['num_held_out']} held-out prompts × "
        f"{shared['states']} states; clips of {steps} steps on held-out scenes; 95 % intervals over prompts."
    )


def _number(name: str, digits: int = 3) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:.{digits}f}" if row.get(name) is not None else "–"


def _interval(name: str, digits: int = 3, *, sign: bool = False) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        value: Any = row.get(name)
        if value is None:
            return "–"
        mean, low, high = (
            f"{value[part]:{'+' if sign else ''}.{digits}f}" for part in ("mean", "low", "high")
        )
        return f"{mean} ({low} to {high})"

    return show


def _word(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(name, "–"))


COST: tuple[Column, ...] = (("attention", _number("attention_ratio")), ("DiT", _number("dit_ratio")))
VELOCITY: Column = ("velocity error", _interval("velocity_error"))
ADHERENCE: Column = ("adherence", _interval("adherence", 2))
CHANGE: Column = ("against teacher, points", _interval("adherence_change", 1, sign=True))
MOTION: Column = ("motion ratio", _interval("motion_ratio", 2))
FIDELITY: tuple[Column, ...] = (
    ("PSNR, dB", _interval("psnr", 1)),
    ("SSIM", _interval("ssim", 2)),
    MOTION,
    ("clips", _word("clips")),
)


def _quality(rows: Sequence[Row]) -> str:
    columns = [
        ("plan", _setup),
        ("training", _word("weights")),
        *COST,
        VELOCITY,
        ADHERENCE,
        CHANGE,
        *FIDELITY,
    ]
    return _table(columns, rows)


def _setup(row: Row) -> str:
    return (
        row["setup"]
        if row["setup"] == row["plan"] or row["weights"] == "teacher"
        else f"{row['setup']}: {row['plan']}"
    )


def _allocation(rows: Sequence[Row]) -> str:
    columns = [("plan", _setup), *COST, ("mean cell error", _number("cell_error")), VELOCITY, CHANGE, MOTION]
    return _table(columns, rows)


def _losses(rows: Sequence[Row]) -> str:
    columns = [("plan", _word("plan")), ("loss", _word("loss")), ("mean cell error", _number("cell_error"))]
    columns += [("off", _number("cell_error_off")), VELOCITY, ADHERENCE, *FIDELITY]
    return _table(columns, rows)


def _branch(rows: Sequence[Row]) -> str:
    columns: list[Column] = [("plan", _setup), ("training", _word("weights"))]
    columns += [
        ("branch", lambda row: "on" if row["linear_branch"] else "off"),
        VELOCITY,
        ADHERENCE,
        *FIDELITY,
    ]
    return _table(columns, rows)


def _rehyat(rows: Sequence[Row]) -> str:
    columns: list[Column] = [("frames", _word("frames")), ("plan", _word("plan")), *COST]
    columns += [("mean cell error", _number("cell_error")), VELOCITY, ADHERENCE, *FIDELITY]
    columns += [("flicker", _interval("flicker", 2)), ("consistency", _interval("subject_consistency", 3))]
    return _table(columns, rows)


def _variants(rows: Sequence[Row]) -> str:
    columns: list[Column] = [("variant", _word("variant")), ("rate", _word("rate"))]
    columns += [("error", _interval("error")), ("against usual", _interval("change", sign=True))]
    columns += [("before training", _number("undistilled")), ("branch off", _number("off"))]
    body = [
        {
            **one._asdict(),
            "rate": rate,
            "error": {"mean": one.mean, "low": one.low, "high": one.high},
        }
        for rate in dict.fromkeys(row["rate"] for row in rows)
        for one in variant_means(rows, rate)
    ]
    return _table(columns, body)


def _no_conclusion(_: Row) -> list[str]:
    return []


def _target(result: Row) -> list[str]:
    target = result["conclusions"].get("target")
    if not target:
        return []
    change = _interval("adherence_change", 1, sign=True)
    lines = [
        f"- {plan['setup']} at {plan['attention_ratio']:.3f}: {change(plan)} points "
        f"on {plan['clips']} clips: **{plan['verdict']}**"
        for plan in target["plans"]
    ]
    goal = (
        f"Target: mean adherence at most {target['points_below_teacher_at_most']:g} points below the "
        f"teacher's, at an attention ratio of at most {target['attention_ratio_at_most']:.2f}. Met: the "
        "interval of the paired difference lies above; not shown: only the mean does; missed: not even that. "
        f"Below {LEAST_CLIPS} clips nothing is decided."
    )
    return [f"{goal}\n\n" + "\n".join(lines)] if lines else []


def _gains(result: Row) -> list[str]:
    lines = [
        f"- at the cost of {one['uniform']} ({one['budget']:.3f}): velocity error "
        f"{_interval('change', sign=True)(one)} with {one['optimal']}"
        for one in result["conclusions"].get("optimal_minus_uniform", [])
    ]
    return ["Optimised minus uniform, paired by prompt:\n\n" + "\n".join(lines)] if lines else []


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "rates": _quality,
    "allocation": _allocation,
    "losses": _losses,
    "linear-branch": _branch,
    "feature-maps": _variants,
    "extremes": _quality,
    "rehyat": _rehyat,
}
CONCLUSIONS: dict[str, Callable[[Row], list[str]]] = {"rates": _target, "allocation": _gains}


def main() -> None:
    """Draw the figures and rewrite the page."""
    from workbench.experiments.figures import write_figures

    write_figures(RESULTS)
    write_page()


if __name__ == "__main__":
    main()
