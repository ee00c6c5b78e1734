"""What every page is built from: the workspace, the queue, the model's name; and how a handler refuses.

Knows no page. Nothing here holds a model or a tensor.
"""

from __future__ import annotations

import functools
import hashlib
import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from workbench.errors import InputError, WorkbenchError
from workbench.jobs import Job, Queue
from workbench.ui.presenters.commands import command_line, expected_seconds, priced, work_units
from workbench.ui.session import Study, restore
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.models import ModelFacts


@dataclass(frozen=True)
class Refresh:
    """A page's way to show the study anew: `show(study)` gives one value for each of `outputs`."""

    show: Callable[..., Any]
    outputs: list[Any]


@dataclass(frozen=True)
class Context:
    """The workspace being served, seen from one model.

    Attributes:
        model: registry name or folder; of the context that pages are built with, the one they start with.
    """

    workspace: Workspace
    model: str
    queue: Queue
    refreshes: list[Refresh] = field(default_factory=list)
    _others: dict[str, Context] = field(default_factory=dict, compare=False)

    def at(self, study: Study) -> Context:
        """Return this context for the model of a study; whatever a handler does with a model goes through it.

        Raises:
            InputError: the model is not known or is gone.
        """
        if study.model in ("", self.model):
            self._look_again()
            return self
        other = self._others.get(study.model)
        if other is None or not other.facts.fingerprint:
            other = replace(self, model=study.model)
            other.facts  # noqa: B018  (an unknown model is refused and not kept)
            self._others[study.model] = other
        return self._others[study.model]

    def _look_again(self) -> None:
        """Forget the facts of a model whose weights were not here: they may have been fetched since."""
        known = self.__dict__.get("facts")
        if known is not None and not known.fingerprint:
            del self.__dict__["facts"]

    @cached_property
    def facts(self) -> ModelFacts:
        """Facts of the model, from its configuration alone."""
        from workbench.models import model_facts

        return model_facts(self.model)

    @cached_property
    def load_capture(self) -> Callable[[Path], Capture]:
        """Reader of captures that keeps the last few: a page asks for one row after another."""
        from workbench.capture import load

        return functools.lru_cache(maxsize=4)(load)

    def estimate(self, kind: str, settings: Mapping[str, Any]) -> float | None:
        """Return the seconds that a job should take where an earlier one of its kind and model tells."""
        done = [job for job in self.queue.list(states=("done",)) if job.kind == kind and self._is_mine(job)]
        if not done:
            return None
        last = done[-1]
        sizes = {"num_blocks": self.facts.num_blocks, "default_steps": self.facts.default_steps}
        ratio = work_units(kind, settings, **sizes) / work_units(kind, last.config, **sizes)
        rows, _ = self.queue.metrics(last.id)
        return expected_seconds(rows, last.seconds, ratio=ratio)

    def price(self, verb: str, kind: str, settings: Mapping[str, Any]) -> str:
        """Return the word on a button, with what it should take where an earlier job tells."""
        return priced(verb, self.estimate(kind, settings))

    def _is_mine(self, job: Job) -> bool:
        return job.kind in ("compare", "finetune") or job.config.get("model") == self.model

    def submit(self, kind: str, settings: Mapping[str, Any], *, title: str) -> Job:
        """Check the settings and queue the step; the same work still under way is returned instead.

        Raises:
            InputError: one sentence that names the setting.
        """
        from workbench.workflow import check

        config = check(kind, dict(settings)).model_dump(mode="json")
        under_way = [
            job for job in self.queue.list() if job.kind == kind and not job.ended and job.config == config
        ]
        if under_way:
            return under_way[0]
        if kind != "render":  # a clip that only follows the painter makes room for what was asked for
            for job in self.queue.list():
                if job.kind == "render" and not job.ended:
                    self.queue.cancel(job.id)
        count = sum(job.kind == kind and job.config == config for job in self.queue.list())
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
        job = self.queue.submit(
            kind,
            config,
            key=f"app-{kind}-{digest}-{count}",
            title=title,
            command=command_line(kind, settings, self.workspace),
        )
        self.queue.dispatch()
        return job


def refusing(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a refusal inside an event handler into gradio's error: one sentence, shown as text."""

    @functools.wraps(handler)
    def guarded(*values: Any, **named: Any) -> Any:
        try:
            return handler(*values, **named)
        except WorkbenchError as error:
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False, duration=15) from None

    return guarded


def answering(question: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    """Turn a refusal inside a function that a script calls into `{"error": sentence}`."""

    @functools.wraps(question)
    def answered(data: Any = None) -> dict[str, Any]:
        try:
            if data is not None and not isinstance(data, dict):
                raise InputError("A question to the workbench is an object with named fields.")
            return question(data or {})
        except WorkbenchError as error:
            return {"error": str(error)}

    return answered


def asked_of(context: Context, question: Mapping[str, Any]) -> tuple[Context, Study]:
    """Return the context and the study that a script asks about, by the ids that the study bar gave it."""
    ids = question.get("ids")
    named = {key: one for key, one in ids.items() if isinstance(one, str)} if isinstance(ids, dict) else {}
    here = context.at(Study(model=named.get("model", "")))
    return here, restore(context.workspace, named, here.facts, model=here.model)


def whole_number(value: object, *, what: str) -> int:
    """Return a number from a form as an int.

    Raises:
        InputError: it is empty, a fraction or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} must be a whole number, got {str(value)[:40]!r}.")
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{what} must be a whole number, got {value!r}.")
    return int(value)
