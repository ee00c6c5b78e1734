"""What stands in for pydantic in the loader of a bundle, which needs torch and diffusers only.

Specs there are plain frozen dataclasses: the workbench checked their values before they were written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, dataclass_transform


@dataclass_transform(frozen_default=True, kw_only_default=True)
class StrictModel:
    """Base of specs: every subclass is a frozen dataclass."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        dataclass(frozen=True, kw_only=True)(cls)


def Field(**_: Any) -> None:
    """Stand for a constraint that nothing checks here."""
    return None
