"""From artefacts and jobs to the plain data that the parts show: no gradio, no markup, one file per page."""

from __future__ import annotations

OPERATORS = ("softmax", "R2", "R4", "R8", "R16", "linear")
"""Columns of the painter, cool to warm."""
