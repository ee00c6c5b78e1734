"""Times of operators are measured at the model's shape, kept with its weights, and give plans a budget."""

from __future__ import annotations

from pathlib import Path

from tests.banks import write_bank
from workbench.evaluation.operator_times import find_times
from workbench.models import ModelFacts
from workbench.types import SilentReporter
from workbench.ui.presenters import plans
from workbench.workflow import STEPS, check
from workbench.workspace import Workspace


def test_times_are_kept_with_the_weights_and_budget_in_milliseconds(
    workspace: Workspace, micro_model_folder: Path, micro_facts: ModelFacts
) -> None:
    assert find_times(workspace, micro_facts) is None
    config = check("times", {"model": str(micro_model_folder), "rates": ["R2", "linear"], "repeats": 1})
    STEPS["times"].run(config, workspace, SilentReporter())
    found = find_times(workspace, micro_facts)
    assert found is not None and set(found.attention) == {"softmax", "R2", "linear"}
    assert found.timings.rest > 0 and not found.timings.is_estimate
    other = micro_facts.model_copy(update={"fingerprint": "0" * 16})
    assert find_times(workspace, other) is None, "other weights were not timed"
    longer = micro_facts.default_size._replace(frames=13)
    assert find_times(workspace, micro_facts, longer) is None, "another size was not timed"
    STEPS["times"].run(config.model_copy(update={"frames": 13}), workspace, SilentReporter())
    again = find_times(workspace, micro_facts, longer)
    assert again is not None and again.size == tuple(longer)
    assert find_times(workspace, micro_facts) == found, "both sizes are kept"
    bank = write_bank(workspace.folder("banks") / "b", micro_facts)
    everything = 3 * max(found.attention.values())
    best = plans.best_within(bank, everything, found.timings)
    assert best.error == 0 and set(best.labels) == {"softmax"}
