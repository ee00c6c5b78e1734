"""Plotly figures and pictures: plain data in, figure out; the same for the app, notebooks and reports."""

from workbench.visualization.attention import map_sheet, metric_map, number, row_over_frames
from workbench.visualization.distillation import (
    CellError,
    Tradeoff,
    bank_bars,
    bank_heat,
    loss_curves,
    ordered_labels,
    pareto,
)
from workbench.visualization.images import colours_of, data_uri, normalised, overlay, tile_sheet
from workbench.visualization.intervals import Family, Mean, interval_list, interval_plot
from workbench.visualization.theme import (
    MASS,
    THEMES,
    ThemeName,
    difference_scale,
    mass_scale,
    operator_colour,
    template,
)

__all__ = [
    "MASS",
    "THEMES",
    "CellError",
    "Family",
    "Mean",
    "ThemeName",
    "Tradeoff",
    "bank_bars",
    "bank_heat",
    "colours_of",
    "data_uri",
    "difference_scale",
    "interval_list",
    "interval_plot",
    "loss_curves",
    "map_sheet",
    "mass_scale",
    "metric_map",
    "normalised",
    "number",
    "operator_colour",
    "ordered_labels",
    "overlay",
    "pareto",
    "row_over_frames",
    "template",
    "tile_sheet",
]
