"""Make the candidates for the student that ships, judge them, put the best into the package."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workbench.distillation import FinetuneConfig, finetune, preset, velocity_error
from workbench.distillation.finetuned import FILE as RECORD
from workbench.errors import Diverged, InputError, WorkbenchError
from workbench.experiments.candidates import (
    RULE,
    Candidate,
    choose,
    finetuning_of,
    row_of,
    settle,
    teacher_row,
)
from workbench.experiments.clips import Numbers, clip_numbers
from workbench.experiments.laboratory import Laboratory
from workbench.experiments.pool import Outcome, do_all
from workbench.experiments.results import Row, origin_of
from workbench.experiments.settings import FULL, TEACHER, KeptStudent, Setup, Shared
from workbench.experiments.tasks import ClipsTask
from workbench.jobs.tensors import save_tensors
from workbench.models.prompts import has_closed_vocabulary
from workbench.planning import Bank, Plan, load, load_bank, save
from workbench.planning.bank import file_digest
from workbench.surgery import Student, read_student, restore, save_student
from workbench.surgery.lora import LORA
from workbench.surgery.student import CELLS, PLAN, STUDENT
from workbench.surgery.weights import WEIGHTS
from workbench.types import SilentReporter
from workbench.workspace import Workspace, read_json, write_json

NAME = "embedded-student"
VELOCITY_PROMPTS, VELOCITY_STATES = 8, 4
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Shipping:
    """What is made and how it is judged.

    Attributes:
        plans: plan files or short names, one or two candidates each.
        students: folders of students that were finetuned before, on a GPU say; candidates too, each beside
            the distilled student of its plan, which must be among `plans`.
        finetune_minutes: about how long each is finetuned on two CPU cores; 0 for none.
        num: held-out prompts, one clip each.
        steps, frames: of the clips; None takes the model's own.
        workers: processes that sample and judge, which may share a GPU.
        command: how it was asked for, for the record.
    """

    plans: tuple[str, ...]
    bank: str = "embedded"
    model: str = "embedded"
    students: tuple[str, ...] = ()
    finetune_minutes: float = 0.0
    num: int = 50
    steps: int | None = None
    frames: int | None = None
    workers: int = 1
    command: str = ""

    @property
    def shared(self) -> Shared:
        """Settings of the laboratory that judges; of clips a task takes as many as go into `num`."""
        part = max(size for size in range(1, FULL.clips_a_task + 1) if self.num % size == 0)
        changes = {"model": self.model, "num_held_out": VELOCITY_PROMPTS, "states": VELOCITY_STATES}
        steps = min(self.steps or FULL.steps, FULL.steps)
        more = {"steps": steps, "clip_steps": self.steps, "clips_a_task": part}
        return FULL.model_copy(update=changes | more)


def ship(order: Shipping, workspace: Workspace, *, out: Path, folder: Path, tell: Tell) -> Row:
    """Make all candidates, judge them, write the result file, and put the best into a folder.

    Args:
        order: what is made.
        workspace: keeps clips, trajectories and finetuned students, so that a stopped run goes on.
        out: result file.
        folder: where the best is put; its name is the student's.
        tell: hears one line for every piece of work that is done.

    Returns:
        The row of the one that was chosen.

    Raises:
        InputError: a plan, bank, student or teacher that misfits, or a count below 1; before anything is
            sampled.
        WorkbenchError: a clip could not be made; the same command goes on.
    """
    if min(order.num, order.steps or 1, order.workers) < 1:
        raise InputError("Judging needs at least one clip, one step and one process; ask for 1 or more.")
    lab = Laboratory(order.shared, workspace)
    facts = lab.facts
    if not has_closed_vocabulary(facts):
        raise InputError(
            f"Clips are judged on scenes of the embedded world, and {facts.name} does not know the embedded "
            "world; choose the embedded model as the teacher."
        )
    facts.check_size(lab.size(order.frames))
    bank = load_bank(Path(order.bank), facts)
    plans = [load(plan, facts) for plan in order.plans]
    for plan in plans:
        bank.check_complete(plan)
    if len({tuple(plan.operators) for plan in plans}) < len(plans):
        raise InputError("Two of the plans give every block the same operator; name each plan once.")
    _check_students([read_student(one) for one in order.students], bank, plans)
    candidates = make_candidates(order, lab, bank, plans, tell=tell)
    judged = [one for one in candidates if not one.lost]
    tell(f"judging {len(judged)} students and the teacher on {order.num} prompts")
    teacher, *found = _judge(order, lab, [TEACHER, *map(_setup, judged)], tell=tell)
    numbers = dict(zip([one.folder for one in judged], found, strict=True))
    rows = [row_of(one, numbers.get(one.folder, ()), teacher) for one in candidates]
    settle(rows)
    best = choose(rows)
    best["shipped"] = True
    document = {
        "schema_version": 1,
        "what": "candidates for the student that ships, judged in half precision beside their teacher",
        "rule": RULE,
        "chosen": best["name"],
        "prompts": order.num,
        "teacher": teacher_row(lab, teacher),
        "rows": rows,
        "intervals": "95 %: percentile bootstrap over prompts",
        "velocity": f"{VELOCITY_PROMPTS} held-out prompts, {VELOCITY_STATES} states each",
        **origin_of(lab.model.device, command=order.command, workers=order.workers),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, document)
    place = next(place for place, row in enumerate(rows) if row is best)
    _put(candidates[place], best, folder, order=order)
    return best


def make_candidates(
    order: Shipping, lab: Laboratory, bank: Bank, plans: Sequence[Plan], *, tell: Tell
) -> list[Candidate]:
    """Build every plan's student, and finetune it where that is asked for; measure their velocity errors."""
    workspace = lab.workspace
    made: list[Candidate] = []
    for plan in plans:
        start = _built(plan, bank, workspace)
        distilled = _measured(order, start, "distilled", lab)
        tell(f"{distilled.name}: velocity error {distilled.velocity_error:.4f}")
        made.append(distilled)
        tuned = [one for one in map(read_student, order.students) if _blocks(one.plan) == _blocks(plan)]
        if order.finetune_minutes > 0 and plan.converted:
            own = _tuned(order, lab, start, tell=tell)
            tuned += [] if own is None else [own]
        for student in tuned:
            made.append(_beside(_measured(order, student, "finetuned", lab), distilled))
            tell(f"{made[-1].name}: velocity error {made[-1].velocity_error:.4f} {made[-1].lost}".rstrip())
    return made


def _judge(order: Shipping, lab: Laboratory, setups: Sequence[Setup], *, tell: Tell) -> list[list[Numbers]]:
    """Sample and measure the clips of all setups, the teacher's first."""
    parts = range(order.num // lab.shared.clips_a_task)

    def keep(outcome: Outcome, done: int, total: int) -> None:
        if outcome.failed:
            raise WorkbenchError(f"{outcome.task.key} failed: {outcome.failed}")
        tell(f"[{done}/{total}] {outcome.task.key}: {outcome.seconds:.1f} s")

    tasks = [ClipsTask(setup, part, order.frames) for setup in setups for part in parts]
    do_all(tasks, lab, workers=order.workers, tell=keep)
    return [clip_numbers(lab, setup, range(order.num), frames=order.frames) for setup in setups]


def _setup(candidate: Candidate) -> KeptStudent:
    manifest = read_student(candidate.folder).manifest
    digests = [manifest.cells_sha256, manifest.lora_sha256, manifest.weights_sha256]
    identity = json.dumps([digests, _blocks(candidate.plan)], sort_keys=True)
    return KeptStudent(
        plan=candidate.plan.short_name,
        weights=candidate.weights,
        folder=str(candidate.folder),
        digest=hashlib.sha256(identity.encode()).hexdigest(),
    )


def _check_students(students: Sequence[Student], bank: Bank, plans: Sequence[Plan]) -> None:
    """Refuse finetuned students that no candidate stands beside, or that are not told apart."""
    known = [_blocks(plan) for plan in plans]
    for student in students:
        if student.manifest.teacher.fingerprint != bank.model_fingerprint:
            raise InputError(f"Student {student.name} has another teacher than the bank; finetune it again.")
        if _blocks(student.plan) not in known:
            raise InputError(
                f"Student {student.name} is {student.plan.short_name}; name that plan too, so that its "
                "distilled student stands beside it."
            )
    names = [(student.plan.short_name, finetuning_of(student)) for student in students]
    if len(set(names)) < len(names):
        raise InputError("Two of the students were finetuned alike; name each once.")


def _built(plan: Plan, bank: Bank, workspace: Workspace) -> Student:
    cells = [bank.cell(block, spec).sha256 for block, spec in plan.converted.items() if spec.needs_training]
    name = _name("start", bank.model_fingerprint, _blocks(plan), cells)
    return read_student(_find(workspace, name) or save_student(plan, bank, workspace, name=name))


def _tuned(order: Shipping, lab: Laboratory, start: Student, *, tell: Tell) -> Student | None:
    """Finetune a student, or read the one that is there; None where its loss diverged, which is told."""
    usual = preset("10min")
    settings = usual | {
        "updates": max(1, round(usual["updates"] * order.finetune_minutes / 10)),
        "num_prompts": min(48, max(2, round(usual["num_prompts"] * order.finetune_minutes / 10))),
        "sample_every": 0,
        "cache_megabytes": 4096,
    }
    sizes = {"steps": order.steps, "frames": order.frames}
    settings |= {name: value for name, value in sizes.items() if value is not None}
    config = FinetuneConfig(model=str(start.folder), **settings)
    name = _name("tuned", start.manifest.cells_sha256, _blocks(start.plan), settings)
    found = _find(lab.workspace, name)
    if found is None:
        tell(f"finetuning {start.plan.short_name}, {config.updates:,} updates")
        try:
            named = config.model_copy(update={"name": name})
            found = finetune(lab.model, named, lab.workspace, reporter=_Progress(tell))
        except Diverged as error:
            tell(str(error))
            return None
        finally:
            restore(lab.model)
    return read_student(found)


def _measured(
    order: Shipping, student: Student, weights: Literal["distilled", "finetuned"], lab: Laboratory
) -> Candidate:
    """Keep a student in half precision, and measure it as such."""
    manifest = student.manifest
    digests = [manifest.cells_sha256, manifest.lora_sha256]
    digests += [manifest.weights_sha256] if manifest.weights_sha256 else []
    name = _name("half", *digests, _blocks(student.plan))
    found = _find(lab.workspace, name)
    if found is None:
        with lab.workspace.new_folder("students", name=name) as made:
            write_halved(student, made.path, name=name)
        found = made.final
    halved = read_student(found)
    error = velocity_error(lab.model, halved.plan, halved, lab.states(order.frames))
    how = finetuning_of(student) if weights == "finetuned" else ""
    return Candidate(student.plan, weights, found, error, finetuning=how)


def _beside(tuned: Candidate, distilled: Candidate) -> Candidate:
    if tuned.velocity_error < distilled.velocity_error:
        return tuned
    lost = f"its velocity error is not below the distilled student's {distilled.velocity_error:.4f}"
    return replace(tuned, lost=lost)


def write_halved(
    student: Student, folder: Path, *, name: str, provenance: Mapping[str, str | int | float] | None = None
) -> None:
    """Write a student into an empty folder with all its weights in half precision.

    Raises:
        InputError: a file of the student is damaged.
        Diverged: a weight does not fit half precision.
    """
    digests = {}
    files = {CELLS: student.tensors, LORA: student.lora, WEIGHTS: student.own_weights}
    for file, tensors in files.items():
        if tensors or file == CELLS:
            halved = {key: tensor.half() for key, tensor in tensors.items()}
            save_tensors(folder / file, halved, {"format": "pt"})
            digests[file] = file_digest(folder / file)
    save(student.plan, folder / PLAN)
    if (student.folder / RECORD).is_file():
        record = read_json(student.folder / RECORD, what=f"{RECORD} of student {student.name}")
        config = {**record["config"], "model": Path(record["config"]["model"]).name}
        write_json(folder / RECORD, {**record, "config": config})
    changes = {
        "name": name,
        "cells_sha256": digests[CELLS],
        "lora_sha256": digests.get(LORA, ""),
        "weights_sha256": digests.get(WEIGHTS, ""),
        "provenance": {**student.manifest.provenance, **(provenance or {})},
    }
    write_json(folder / STUDENT, student.manifest.model_copy(update=changes).model_dump(mode="json"))


def _put(candidate: Candidate, row: Row, folder: Path, *, order: Shipping) -> None:
    """Put the chosen student into a folder in one move, with its figures in the manifest."""
    student = read_student(candidate.folder)
    figures: dict[str, str | int | float] = {
        "bank": Path(order.bank).name,
        "summary": row["summary"],
        "chosen_because": row["chosen_because"],
        "made_by": order.command,
        "weights": row["weights"],
        "attention_ratio": row["attention_ratio"],
        "adherence": row["adherence"]["mean"],
        "adherence_difference": row["adherence_difference"]["mean"],
        "adherence_difference_low": row["adherence_difference"]["low"],
        "adherence_difference_high": row["adherence_difference"]["high"],
        "motion_ratio": row["motion_ratio"]["ratio"],
        "held_out_velocity_error": row["velocity_error"],
        "prompts": order.num,
    }
    figures |= {name: row[name]["mean"] for name in ("psnr", "ssim") if row[name]}
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_halved(student, temporary, name=folder.name, provenance=figures)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _name(kind: str, *identity: Any) -> str:
    text = json.dumps(identity, sort_keys=True)
    return f"shipping {kind} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _find(workspace: Workspace, name: str) -> Path | None:
    return next(iter(sorted(workspace.folder("students").glob(f"*-{name.replace(' ', '-')}-????"))), None)


def _blocks(plan: Plan) -> Any:
    data = plan.model_dump(mode="json")
    return [data["blocks"], data["schedule"]]


class _Progress(SilentReporter):
    """Tells every fiftieth update."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.name, self.steps = tell, "", 0

    def stage(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps

    def step(self, step: int, *, state: Any = None, **metrics: float) -> None:
        if step % 50 == 0:
            shown = "".join(f", {name} {value:.4g}" for name, value in metrics.items())
            self.tell(f"{self.name} {step}/{self.steps}{shown}")

    def note(self, text: str) -> None:
        self.tell(text)
