"""Figures of measuring and planning: loss curves, the errors of a bank, cost against error.

Plain numbers in, a plotly figure out; knows nothing of banks or plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.visualization.attention import number
from workbench.visualization.theme import RAMP, THEMES, ThemeName, operator_colour, template

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class CellError:
    """A cell's error on held-out prompts, its 95 % interval, and the error with the linear branch off."""

    block: int
    label: str
    error: float
    interval: tuple[float, float]
    error_off: float | None = None


@dataclass(frozen=True)
class Tradeoff:
    """One plan as a point: cost as a share of the teacher's, error or another measure, and its name."""

    cost: float
    value: float
    name: str
    family: str = ""


def loss_curves(
    losses: Mapping[str, Sequence[tuple[int, float]]],
    *,
    title: str = "Distillation loss",
    theme: ThemeName = "light",
) -> Any:
    """Return the loss stream of cells, logarithmic; colour is the operator, dash tells blocks apart.

    Args:
        losses: cell name ("block-03-R4") to (step, loss) pairs.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    blocks = sorted({name.rsplit("-", 1)[0] for name in losses})
    for name, points in losses.items():
        block, _, label = name.rpartition("-")
        figure.add_trace(
            go.Scatter(
                x=[step for step, _ in points],
                y=[loss for _, loss in points],
                mode="lines",
                name=name,
                line={
                    "color": operator_colour(label, theme),
                    "width": 2,
                    "dash": DASHES[blocks.index(block) % len(DASHES)],
                },
                hovertemplate=f"{name}<br>step %{{x}}<br>loss %{{y:.4g}}<extra></extra>",
            )
        )
    figure.update_layout(
        template=template(theme),
        title=title,
        height=320,
        xaxis={"title": "update"},
        yaxis={"type": "log", "title": "loss"},
        showlegend=len(losses) <= 12,
    )
    return figure


def bank_heat(
    cells: Sequence[CellError],
    *,
    num_blocks: int,
    title: str = "Relative error of every measured cell",
    theme: ThemeName = "light",
) -> Any:
    """Return block × rate as a heat map of errors; a cell that was not measured is left empty."""
    import plotly.graph_objects as go

    labels = ordered_labels({cell.label for cell in cells})
    place = {(cell.block, cell.label): cell for cell in cells}
    grid = [[place.get((block, label)) for label in labels] for block in range(num_blocks)]
    tokens = THEMES[theme]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if cell is None else cell.error for cell in row] for row in grid],
            x=labels,
            y=[str(block) for block in range(num_blocks)],
            text=[["" if cell is None else number(cell.error, 3) for cell in row] for row in grid],
            customdata=[
                ["not measured" if cell is None else _describe(cell) for cell in row] for row in grid
            ],
            texttemplate="%{text}",
            textfont={"size": 11},
            colorscale=[[0.0, tokens.sunken], [1.0, tokens.difference[2]]],
            zmin=0.0,
            zmax=max((cell.error for cell in cells), default=1.0),
            xgap=1,
            ygap=1,
            hovertemplate="block %{y}, %{x}<br>%{customdata}<extra></extra>",
            colorbar={"thickness": 8, "outlinewidth": 0},
        )
    )
    figure.update_layout(
        template=template(theme),
        title=title,
        height=max(240, 96 + num_blocks * 26),
        xaxis={"title": "softmax rate", "type": "category"},
        yaxis={"title": "block", "type": "category", "autorange": "reversed", "showgrid": False},
    )
    return figure


def bank_bars(
    cells: Sequence[CellError],
    *,
    title: str = "Error of the cells, with the linear branch on and off",
    theme: ThemeName = "light",
) -> Any:
    """Return the error of every cell with its interval, by block, and a tick where the branch is off."""
    import plotly.graph_objects as go

    figure = go.Figure()
    tokens = THEMES[theme]
    for label in ordered_labels({cell.label for cell in cells}):
        chosen = sorted((cell for cell in cells if cell.label == label), key=lambda cell: cell.block)
        blocks = [str(cell.block) for cell in chosen]
        figure.add_trace(
            go.Bar(
                x=blocks,
                y=[cell.error for cell in chosen],
                name=label,
                offsetgroup=label,
                marker={"color": operator_colour(label, theme), "line": {"color": tokens.edge, "width": 1}},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [max(cell.interval[1] - cell.error, 0.0) for cell in chosen],
                    "arrayminus": [max(cell.error - cell.interval[0], 0.0) for cell in chosen],
                    "color": tokens.text_3,
                    "thickness": 1,
                    "width": 2,
                },
                customdata=[_describe(cell) for cell in chosen],
                hovertemplate=f"block %{{x}}, {label}<br>%{{customdata}}<extra></extra>",
            )
        )
        if any(cell.error_off is not None for cell in chosen):
            figure.add_trace(
                go.Bar(
                    x=blocks,
                    y=[cell.error_off for cell in chosen],
                    name=f"{label}, branch off",
                    offsetgroup=label,
                    marker={"color": "rgba(0,0,0,0)", "line": {"color": tokens.text_3, "width": 1}},
                    hovertemplate=f"block %{{x}}, {label}, branch off<br>%{{y:.3f}}<extra></extra>",
                    showlegend=False,
                )
            )
    figure.update_layout(
        template=template(theme),
        title=title,
        height=320,
        barmode="group",
        bargap=0.25,
        xaxis={
            "title": "block",
            "type": "category",
            "categoryorder": "array",
            "categoryarray": _blocks(cells),
        },
        yaxis={"title": "relative error", "rangemode": "tozero"},
    )
    return figure


def pareto(
    points: Sequence[Tradeoff],
    *,
    front: Sequence[Tradeoff] = (),
    cost_title: str = "attention FLOPs, share of softmax",
    value_title: str = "mean error",
    title: str = "Cost against error",
    theme: ThemeName = "light",
) -> Any:
    """Return plans as points, families told apart by mark, and the Pareto front as a line."""
    import plotly.graph_objects as go

    tokens = THEMES[theme]
    figure = go.Figure()
    if front:
        ordered = sorted(front, key=lambda point: point.cost)
        figure.add_trace(
            go.Scatter(
                x=[point.cost for point in ordered],
                y=[point.value for point in ordered],
                mode="lines",
                line={"color": tokens.ink, "width": 1.5, "shape": "hv"},
                name="Pareto front",
                hoverinfo="skip",
            )
        )
    symbols = ("circle", "diamond", "square", "triangle-up", "cross", "x")
    families = list(dict.fromkeys(point.family for point in points))
    for index, family in enumerate(families):
        chosen = [point for point in points if point.family == family]
        colour = operator_colour(family, theme) if family.startswith(("R", "linear")) else tokens.text_2
        figure.add_trace(
            go.Scatter(
                x=[point.cost for point in chosen],
                y=[point.value for point in chosen],
                mode="markers",
                name=family or "plans",
                text=[point.name for point in chosen],
                marker={
                    "size": 9,
                    "symbol": symbols[index % len(symbols)],
                    "color": colour,
                    "line": {"color": tokens.edge, "width": 1},
                },
                hovertemplate="%{text}<br>cost %{x:.3f}<br>%{y:.4f}<extra></extra>",
            )
        )
    figure.update_layout(
        template=template(theme),
        title=title,
        height=360,
        xaxis={"title": cost_title},
        yaxis={"title": value_title, "rangemode": "tozero"},
    )
    return figure


def ordered_labels(labels: set[str]) -> list[str]:
    """Return operator labels from softmax to linear; other families at the end."""

    def rank(label: str) -> tuple[int, int, str]:
        if label in RAMP and not label.startswith("R"):
            return (0 if label == "softmax" else 2, 0, label)
        if label.startswith("R") and label[1:].isdigit():
            return (1, int(label[1:]), label)
        return (3, 0, label)

    return sorted(labels, key=rank)


def _describe(cell: CellError) -> str:
    low, high = cell.interval
    text = f"error {number(cell.error, 3)} ({number(low, 3)} to {number(high, 3)})"
    return text if cell.error_off is None else f"{text}<br>branch off {number(cell.error_off, 3)}"


def _blocks(cells: Sequence[CellError]) -> list[str]:
    return [str(block) for block in sorted({cell.block for cell in cells})]
