"""Small shared types: sizes, strict configuration models, and the channel on which long work reports.

Knows nothing of models, files or jobs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import InputError

if TYPE_CHECKING:
    import torch
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class ClipSize(NamedTuple):
    """Size of a clip in pixels: number of frames, height, width."""

    frames: int
    height: int
    width: int


class TokenGrid(NamedTuple):
    """Latent tokens of a clip, (frames, height, width), flattened frame-major."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        return self.frames * self.height * self.width


class _OneSentence(ModelMetaclass):
    """Makes `Config(...)` in Python refuse as `Config.parse(...)` does."""

    def __call__(cls, *arguments: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*arguments, **fields)
        except ValidationError as error:
            raise InputError(f"{cls.__name__}: {_first_problem(cls, error)}") from None


class StrictModel(BaseModel, metaclass=_OneSentence):
    """Base of every configuration and artefact: frozen, strict, no unknown keys, finite numbers."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, what: str) -> Self:
        """Validate plain JSON data.

        Args:
            data: decoded JSON.
            what: how to call the thing in an error, for example "plan demo.json".

        Raises:
            InputError: one sentence that names the first wrong field, what came and what was expected.
        """
        try:
            return cls.model_validate_json(json.dumps(data))
        except ValidationError as error:
            raise InputError(f"{what}: {_first_problem(cls, error)}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{what} is not plain JSON data ({error}).") from None


def _first_problem(model: Any, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the document"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), list(model.model_fields), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(model.model_fields)}."
        return f"'{place}' is not a known field{hint}"
    if first["type"] == "missing":
        return f"the field '{place}' is missing."
    came = "" if isinstance(first["input"], dict | list) else f", got {str(first['input'])[:80]!r}"
    if first["type"] == "too_long":
        limits = first["ctx"]
        return f"'{place}' holds {limits['actual_length']}, and at most {limits['max_length']} are allowed."
    message = first["msg"].removeprefix("Value error, ")
    return f"'{place}': {message}{came}."


@dataclass(frozen=True)
class CheckpointState:
    """State of interrupted work: named tensors, and JSON data for everything else (RNG, counters)."""

    tensors: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)


class Reporter(Protocol):
    """How long work talks to whoever watches it; a job, a terminal and a notebook each have one."""

    def stage(self, name: str, steps: int) -> None:
        """Start a named stage of `steps` steps."""

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        """Report that `step` steps of the stage are done, with their metrics.

        `state`, where given, builds the state from which the work could go on; it is called only when a
        checkpoint is due.

        Raises:
            Cancelled, Paused: when the user asked for it (after saving, where `state` was given).
        """

    def restore(self) -> CheckpointState | None:
        """Return the state to go on from, or None to start from nothing."""

    def note(self, text: str) -> None:
        """Show one sentence to the user."""

    def offer_sample(self, make: Callable[[], Path], every: int = 0) -> None:
        """Offer a clip of the work's present state; `make` is called between two steps when the user asks.

        It is also called after every `every` steps of a stage, where that is not 0.
        """


class SilentReporter:
    """A reporter for in-process use: keeps nothing, saves nothing, never interrupts."""

    def stage(self, name: str, steps: int) -> None:
        pass

    def step(
        self, step: int, *, state: Callable[[], CheckpointState] | None = None, **metrics: float
    ) -> None:
        pass

    def restore(self) -> CheckpointState | None:
        return None

    def note(self, text: str) -> None:
        pass

    def offer_sample(self, make: Callable[[], Path], every: int = 0) -> None:
        pass
