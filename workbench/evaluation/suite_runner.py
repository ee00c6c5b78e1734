"""Run a suite: prompts × seeds × models, every model beside the first on the same prompt and seed.

Goes on clip by clip after an interruption; clips are kept in the workspace's cache.
"""

from __future__ import annotations

import gc
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from workbench.errors import WorkbenchError
from workbench.evaluation.adherence import judge
from workbench.evaluation.clip_cache import CachedClip, ClipCache
from workbench.evaluation.measures import clip_measures, divergence, pair_measures
from workbench.evaluation.suite_config import (
    Asked,
    Run,
    SuiteConfig,
    asked_prompts,
    check_suite,
    planned_runs,
)
from workbench.evaluation.suite_report import SuiteRecord, write_suite
from workbench.models import LoadedModel
from workbench.models.loader import Dtype
from workbench.surgery import open_facts, open_model
from workbench.types import CheckpointState, Reporter, SilentReporter
from workbench.workspace import Workspace


def evaluate_suite(config: SuiteConfig, workspace: Workspace, *, reporter: Reporter | None = None) -> Path:
    """Sample and measure every clip of a suite, and put figures, table, sheet and clips into one folder.

    Returns:
        The folder: suite.json, table.md, sheet.png, clips/*.mp4.

    Raises:
        InputError: as `check_suite`, or a model or prompt that is refused.
        Cancelled, Paused: when the reporter says so, after keeping what was measured so far.
    """
    check_suite(config)
    suite = _Suite(config, workspace, reporter or SilentReporter())
    suite.run()
    return write_suite(suite.record(), workspace)


class _Suite:
    """A suite on its way."""

    def __init__(self, config: SuiteConfig, workspace: Workspace, reporter: Reporter) -> None:
        self.config = config
        self.reporter = reporter
        self.asked = asked_prompts(config)
        self.runs = list(planned_runs(config, len(self.asked)))
        self.cache = ClipCache(workspace, points=config.points, max_bytes=config.cache_megabytes * 1_000_000)
        facts = open_facts(config.models[0])[0]
        settings = config.settings(config.models[0], self.asked[0].prompt, 0)
        self.cache.check_room(facts, settings, clips=len(self.runs))
        state = reporter.restore()
        self.results: dict[str, dict[str, Any]] = dict(state.meta["results"]) if state else {}
        self.models: dict[str, dict[str, Any]] = dict(state.meta["models"]) if state else {}
        self.results = {key: one for key, one in self.results.items() if Path(one["file"]).is_file()}

    def run(self) -> None:
        self.reporter.stage("clips", len(self.runs))
        for (index, floor), group in groupby(self.runs, key=lambda run: (run.model, run.floor)):
            missing = [run for run in group if run.key not in self.results]
            if not missing:
                continue
            model = self._open(index, precision=floor == "another precision")
            for run in missing:
                self.results[run.key] = self._measured(run, model)
                seconds = self.results[run.key]["seconds"]
                self.reporter.step(len(self.results), state=self._state, seconds=seconds)
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def record(self) -> SuiteRecord:
        return SuiteRecord(self.config, self.asked, self.runs, self.results, self.models, self.cache)

    def _open(self, index: int, *, precision: bool) -> LoadedModel:
        name = self.config.models[index]
        dtype: Dtype = "auto"
        if precision:
            usual = self.models["0"]["dtype"]
            dtype = "float32" if usual == "bfloat16" else "bfloat16"
        model = open_model(name, dtype=dtype)
        self.models[f"{index}{'p' if precision else ''}"] = {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "plan": (model.provenance.get("surgery") or {}).get("plan", ""),
            "dtype": str(model.pipeline.transformer.dtype).removeprefix("torch."),
            "device": str(model.device),
            "fps": model.facts.fps,
            "steps": self.config.steps or model.facts.default_steps,
        }
        return model

    def _measured(self, run: Run, model: LoadedModel) -> dict[str, Any]:
        asked = self.asked[run.prompt]
        settings = self.config.settings(self.config.models[run.model], asked.prompt, run.sampling_seed)
        clip = self.cache.get(model, settings, reporter=self.reporter)
        result: dict[str, Any] = {
            "file": str(self.cache.path(model, settings)),
            "seconds": round(clip.seconds, 3),
            "measures": clip_measures(clip.frames),
            "verdicts": _verdicts(clip, asked) if run.floor is None else {},
        }
        if run.model or run.floor:
            reference = self._reference(run)
            result["pair"] = pair_measures(clip.frames, reference.frames)
            result["divergence"] = divergence(clip.points, reference.points)
            result["pair"]["divergence"] = result["divergence"][-1]
        return result

    def _reference(self, run: Run) -> CachedClip:
        file = Path(self.results[Run(0, run.prompt, run.seed).key]["file"])
        clip = self.cache.load(file)
        if clip is None:
            raise WorkbenchError(
                f"The reference's clip {file.name} left the cache during the suite; resume to make it again."
            )
        return clip

    def _state(self) -> CheckpointState:
        return CheckpointState(tensors={}, meta={"results": self.results, "models": self.models})


def _verdicts(clip: CachedClip, asked: Asked) -> dict[str, str]:
    return {} if asked.scene is None else dict(judge(clip.frames, asked.scene).asked())
