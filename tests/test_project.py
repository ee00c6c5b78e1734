"""The project's own promises: pins agree, paths named in the documents exist, imports point one way."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;\"']+)")


def _pins(text: str) -> dict[str, str]:
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def _constraints() -> dict[str, str]:
    return _pins((ROOT / "constraints.txt").read_text())


def test_conda_and_pip_install_the_same_versions() -> None:
    constraints = _constraints()
    conda = _pins((ROOT / "environment.yml").read_text())
    assert {name: constraints.get(name) for name in conda} == conda


def test_every_pin_in_the_project_file_agrees_with_the_constraints() -> None:
    constraints = _constraints()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]
    pinned = _pins("\n".join(lines))
    assert {name: constraints.get(name) for name in pinned} == pinned
    names = {re.split(r"[<>=;\s]", line)[0].lower().replace("_", "-") for line in lines}
    assert names <= constraints.keys(), "every direct dependency has a pin in constraints.txt"


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_path_named_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|ipynb|toml|yml|json|css|html|js))`", text))
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if ".venv" not in path.parts}
    missing = [path for path in named if not any(file == path or file.endswith("/" + path) for file in files)]
    generated = {"index.html", "comparison.json", "manifest.json", "capture.json", "bank.json", "plan.json",
                 "student.json", "study.json", "config.json", "metrics.jsonl"}  # fmt: skip
    assert not [path for path in missing if Path(path).name not in generated]


def test_imports_point_one_way() -> None:
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_nothing_carries_a_path_of_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wrong = re.compile(r"/work/main|/root/|/home/\w+/|files\.pythonhosted|pypi\.org|registry\.npmjs")
    texts = [
        name
        for name in listed
        if Path(name).suffix in {".py", ".md", ".json", ".toml", ".yml", ".ipynb", ".js"}
    ]
    assert not [
        name for name in texts if name != "tests/test_project.py" and wrong.search((ROOT / name).read_text())
    ]
