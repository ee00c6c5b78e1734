"""Each notebook runs from top to bottom in a real kernel, on the model that ships, with the smoke preset."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PLOT, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


SHOWN = {
    "00_first_study": {PLOT: 3, "text/html": 1},
    "01_attention": {PLOT: 3, WIDGET: 3},
    "02_plan_and_surgery": {PLOT: 4, WIDGET: 2},
    "03_distill": {PLOT: 4, WIDGET: 1},
    "04_compare": {PLOT: 2, WIDGET: 1, "text/markdown": 1},
    "05_operators_and_kernels": {PLOT: 3},
}
"""What a reader of each notebook gets to see, at least."""


def run_notebook(path: Path, workspace: Path, *, preset: str) -> nbformat.NotebookNode:
    """Run a notebook as a reader would, in a real kernel, and return it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_PRESET", preset)
        patch.setenv("WORKBENCH_WORKSPACE", str(workspace))
        client.execute()
    return notebook


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    check_shown(path, run_notebook(path, tmp_path / "workspace", preset="smoke"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_at_full_length(path: Path, tmp_path: Path) -> None:
    check_shown(path, run_notebook(path, tmp_path / "workspace", preset="quickstart"))


def check_shown(path: Path, notebook: nbformat.NotebookNode) -> None:
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    for kind, least in SHOWN[path.stem].items():
        assert shown.count(kind) >= least, f"{kind} is shown {shown.count(kind)} times"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
