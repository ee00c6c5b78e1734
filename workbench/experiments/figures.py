"""One figure for every result file, drawn beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.experiments.catalogue import EXPERIMENTS
from workbench.experiments.results import Row
from workbench.experiments.tables import load, variant_means
from workbench.visualization import Family, Mean, interval_list, interval_plot

VELOCITY = "relative error of the guided velocity"
TRAINING = ("undistilled", "distilled", "finetuned")


def write_figures(folder: Path) -> list[Path]:
    """Draw every result file of a folder that has rows, as `<file>.svg`."""
    made = []
    for name in EXPERIMENTS:
        for suffix in ("", ".quick"):
            path = folder / f"{name}{suffix}.json"
            rows = load(path)["rows"] if path.exists() else []
            rows = [row for row in rows if "failed" not in row]
            if rows:
                figure = path.with_suffix(".svg")
                figure.write_text(FIGURES[name](rows), encoding="utf-8")
                made.append(figure)
    return made


def _by_ratio(rows: Sequence[Row]) -> str:
    families = [
        Family(weights, tuple(_mean(row, row["setup"]) for row in rows if row["weights"] == weights))
        for weights in TRAINING
    ]
    return interval_plot(
        [family for family in families if family.means],
        title="What is lost, by cost and training",
        x_title="attention operations, share of softmax",
        y_title=VELOCITY,
    )


def _listed(
    title: str, label: Callable[[Row], str], family: Callable[[Row], str]
) -> Callable[[Sequence[Row]], str]:
    def draw(rows: Sequence[Row]) -> str:
        students = [row for row in rows if row["weights"] != "teacher"]
        families = [
            Family(name, tuple(_mean(row, label(row)) for row in students if family(row) == name))
            for name in dict.fromkeys(map(family, students))
        ]
        return interval_list(families, title=title, x_title=VELOCITY)

    return draw


def _variants(rows: Sequence[Row]) -> str:
    families = [
        Family(
            rate,
            tuple(
                Mean(one.mean, one.low, one.high, label=f"{one.variant}, {rate}")
                for one in variant_means(rows, rate)
            ),
        )
        for rate in dict.fromkeys(row["rate"] for row in rows)
    ]
    return interval_list(
        families, title="Choices of the feature map", x_title="relative error of a cell, mean over blocks"
    )


def _mean(row: Row, label: str) -> Mean:
    error = row["velocity_error"]
    return Mean(error["mean"], error["low"], error["high"], x=row["attention_ratio"], label=label)


FIGURES: dict[str, Callable[[Sequence[Row]], str]] = {
    "rates": _by_ratio,
    "allocation": _listed(
        "One rate for all, or rates chosen block by block",
        lambda row: f"{row['setup']} ({row['attention_ratio']:.2f})",
        lambda row: row["setup"].split(" ")[0] if "≤" in row["setup"] else "one rate for all",
    ),
    "losses": _listed("By distillation loss", lambda row: row["plan"], lambda row: row["loss"]),
    "linear-branch": _listed(
        "The linear branch switched off",
        lambda row: f"{row['setup']}, {row['weights']}",
        lambda row: "branch on" if row["linear_branch"] else "branch off",
    ),
    "feature-maps": _variants,
    "extremes": _listed("All blocks converted", lambda row: row["plan"], lambda row: row["weights"]),
    "rehyat": _listed(
        "ReHyAt and strided hybrid at nearly the same cost",
        lambda row: f"{row['plan']} ({row['attention_ratio']:.2f})",
        lambda row: f"{row['frames']} frames",
    ),
}
