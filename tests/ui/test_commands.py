"""The command shown for a job is one that the command line takes."""

from __future__ import annotations

import shlex

import pytest
import typer

from workbench.cli.app import app
from workbench.ui.presenters.commands import command_line, expected_seconds, priced, work_units
from workbench.workspace import Workspace


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("capture", {"model": "embedded", "prompt": "a 'red' ball; rm -rf $HOME", "seed": 3, "steps": 2}),
        (
            "measure",
            {"model": "embedded", "blocks": [0, 5], "rates": ["R4", "linear"], "updates": 8, "extend": None},
        ),
        ("download", {"model": "owner/a-model", "allow_network": True}),
        ("surgery", {"plan": "/tmp/a plan.json", "bank": "/tmp/bank", "name": ""}),
        ("compare", {"model": "/tmp/student", "prompt": "a ball", "seed": 0, "steps": 2}),
        ("compare", {"model": "m", "plan": "p", "bank": "b", "prompt": "a ball", "seed": 0, "steps": 2}),
        (
            "compare",
            {
                "model": "m",
                "prompt": "a ball",
                "more_prompts": ["a cube"],
                "sides": [
                    {"model": "/a"},
                    {"plan": "2xR4", "bank": "/b"},
                    {"model": "/a", "linear_branch": False},
                ],
                "seed": 0,
                "steps": 2,
            },
        ),
    ],
)
def test_the_command_line_takes_it(kind: str, settings: dict[str, object], workspace: Workspace) -> None:
    words = shlex.split(command_line(kind, settings, workspace))
    assert words[:2] == ["workbench", kind]
    command = typer.main.get_command(app).commands[kind]  # type: ignore[attr-defined]
    context = command.make_context(kind, words[2:], resilient_parsing=False)
    for name in ("prompt", "seed", "steps", "updates"):
        if name in settings:
            taken = context.params[name]
            assert (taken[0] if isinstance(taken, list | tuple) else taken) == settings[name]
    if "sides" in settings:
        assert list(context.params["prompt"]) == ["a ball", "a cube"] and context.params["branch_off"]
        assert list(context.params["model"]) == ["/a"] and list(context.params["plan"]) == ["2xR4"]


def test_prices_grow_with_the_work_and_not_with_loading_the_model() -> None:
    sizes = {"num_blocks": 10, "default_steps": 20}
    assert work_units("measure", {"blocks": None, "rates": ["R4"], "updates": 5}, **sizes) == 50
    assert work_units("capture", {}, **sizes) == 20
    rows = [{"stage": "sampling", "step": step, "seconds": 10.0 + step} for step in range(1, 5)]
    assert expected_seconds(rows, 20.0, ratio=1) == pytest.approx(20)
    assert expected_seconds(rows, 20.0, ratio=10) == pytest.approx(17 + 30)
    assert expected_seconds([], 20.0, ratio=10) == 20
    assert priced("Capture", None) == "Capture" and priced("Capture", 13.2) == "Capture, about 13 s"
    assert priced("Measure", 600) == "Measure, about 10 min"
