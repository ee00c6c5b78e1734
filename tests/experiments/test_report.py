"""Figures and tables: every result file becomes both, and the page has a place for each experiment."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from workbench.experiments import EXPERIMENTS
from workbench.experiments.tables import PAGE, variant_means
from workbench.visualization import Family, Mean, interval_list, interval_plot


def test_the_page_has_a_place_for_every_experiment() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in EXPERIMENTS:
        assert text.count(f"<!-- experiment {name}: begin -->") == 1
        assert text.count(f"<!-- experiment {name}: end -->") == 1


def test_variants_are_compared_prompt_by_prompt() -> None:
    def row(variant: str, block: int, errors: list[float]) -> dict[str, object]:
        extra = {"rate": "R4", "error_off": 0.4, "error_undistilled": 0.5}
        return {"variant": variant, "block": block, "by_prompt": errors, **extra}

    rows = [
        row("usual", 0, [0.1, 0.3]),
        row("usual", 4, [0.3, 0.5]),
        row("degree 1", 0, [0.2, 0.4]),
        row("degree 1", 4, [0.4, 0.6]),
    ]
    usual, other = variant_means(rows, "R4")
    assert usual.mean == pytest.approx(0.3) and usual.change is None
    assert (usual.low, usual.high) == (pytest.approx(0.2), pytest.approx(0.4))
    assert other.change == {"mean": pytest.approx(0.1), "low": pytest.approx(0.1), "high": pytest.approx(0.1)}


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (-3.0, -8.0, 1.0), (0.012, 0.011, 0.013)])
def test_axes_enclose_the_intervals(values: tuple[float, float, float]) -> None:
    families = [Family("one", (Mean(*values, x=0.4, label="a < b"), Mean(0.001, 0.0, 0.002, x=0.4)))]
    for document in (
        interval_plot(families, title="T", x_title="x", y_title="y"),
        interval_list(families, title="T", x_title="x"),
    ):
        root = ElementTree.fromstring(document)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
        assert len(circles) == 2
        assert all(0 <= float(mark.attrib["cx"]) <= width for mark in circles)
        assert all(0 <= float(mark.attrib["cy"]) <= height for mark in circles)
        assert "a &lt; b" in document
