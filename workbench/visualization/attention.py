"""Figures of attention: a number per head, the sheet of pooled maps, one query's row over the frames.

Plain arrays in, a plotly figure out; knows nothing of captures or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.visualization.images import Pixels, data_uri, normalised, overlay, tile_sheet
from workbench.visualization.theme import THEMES, ThemeName, difference_scale, mass_scale, template


def metric_map(
    values: NDArray[Any],
    *,
    title: str,
    unit: str = "",
    largest: float | None = None,
    diverging: bool = False,
    theme: ThemeName = "light",
) -> Any:
    """Return blocks × heads as a heat map with its numbers, block 0 on top.

    Args:
        values: [blocks, heads].
        title: what the number is, in words.
        unit: shown in the tooltip.
        largest: upper end of the scale; None takes the largest value. A diverging scale is symmetric.
        diverging: values below zero have a meaning of their own.
    """
    import plotly.graph_objects as go

    blocks, heads = values.shape
    top = float(np.max(np.abs(values))) if largest is None else largest
    suffix = f" {unit}" if unit else ""
    figure = go.Figure(
        go.Heatmap(
            z=values.tolist(),
            x=[str(head) for head in range(heads)],
            y=[str(block) for block in range(blocks)],
            colorscale=difference_scale(theme) if diverging else mass_scale(),
            zmin=-top if diverging else 0.0,
            zmax=top or 1.0,
            xgap=1,
            ygap=1,
            text=[[number(value) for value in row] for row in values.tolist()],
            texttemplate="%{text}" if blocks <= 16 else None,
            textfont={"size": 11},
            hovertemplate=f"block %{{y}}, head %{{x}}<br>{title} %{{text}}{suffix}<extra></extra>",
            colorbar={"thickness": 8, "outlinewidth": 0},
        )
    )
    figure.update_layout(
        template=template(theme),
        title=title,
        height=max(240, 88 + blocks * (26 if blocks <= 16 else 16)),
        xaxis={"title": "head", "type": "category", "side": "bottom"},
        yaxis={"title": "block", "type": "category", "autorange": "reversed", "showgrid": False},
    )
    return figure


def map_sheet(
    maps: NDArray[Any], *, title: str = "Pooled attention per head", theme: ThemeName = "light"
) -> Any:
    """Return the pooled maps of all heads as one picture; queries down, keys across, a scale per tile.

    Args:
        maps: [blocks, heads, S, S].
    """
    import plotly.graph_objects as go

    blocks, heads, side, _ = maps.shape
    step = side + 1
    sheet = tile_sheet(maps, background=THEMES[theme].surface)
    figure = go.Figure(go.Image(source=data_uri(sheet), hoverinfo="skip"))
    centres = [index * step + side / 2 for index in range(max(blocks, heads))]
    figure.update_layout(
        template=template(theme),
        title=title,
        height=88 + blocks * (44 if blocks <= 12 else 20),
        xaxis={
            "title": "head",
            "tickvals": centres[:heads],
            "ticktext": [str(head) for head in range(heads)],
        },
        yaxis={
            "title": "block",
            "tickvals": centres[:blocks],
            "ticktext": [str(block) for block in range(blocks)],
            "showgrid": False,
        },
    )
    return figure


def row_over_frames(
    row: NDArray[Any],
    *,
    query: tuple[int, int, int],
    frames: Sequence[Pixels] | None = None,
    title: str = "",
    theme: ThemeName = "light",
) -> Any:
    """Return where one query looks: its attention over every latent frame, with the share of each frame.

    Args:
        row: attention of the query, [T, H, W], sums to 1.
        query: (frame, y, x) of the query token, outlined.
        frames: one picture [h, w, 3] a latent frame to lay the row over; None shows the row alone.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    num_frames, height, width = row.shape
    shares = row.reshape(num_frames, -1).sum(axis=1)
    scaled = normalised(row)
    figure = make_subplots(
        rows=1,
        cols=num_frames,
        horizontal_spacing=0.008,
        subplot_titles=[f"frame {index}  {100 * share:.0f} %" for index, share in enumerate(shares)],
    )
    for index in range(num_frames):
        picture = _picture(scaled[index], None if frames is None else frames[index])
        cell_height, cell_width = picture.shape[0] / height, picture.shape[1] / width
        figure.add_trace(go.Image(source=data_uri(picture), hoverinfo="skip"), row=1, col=index + 1)
        if index == query[0]:
            left, top = query[2] * cell_width - 0.5, query[1] * cell_height - 0.5
            box = {"x0": left, "y0": top, "x1": left + cell_width, "y1": top + cell_height}
            for colour, line_width in (("#000000", 4), ("#ffffff", 2)):
                figure.add_shape(
                    type="rect", line={"color": colour, "width": line_width}, row=1, col=index + 1, **box
                )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_annotations(font={"size": 11, "color": THEMES[theme].text_3})
    figure.update_layout(
        template=template(theme), title=title, height=260, margin={"l": 8, "r": 8, "b": 8, "t": 56}
    )
    return figure


def _picture(mass: NDArray[Any], frame: Pixels | None) -> Pixels:
    if frame is not None:
        return overlay(frame, mass)
    black = np.zeros((mass.shape[0] * 8, mass.shape[1] * 8, 3), dtype=np.uint8)
    return overlay(black, mass)


def number(value: float, digits: int = 2) -> str:
    """Return a number without the leading zero, ".06", as tables and charts show it."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
