"""Run the notebooks and write them as HTML that works offline: `python -m workbench.widgets.pages`.

Figures keep their zoom (plotly's script stands once in each document), the parts of the interface play
without Python, and what needs a running kernel says so. Nothing is fetched from another host.
"""

from __future__ import annotations

import argparse
import html
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from workbench.widgets.part import STILL_ENVIRONMENT

WIDGET, PLOT = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"
LIVE = "<p><em>A live widget stands here when the notebook runs.</em></p>"
PREAMBLE = (
    "import plotly.graph_objects as _go\n"
    f"_go.FigureWidget._repr_mimebundle_ = lambda self, **_: {{{PLOT!r}: self.to_plotly_json()}}"
)
OUTSIDE = (
    "https://cdnjs.cloudflare.com",
    "https://cdn.jsdelivr.net",
    "https://unpkg.com",
    "https://cdn.plot.ly",
)


def main(arguments: list[str] | None = None) -> int:
    """Render the notebooks named on the command line, or all of them."""
    parser = argparse.ArgumentParser(prog="workbench.widgets.pages", description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(Path("notebooks").glob("*.ipynb")))
    parser.add_argument("--out", type=Path, default=Path("build/notebooks"))
    parser.add_argument("--preset", choices=("quickstart", "smoke"), default="quickstart")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.notebooks:
        page = render(path, preset=options.preset)
        (options.out / f"{path.stem}.html").write_text(page, encoding="utf-8")
        sys.stdout.write(f"{options.out / path.stem}.html\n")
    return 0


def render(path: Path, *, preset: str) -> str:
    """Run a notebook in a kernel of its own and return it as one HTML document."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(PREAMBLE))
    os.environ[STILL_ENVIRONMENT] = "1"
    os.environ["WORKBENCH_PRESET"] = preset
    NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(path.parent)}}).execute()
    del notebook.cells[0]
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = _still_data(output["data"])
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="")
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": html.escape(path.stem)}})
    return _without_hosts(body.replace("</head>", f"<script>{_plotly()}</script></head>", 1))


def _still_data(data: dict[str, object]) -> dict[str, object]:
    if PLOT in data:
        import plotly.io

        figure = plotly.io.from_json(plotly.io.json.to_json_plotly(data[PLOT]), skip_invalid=True)
        markup = plotly.io.to_html(figure, include_plotlyjs=False, full_html=False)
        return {"text/html": markup}
    if WIDGET in data:
        return {"text/html": LIVE}
    return data


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _without_hosts(page: str) -> str:
    """Take out the template's links to other hosts; plotly's own script only names them in texts."""
    head, mark, rest = page.partition("<script>" + _plotly()[:80])
    lines = [line for line in head.splitlines() if not any(host in line for host in OUTSIDE)]
    return "\n".join(lines) + mark + rest


if __name__ == "__main__":
    sys.exit(main())
