"""The promises of the jobs as functions that count: few repeats in the ordinary tests, all in the record."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from tests.jobs.harness import (
    AppProcess,
    a_queue,
    dead_but_running,
    reached_step,
    reference,
    run_demo,
    wait_for,
    wait_until,
)
from workbench.errors import InputError
from workbench.jobs import Queue
from workbench.jobs.checkpoints import Checkpoint, Owner, load_newest, save_checkpoint
from workbench.jobs.dispatch import claim_next
from workbench.jobs.locks import is_held
from workbench.jobs.manifests import newest_manifest
from workbench.jobs.processes import holder_of, kill_worker
from workbench.jobs.tensors import load_tensors, save_tensors
from workbench.types import CheckpointState
from workbench.workspace import Workspace, read_json, write_json

OWNER = Owner("demo", "0" * 64)
STAGES = (
    "submitted", "claimed", "spawned", "loading", "step", "save-tensors", "save-manifest", "save-renamed",
    "save-pruning", "stopping", "result", "ended",
)  # fmt: skip
Target = Literal["worker", "app", "both"]
DEMO = {"steps": 6, "artefact": True}


def checkpoint_of(done: int, *, floats: int = 200_000) -> Checkpoint:
    """Return a checkpoint whose tensor says which it is."""
    state = CheckpointState({"weight": torch.full((floats,), float(done))}, {"done": done})
    return Checkpoint(stage="train", step=done, done=done, state=state, process={"threads": 1})


def save_kills(folder: Path, *, repeats: int, seed: int = 0) -> dict[str, int]:
    """Kill a saving process at random moments; count lost acknowledged and damaged checkpoints."""
    chance = random.Random(seed)
    forks = _fork_server()
    counts = {"kills": 0, "lost": 0, "damaged": 0, "acknowledged": 0}
    for repeat in range(repeats):
        place = folder / f"{repeat % 7}"
        found = load_newest(place, owner=OWNER)
        start = found.checkpoint.done if found.checkpoint else 0
        reader, writer = forks.Pipe(duplex=False)
        saver = forks.Process(target=_save_for_ever, args=(place, start, writer))
        saver.start()
        writer.close()
        acknowledged = reader.recv()
        time.sleep(chance.uniform(0.0, 0.06))
        assert saver.pid is not None
        os.kill(saver.pid, signal.SIGKILL)
        saver.join()
        with suppress(EOFError):
            while True:
                acknowledged = reader.recv()
        found = load_newest(place, owner=OWNER)
        counts["kills"] += 1
        counts["acknowledged"] += acknowledged - start
        counts["damaged"] += len(found.skipped)
        if found.checkpoint is None or found.checkpoint.done < acknowledged:
            counts["lost"] += 1
        elif float(found.checkpoint.state.tensors["weight"].sum()) / 200_000 != found.checkpoint.done:
            counts["damaged"] += 1
    return counts


def _fork_server() -> Any:
    """Return a context whose processes start in milliseconds, with torch imported and not yet used."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.jobs.matrices"])
    return context


def _save_for_ever(place: Path, start: int, acknowledge: Connection) -> None:
    torch.set_num_threads(1)
    for done in range(start + 1, 1_000_000):
        save_checkpoint(place, checkpoint_of(done), owner=OWNER)
        acknowledge.send(done)


@dataclass
class StageKill:
    """What happened after one kill at one stage."""

    stage: str
    target: Target
    state: str
    seconds_to_truth: float
    exact: bool
    twice: bool
    artefacts: int


def stage_kill(folder: Path, stage: str, *, target: Target) -> StageKill:
    """Hang one process at a stage, kill worker, app or both, start the app again, and wait for the end."""
    with a_queue(folder) as queue:
        expected = reference(queue.workspace, **DEMO)
        marker = folder / "marker"
        config = {**DEMO, "steps": 100_000, "delay": 0.05} if stage == "stopping" else DEMO
        app = AppProcess(folder, json.dumps(config), fault=f"{stage}=hang@{marker}")
        if stage == "stopping":
            (job,) = wait_until(queue.list, what="the job")
            wait_until(lambda: reached_step(queue, job.id, 1), what="a first step")
            queue.cancel(job.id)
        wait_until(marker.exists, what=f"stage {stage}")
        (job,) = queue.list()
        worker_alive = is_held(queue.folder(job.id)) and stage != "claimed"
        killed = 0
        if target in ("worker", "both") and worker_alive:
            holder = wait_until(lambda: holder_of(queue.folder(job.id)), what="the worker's name")
            killed = holder.pid
            kill_worker(queue.folder(job.id))
        if target in ("app", "both") or not worker_alive:
            app.kill()
        Path(f"{marker}.go").touch()
        untouched = target == "worker" and worker_alive
        again = app if untouched else AppProcess(folder, json.dumps(config))
        begun = time.monotonic()
        try:
            wait_until(lambda: not _claims_dead(queue, killed), what="the truth about dead workers")
            truth = time.monotonic() - begun
            ended = wait_until(lambda: next((job for job in queue.list() if job.ended), None), what="the end")
            (only,) = queue.list()
        finally:
            again.kill()
        found = sum(
            1 for entry in queue.workspace.folder("banks").iterdir() if not entry.name.startswith(".")
        )
        exact = ended.state == "cancelled" or (ended.result or {}).get("sha256") == expected
        twice = (folder / "TWICE").exists()
        return StageKill(stage, target, only.state, truth, exact, twice, found)


def _claims_dead(queue: Queue, killed: int) -> bool:
    """Whether a row says that the killed worker runs, or an active row has no holder at all."""
    if killed and any(job.active and job.pid == killed for job in queue.list()):
        return True
    return bool(dead_but_running(queue))


def resume_exact(folder: Path, *, stops: tuple[int, ...], steps: int = 40) -> dict[str, Any]:
    """Pause at each of the steps, go on in a new process, and compare with a run without a stop."""
    differing: list[int] = []
    with a_queue(folder, WORKBENCH_SAVE_SECONDS="3600") as queue:
        expected = reference(queue.workspace, steps=steps)
        for stop in stops:
            job = run_demo(queue, steps=steps, pause_at=stop)
            assert (job.state, job.checkpoint_step) == ("paused", stop), job.message
            queue.resume(job.id)
            queue.dispatch()
            done = wait_for(queue, job.id)
            if (done.result or {}).get("sha256") != expected:
                differing.append(stop)
        job = run_demo(queue, steps=steps, pause_at=stops[0], keep_random=False)
        queue.resume(job.id)
        queue.dispatch()
        careless = (wait_for(queue, job.id).result or {})["sha256"]
    return {"stops": len(stops), "differing": differing, "without_random_state_differs": careless != expected}


def cancel_latency(folder: Path, *, repeats: int) -> dict[str, float]:
    """Cancel at random moments of loading and running; seconds until the row says cancelled."""
    chance = random.Random(1)
    seconds: list[float] = []
    with a_queue(folder, WORKBENCH_SAVE_SECONDS="1") as queue:
        for repeat in range(repeats):
            job = queue.submit(
                "demo", {"steps": 100_000, "delay": 0.01, "load_seconds": 3.0 * (repeat % 3 == 0)}
            )
            queue.dispatch()
            if repeat % 3 == 2:
                wait_until(lambda id=job.id: reached_step(queue, id, 1), what="a first step")
            time.sleep(chance.uniform(0.0, 0.8))
            begun = time.monotonic()
            queue.cancel(job.id)
            wait_for(queue, job.id, "cancelled")
            seconds.append(time.monotonic() - begun)
    cut = max(0, min(len(seconds) - 1, round(0.95 * len(seconds)) - 1))
    return {
        "repeats": repeats,
        "median": round(statistics.median(seconds), 3),
        "p95": round(sorted(seconds)[cut], 3),
        "max": round(max(seconds), 3),
    }


def concurrent_claims(folder: Path, *, jobs: int, claimers: int = 4) -> dict[str, int]:
    """Let several processes claim jobs as fast as they can; count jobs claimed twice or never."""
    queue = Queue(Workspace.open(folder))
    with queue.table.write() as connection:
        connection.executemany(
            "INSERT INTO jobs (id, kind, title, config, device, command, cwd, turn, state, created) "
            "VALUES (?, 'demo', '', '{}', 'default', '', '', ?, 'queued', '')",
            ((f"job-{number:05d}", number) for number in range(jobs)),
        )
    queue.table.close()
    forks = _fork_server()
    results = forks.SimpleQueue()
    processes = [forks.Process(target=_claim_all, args=(folder, results)) for _ in range(claimers)]
    for process in processes:
        process.start()
    claimed: list[str] = []
    for _ in processes:
        claimed += wait_until(
            lambda: [] if results.empty() else [results.get()], seconds=600, what="a claimer"
        )[0]
    for process in processes:
        process.join()
    counts = queue.table.read("SELECT COUNT(*) AS n FROM jobs WHERE claim = 1 AND state = 'done'")[0]["n"]
    return {"claims": len(claimed), "double": len(claimed) - len(set(claimed)), "once": int(counts)}


def _claim_all(folder: Path, results: Any) -> None:
    queue = Queue(Workspace.open(folder))
    mine: list[str] = []
    while True:
        row = claim_next(queue.table)
        if row is None:
            if not queue.table.read("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1"):
                break
            continue
        mine.append(row["id"])
        with queue.table.write() as connection:
            connection.execute("UPDATE jobs SET state = 'done' WHERE id = ?", (row["id"],))
    results.put(mine)


def out_of_memory(folder: Path) -> dict[str, str]:
    """Run out of memory in each way; the state of each job, and of one queued behind them."""
    with a_queue(folder) as queue:
        kinds = ("limit", "cuda", "killed for memory", "")
        jobs = {kind or "the next job": queue.submit("demo", {"memory": kind}) for kind in kinds}
        return {kind: wait_for(queue, job.id).state for kind, job in jobs.items()}


def not_a_number(folder: Path, *, steps: tuple[int, ...]) -> dict[str, Any]:
    """Make loss or weight NaN at the given steps; the last finite checkpoint must stand, whole."""
    wrong: list[int] = []
    with a_queue(folder) as queue:
        for number, step in enumerate(steps):
            field = "nan_at" if number % 2 == 0 else "nan_weight_at"
            job = run_demo(queue, steps=40, **{field: step})
            manifest = newest_manifest(queue.folder(job.id) / "checkpoints")
            if job.state != "diverged" or job.step != step or not manifest or manifest["done"] != step - 1:
                wrong.append(step)
    return {"runs": len(steps), "wrong": wrong}


def full_disk(folder: Path, *, free_megabytes: tuple[float, ...]) -> dict[str, Any]:
    """Start a job on a disk with so much room, see that all that existed stands, give room, see it end.

    The job saves 3 MB at each of 4 steps and makes a bank of 5 MB; the room decides what fails.
    """
    wrong: list[str] = []
    held = 0
    for room in free_megabytes:
        if not small_disk(folder, megabytes=32):
            raise PermissionError("mounting is not allowed here")
        try:
            with a_queue(folder) as queue:
                fault, was_held = _one_full_disk(queue, room)
                held += was_held
                wrong += [f"{room} MB: {fault}"] if fault else []
        finally:
            unmount(folder)
    return {"points": len(free_megabytes), "held_for_room": held, "wrong": wrong}


def _one_full_disk(queue: Queue, room: float) -> tuple[str, bool]:
    config = {"steps": 4, "width": 512, "artefact": True, "artefact_bytes": 2_000_000}
    root = queue.workspace.root
    plan = root / "plans" / "mine.json"
    write_json(plan, {"blocks": [1, 2, 3]})
    with queue.workspace.new_folder("banks", name="older") as bank:
        save_tensors(bank.path / "weights.safetensors", {"w": torch.ones(1000)})
    job = queue.submit("demo", config)
    filler = root / "filler"
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(root).free - int(room * 1e6)))
    said = ""

    def settled() -> bool:
        nonlocal said
        try:
            queue.dispatch()
        except InputError as error:
            said = str(error)
        now = queue.get(job.id)
        said = now.message if "MB" in now.message else said
        return now.ended or bool(said)

    wait_until(settled, what="the end or a word about the disk")
    faults = []
    if queue.table.read("PRAGMA quick_check")[0][0] != "ok":
        faults.append("table damaged")
    if read_json(plan, what="plan") != {"blocks": [1, 2, 3]}:
        faults.append("plan damaged")
    load_tensors(bank.final / "weights.safetensors", expected={"w": (1000,)})
    before = queue.get(job.id).checkpoint_step
    filler.unlink()
    done = wait_for(queue, job.id)
    if done.state != "done":
        faults.append(f"{done.state}: {done.message}")
    elif (done.result or {})["sha256"] != reference(queue.workspace, **config):
        faults.append("another result")
    found = [row for row in queue.metrics(job.id).rows if row.get("event") == "resumed"]
    if before and found and found[-1]["done"] < before:
        faults.append("went back before the last checkpoint")
    if said and ("MB" not in said or ("workspace" not in said and root.name not in said)):
        faults.append(f"unclear: {said}")
    return "; ".join(faults), bool(said)


def soak(folder: Path, *, jobs: int) -> dict[str, Any]:
    """Queue many tiny jobs; count lost ones, and see that this process keeps its memory and files."""
    with a_queue(folder, WORKBENCH_SAVE_SECONDS="3600") as queue:
        ids = [queue.submit("demo", {"steps": 1, "seed": number}).id for number in range(jobs)]
        process = psutil.Process()
        queue.dispatch()
        wait_for(queue, ids[min(9, jobs - 1)])
        before = (process.memory_info().rss, process.num_fds())
        for job_id in ids:
            wait_for(queue, job_id)
        after = (process.memory_info().rss, process.num_fds())
        states = [job.state for job in queue.list()]
        litter = [entry.name for entry in queue.workspace.root.rglob(".tmp*")]
        twice = (folder / "TWICE").exists()
    return {
        "jobs": jobs,
        "done": states.count("done"),
        "twice": twice,
        "rss_growth": round(after[0] / before[0] - 1, 4),
        "more_files": after[1] - before[1],
        "litter": len(litter),
    }


def small_disk(folder: Path, *, megabytes: int) -> bool:
    """Mount a small memory file system at a folder; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = f"mount -t tmpfs -o size={megabytes}m none {str(folder)!r} 2>/dev/null"
    return os.system(command) == 0


def make_read_only(folder: Path, *, on: bool) -> bool:
    """Remount a small disk read-only, or writable again; False where that is not allowed."""
    return os.system(f"mount -o remount,{'ro' if on else 'rw'} {str(folder)!r} 2>/dev/null") == 0


def unmount(folder: Path) -> None:
    """Take a small disk away again."""
    with suppress(OSError):
        os.system(f"umount -l {str(folder)!r} 2>/dev/null")
