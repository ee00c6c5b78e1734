"""Whatever a script asks, the answer is data or one sentence: no traceback, no path of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.jobs import Queue
from workbench.ui.context import Context
from workbench.ui.pages import attention, compare, runs
from workbench.workspace import Workspace

JUNK: list[Any] = [
    None, True, False, 0, -1, 2.5, 10**12, float("inf"), float("nan"), "", "x", "../../etc/passwd", "\x00",
    "\ud800", [], [1], ["x"], [[]], {}, {"x": 1}, "x" * 20_000,
]  # fmt: skip
FIELDS = (
    "ids", "capture", "block", "head", "patch", "step", "view", "cell", "mean", "rate", "degree", "width",
    "prompt", "prompts", "seed", "steps", "columns", "branch_off", "choices", "id", "ask", "after", "verb",
    "kind", "name", "job",
)  # fmt: skip


@pytest.fixture
def context(workspace: Workspace, micro_model_folder: Path) -> Context:
    return Context(workspace, str(micro_model_folder), Queue(workspace))


def questions(context: Context) -> dict[str, Callable[[Any], Any]]:
    calls = [
        *attention.form_calls(context),
        *attention.picture_calls(context),
        *compare.form_calls(context),
        *compare.show_calls(context),
        *compare.prompts.builder_calls(context),
        *runs.job_calls(context),
        *runs.stock_calls(context),
        runs.cancel_call(context),
    ]
    return {call.__name__: call for call in calls}


def test_every_question_is_answered(context: Context) -> None:
    for name, call in questions(context).items():
        for junk in JUNK:
            asked = [junk, dict.fromkeys(FIELDS, junk)]
            asked.append({"prompts": ["a ball"], "columns": junk})
            for question in asked:
                answer = call(question)
                assert isinstance(answer, dict), name
                sentence = answer.get("error", "")
                assert isinstance(sentence, str) and "\n" not in sentence and "Traceback" not in sentence
                assert str(context.workspace.root) not in sentence, f"{name} names a place of the server"


def test_a_mistyped_number_gets_the_sentence_of_the_form(context: Context) -> None:
    capture = questions(context)["capture"]
    good = {"prompt": "a ball", "seed": 0, "steps": 2}
    for change, named in (({"seed": 2.5}, "Seed"), ({"steps": None}, "Steps"), ({"steps": 0}, "steps")):
        assert named in capture(good | change)["error"]
    assert not context.queue.list(), "nothing was queued"


def test_every_verb_of_a_job_answers_in_every_state(context: Context) -> None:
    act = questions(context)["act"]
    job = context.queue.submit("capture", {"prompt": "a ball"})
    assert act({"id": job.id, "verb": "pause"})["say"]
    assert "only a running job" in act({"id": job.id, "verb": "save_now"})["error"]
    assert act({"id": job.id, "verb": "cancel"})["say"] == act({"id": job.id, "verb": "cancel"})["say"]
    assert "no verb" in act({"id": job.id, "verb": "submit"})["error"]
    assert act({"id": job.id, "verb": "delete"})["say"]
    assert "no job" in act({"id": job.id, "verb": "delete"})["error"]
