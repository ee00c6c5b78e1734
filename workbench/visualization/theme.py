"""Colours and plotly template of every figure, light and dark; the values of the app's design tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

ThemeName = Literal["light", "dark"]

MASS: tuple[str, ...] = ("#07060f", "#2c115f", "#721f81", "#b73779", "#f1605d", "#feb078", "#fcfdbf")
"""Attention mass, low to high, the same in both themes."""

FONT = '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Theme:
    """The tokens a figure needs; `operators` maps an operator's label to (patch, text on it)."""

    ground: str
    surface: str
    sunken: str
    line: str
    text: str
    text_2: str
    text_3: str
    ink: str
    accent: str
    warn: str
    danger: str
    operators: dict[str, tuple[str, str]]
    edge: str
    difference: tuple[str, str, str]


LIGHT = Theme(
    ground="#f4f5f6",
    surface="#ffffff",
    sunken="#eef0f2",
    line="#dde1e5",
    text="#12171c",
    text_2="#454e58",
    text_3="#616b76",
    ink="#12171c",
    accent="#2f5fd6",
    warn="#8a5600",
    danger="#b42222",
    operators={
        "softmax": ("#153a5d", "#ffffff"),
        "R2": ("#085e7a", "#ffffff"),
        "R4": ("#158083", "#ffffff"),
        "R8": ("#4ba884", "#0b0f13"),
        "R16": ("#afc063", "#0b0f13"),
        "linear": ("#f5d68b", "#0b0f13"),
        "rehyat": ("#9d42b7", "#ffffff"),
    },
    edge="rgba(18, 23, 28, 0.22)",
    difference=("#5e3c99", "#f1f2f3", "#c2600a"),
)
DARK = Theme(
    ground="#0c0f12",
    surface="#13171b",
    sunken="#0c0f12",
    line="#272d34",
    text="#e9ecef",
    text_2="#b3bbc4",
    text_3="#8b95a0",
    ink="#e9ecef",
    accent="#6d9df5",
    warn="#e6b55d",
    danger="#f47b74",
    operators={
        "softmax": ("#285077", "#ffffff"),
        "R2": ("#1e7190", "#ffffff"),
        "R4": ("#249498", "#0b0f13"),
        "R8": ("#53b68f", "#0b0f13"),
        "R16": ("#b7c86b", "#0b0f13"),
        "linear": ("#fadd96", "#0b0f13"),
        "rehyat": ("#c075d7", "#0b0f13"),
    },
    edge="rgba(233, 236, 239, 0.24)",
    difference=("#a78be0", "#20262c", "#f0994d"),
)
THEMES: dict[str, Theme] = {"light": LIGHT, "dark": DARK}
RAMP = ("softmax", "R2", "R4", "R8", "R16", "linear")


def theme(name: ThemeName) -> Theme:
    """Return the tokens of a theme."""
    return THEMES[name]


def operator_colour(label: str, name: ThemeName = "light") -> str:
    """Return the colour of an operator's label; rates between those of the ramp take the next lower one."""
    colours = THEMES[name].operators
    if label in colours:
        return colours[label][0]
    if label.startswith("R") and label[1:].isdigit():
        rate = int(label[1:])
        known = [step for step in (2, 4, 8, 16) if step <= rate]
        return colours[f"R{known[-1]}" if known else "softmax"][0]
    return colours["rehyat" if label.lower().startswith("rehyat") else "linear"][0]


def mass_scale() -> list[list[Any]]:
    """Return the mass ramp as a plotly colour scale."""
    last = len(MASS) - 1
    return [[index / last, colour] for index, colour in enumerate(MASS)]


def difference_scale(name: ThemeName = "light") -> list[list[Any]]:
    """Return the diverging scale: less, equal, more."""
    return [[index / 2, colour] for index, colour in enumerate(THEMES[name].difference)]


def template(name: ThemeName = "light") -> Any:
    """Return the plotly template: no frame, horizontal hairlines only, small type, no shadows."""
    import plotly.graph_objects as go

    tokens = THEMES[name]
    axis = {
        "showline": False,
        "zeroline": False,
        "ticks": "",
        "tickfont": {"size": 11, "color": tokens.text_3},
        "title": {"font": {"size": 11, "color": tokens.text_3}, "standoff": 8},
    }
    layout = go.Layout(
        font={"family": FONT, "size": 12, "color": tokens.text},
        paper_bgcolor=tokens.surface,
        plot_bgcolor=tokens.surface,
        margin={"l": 48, "r": 16, "t": 32, "b": 40},
        title={"font": {"size": 13, "color": tokens.text}, "x": 0, "xanchor": "left", "xref": "paper"},
        xaxis={**axis, "showgrid": False},
        yaxis={**axis, "showgrid": True, "gridcolor": tokens.line, "gridwidth": 1},
        colorway=[tokens.operators[label][0] for label in RAMP],
        hoverlabel={
            "bgcolor": tokens.ink,
            "font": {"size": 12, "color": tokens.surface},
            "bordercolor": tokens.ink,
        },
        legend={"font": {"size": 11, "color": tokens.text_2}, "orientation": "h", "y": -0.2, "x": 0},
        coloraxis={"colorbar": {"thickness": 8, "outlinewidth": 0, "tickfont": {"size": 11}}},
        separators=".,",
    )
    return go.layout.Template(layout=layout)
