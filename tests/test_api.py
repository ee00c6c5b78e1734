"""docs/api.md lists exactly what the notebooks use, and everything in it exists and says what it is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.public_api import ROOT, public_names, resolve

LISTED = set(
    re.findall(r"^\| `([\w.]+)`", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
)


def test_the_document_lists_what_the_notebooks_use() -> None:
    assert public_names() == LISTED


@pytest.mark.parametrize("name", sorted(LISTED))
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    found = resolve(name)
    if isinstance(found, Callable):  # type: ignore[arg-type]
        assert (found.__doc__ or "").strip()
