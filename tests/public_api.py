"""Reads from the notebooks which names of the project they use: these are its public interface."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
PACKAGES = ("workbench", "kernels")


def used_names(notebook: Path) -> set[str]:
    """Return the full names, such as `workbench.planning.cost`, that the code of a notebook takes from us."""
    cells = nbformat.read(notebook, as_version=4).cells
    tree = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    modules: dict[str, str] = {}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if is_module(full):
                    modules[alias.asname or alias.name] = full
                else:
                    names.add(full)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            names.add(f"{modules[node.value.id]}.{node.attr}")
    return names


def is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def public_names() -> set[str]:
    """Return the names that all notebooks together use."""
    return set().union(*(used_names(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))))


def resolve(name: str) -> object:
    """Return the object of a full name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
