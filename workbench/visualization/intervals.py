"""Still pictures of means with their intervals, as SVG text: for files and pages that run no script.

Plain numbers in, SVG out; the colours are those of every other figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from workbench.visualization.theme import FONT, LIGHT

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 64, 16, 64, 48
PLOT_HEIGHT = 260
LINE = 20
LABELS = 240
ASIDE = 7
"""Pixels by which families stand beside each other, so that means of one place do not hide one another."""
COLOURS = (LIGHT.accent, "#c2600a", "#158083", "#9d42b7", LIGHT.text_3)


@dataclass(frozen=True)
class Mean:
    """A mean with its interval.

    Attributes:
        x: place on the horizontal axis of `interval_plot`; `interval_list` does not look at it.
        label: of the line in `interval_list`, and the tooltip.
    """

    mean: float
    low: float
    high: float
    x: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Family:
    """Means of one colour."""

    name: str
    means: tuple[Mean, ...]


def interval_plot(families: Sequence[Family], *, title: str, x_title: str, y_title: str) -> str:
    """Return means over a numeric axis, as an SVG document; the value axis begins at zero or below."""
    means = [mean for family in families for mean in family.means]
    xs = _ticks(min(mean.x for mean in means), max(mean.x for mean in means))
    ys = _ticks(min(0.0, *(mean.low for mean in means)), max(mean.high for mean in means))
    height = TOP + PLOT_HEIGHT + BOTTOM
    parts = _frame(height, title, [family.name for family in families])

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - xs[0]) / (xs[-1] - xs[0])

    def down(value: float) -> float:
        return TOP + PLOT_HEIGHT * (1 - (value - ys[0]) / (ys[-1] - ys[0]))

    for value in ys:
        parts.append(f'<path d="M{LEFT} {down(value):.1f}H{WIDTH - RIGHT}" stroke="{LIGHT.line}"/>')
        parts.append(_text(LEFT - 8, down(value) + 4, f"{value:g}", anchor="end"))
    for value in xs:
        parts.append(_text(across(value), height - BOTTOM + 18, f"{value:g}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, x_title, anchor="middle"))
    parts.append(_text(LEFT, TOP - 10, y_title))
    for index, family in enumerate(families):
        colour, aside = COLOURS[index % len(COLOURS)], ASIDE * (index - (len(families) - 1) / 2)
        for mean in family.means:
            x = across(mean.x) + aside
            whisker = f"M{x:.1f} {down(mean.low):.1f}V{down(mean.high):.1f}"
            parts.append(_mark(whisker, x, down(mean.mean), colour, _said(family.name, mean)))
    return _document(height, parts)


def interval_list(families: Sequence[Family], *, title: str, x_title: str) -> str:
    """Return one line a mean, families one below the other, as an SVG document."""
    means = [mean for family in families for mean in family.means]
    xs = _ticks(min(0.0, *(mean.low for mean in means)), max(mean.high for mean in means))
    height = TOP + LINE * len(means) + BOTTOM
    parts = _frame(height, title, [family.name for family in families])

    def across(value: float) -> float:
        return LABELS + (WIDTH - LABELS - RIGHT) * (value - xs[0]) / (xs[-1] - xs[0])

    for value in xs:
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {TOP - 8}V{height - BOTTOM}" stroke="{LIGHT.line}"/>')
        parts.append(_text(x, height - BOTTOM + 18, f"{value:g}", anchor="middle"))
    parts.append(_text((LABELS + WIDTH - RIGHT) / 2, height - 8, x_title, anchor="middle"))
    y = TOP + LINE / 2
    for index, family in enumerate(families):
        colour = COLOURS[index % len(COLOURS)]
        for mean in family.means:
            parts.append(_text(LABELS - 12, y + 4, mean.label, anchor="end"))
            whisker = f"M{across(mean.low):.1f} {y:.1f}H{across(mean.high):.1f}"
            parts.append(_mark(whisker, across(mean.mean), y, colour, _said(family.name, mean)))
            y += LINE
    return _document(height, parts)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose a range, four to nine of them."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** floor(log10(span))
    step *= next(factor for factor in (1.0, 0.5, 0.2, 0.1) if span / (step * factor) >= 3)
    first = floor(low / step + 1e-9)
    count = 1
    while (first + count) * step < high - 1e-9 * span:
        count += 1
    return [round((first + index) * step, 12) for index in range(count + 1)]


def _frame(height: int, title: str, names: Sequence[str]) -> list[str]:
    parts = [f'<rect width="{WIDTH}" height="{height}" fill="{LIGHT.surface}"/>']
    parts.append(_text(16, 20, title, size=14, colour=LIGHT.text))
    x = 16.0
    for index, name in enumerate(names if len(names) > 1 else []):
        parts.append(f'<circle cx="{x + 4:.1f}" cy="36" r="4" fill="{COLOURS[index % len(COLOURS)]}"/>')
        parts.append(_text(x + 13, 40, name))
        x += 34 + 6.6 * len(name)
    return parts


def _mark(whisker: str, x: float, y: float, colour: str, said: str) -> str:
    return (
        f"<g><title>{escape(said)}</title>"
        f'<path d="{whisker}" stroke="{colour}" stroke-width="2" stroke-opacity="0.45"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/></g>'
    )


def _said(name: str, mean: Mean) -> str:
    return f"{mean.label or name}: {mean.mean:.4g} ({mean.low:.4g} to {mean.high:.4g})"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, colour: str = LIGHT.text_2
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"


def _document(height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
    return "\n".join([f"{head} font-family='{FONT}'>", *parts, "</svg>"]) + "\n"
