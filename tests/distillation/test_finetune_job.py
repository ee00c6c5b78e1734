"""Finetuning as a job streams its loss, shows a sample, pauses, and goes on to the bits of a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distillation.test_finetune import SMALL, bits
from tests.distillation.test_measure import run
from tests.jobs.harness import a_queue, reached_step, wait_for, wait_until
from workbench.distillation import FinetuneConfig
from workbench.models import LoadedModel
from workbench.operators import parse_rate
from workbench.planning.plan import make_plan
from workbench.surgery import save_student
from workbench.video import read_mp4
from workbench.workspace import Workspace

pytestmark = pytest.mark.slow
PATIENT = {"WORKBENCH_SAVE_SECONDS": "5"}


def test_a_paused_job_ends_with_the_bits_of_a_whole_one(
    micro_model: LoadedModel, workspace: Workspace, tmp_path: Path
) -> None:
    bank = run(micro_model, workspace, updates=20, rates=("linear",))
    plan = make_plan({0: parse_rate("linear"), 2: parse_rate("linear")}, micro_model.facts)
    student = save_student(plan, bank, workspace)
    settings = {**SMALL, "updates": 300, "sample_every": 150, "model": str(student)}
    config = FinetuneConfig(**settings).model_dump(mode="json")  # type: ignore[arg-type]
    with a_queue(tmp_path / "jobs", WORKBENCH_STEPS="workbench.workflow:STEPS", **PATIENT) as queue:
        first = queue.submit("finetune", config)
        queue.dispatch()
        wait_until(lambda: reached_step(queue, first.id, 60))
        queue.sample_now(first.id)
        queue.pause(first.id)
        wait_for(queue, first.id, "paused")
        queue.resume(first.id)
        queue.dispatch()
        ended = wait_for(queue, first.id, "done")
        second = queue.submit("finetune", {**config, "name": "whole"})
        queue.dispatch()
        whole = wait_for(queue, second.id, "done")
        rows = queue.metrics(first.id).rows
    assert ended.result is not None and whole.result is not None
    assert bits(Path(ended.result["student"])) == bits(Path(whole.result["student"]))
    assert {row["step"] for row in rows if "loss" in row} == set(range(1, 301))
    samples = [row for row in rows if row.get("event") == "sample"]
    assert {150, 300} < {row["step"] for row in samples}, "one was asked for, two came by themselves"
    sample = samples[0]
    assert read_mp4(queue.workspace.root / sample["path"]).shape == (9, 48, 32, 3)
