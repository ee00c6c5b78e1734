"""Run experiments: their conditions in one pool of workers, the rows of each into its own file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import InputError
from workbench.experiments.catalogue import EXPERIMENTS
from workbench.experiments.conditions import Condition
from workbench.experiments.experiment import Experiment
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.pool import Outcome, do_all
from workbench.experiments.results import Results, Row, origin_of
from workbench.experiments.settings import SHARED, Scale, Shared
from workbench.experiments.tasks import Task
from workbench.models.loader import Device
from workbench.types import StrictModel
from workbench.workspace import Workspace

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to run.

    Attributes:
        names: of experiments, or "all" alone.
        scale: which of their settings.
        out: folder of the result files.
        workers: processes, which may share a GPU; 1 runs everything in this one.
        again: start over instead of going on.
        shared, configs: other settings than those of the scale, for tests.
    """

    names: Sequence[str]
    scale: Scale
    out: Path
    workers: int = 1
    again: bool = False
    command: str = ""
    device: Device = "auto"
    shared: Shared | None = None
    configs: Mapping[str, StrictModel] | None = None


@dataclass(frozen=True)
class _Measure:
    """A condition of an experiment, as a task."""

    experiment: str
    condition: Condition

    @property
    def key(self) -> str:
        return f"{self.experiment}: {self.condition.key}"

    def needs(self, lab: Laboratory) -> tuple[Task, ...]:
        return self.condition.needs(lab)

    def run(self, lab: Laboratory) -> list[Row]:
        return self.condition.run(lab)


def run(order: Order, workspace: Workspace, *, tell: Tell) -> list[Path]:
    """Run experiments, or go on where an earlier run was stopped; a condition that fails is kept as such.

    Args:
        order: what to run.
        workspace: holds trajectories, banks, students and clips, which experiments share.
        tell: hears one line for every piece of work that is done.

    Returns:
        The result files.

    Raises:
        InputError: an unknown experiment, or result files of other settings or weights.
    """
    experiments = chosen(order.names)
    lab = Laboratory(order.shared or SHARED[order.scale], workspace, device=order.device)
    origin = origin_of(lab.model.device, command=order.command, workers=order.workers)
    files: dict[str, Results] = {}
    tasks: list[Task] = []
    for experiment in experiments:
        config = (order.configs or experiment.configs)[experiment.name if order.configs else order.scale]  # type: ignore[index]
        conditions = experiment.conditions(config, lab)
        file = result_file(order.out, experiment.name, order.scale)
        if order.again:
            file.unlink(missing_ok=True)
        keys = [condition.key for condition in conditions]
        results = Results.open(file, head=_head(experiment, lab, config), origin=origin, order=keys)
        files[experiment.name] = results
        tasks += [_Measure(experiment.name, one) for one in conditions if not results.done(one.key)]

    def keep(outcome: Outcome, done: int, total: int) -> None:
        task = outcome.task
        said = f"failed: {outcome.failed}" if outcome.failed else f"{outcome.seconds:.1f} s"
        tell(f"[{done}/{total}] {task.key}: {said}")
        if isinstance(task, _Measure):
            results = files[task.experiment]
            if outcome.failed:
                results.fail(task.condition.key, outcome.failed)
            else:
                results.add(task.condition.key, outcome.rows, seconds=outcome.seconds)

    do_all(tasks, lab, workers=order.workers, tell=keep)
    for experiment in experiments:
        results = files[experiment.name]
        good = [row for row in results.rows if "failed" not in row]
        results.finish(experiment.conclude(good))
    return [results.path for results in files.values()]


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Return experiments by name.

    Raises:
        InputError: there is none of that name.
    """
    if list(names) == ["all"]:
        return list(EXPERIMENTS.values())
    for name in names:
        if name not in EXPERIMENTS:
            raise InputError(
                f"There is no experiment {name[:40]!r}; known: {', '.join(EXPERIMENTS)} and all."
            )
    return [EXPERIMENTS[name] for name in names]


def result_file(folder: Path, name: str, scale: Scale) -> Path:
    """Return where the rows of an experiment are kept."""
    return folder / (f"{name}.json" if scale == "full" else f"{name}.{scale}.json")


def _head(experiment: Experiment, lab: Laboratory, config: StrictModel) -> Row:
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "question": experiment.question,
        "model": {"name": lab.model.name, "fingerprint": lab.model.fingerprint},
        "shared": json.loads(lab.shared.model_dump_json()),
        "settings": json.loads(config.model_dump_json()),
    }
