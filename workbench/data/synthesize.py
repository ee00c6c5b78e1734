"""Make captioned clips with a teacher, for `finetune --objective flow`: one .mp4 and one .txt each.

The folder's name follows from the settings, and a clip that is there is not made again, so that interrupted
work goes on where it stopped. Knows prompts and sampling.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from workbench.distillation.prompts import draw_prompts
from workbench.errors import InputError
from workbench.models import LoadedModel, check_prompt, check_words
from workbench.sampling import GenerateConfig, clip_manifest, sample
from workbench.surgery import open_facts
from workbench.types import Reporter, StrictModel
from workbench.video import write_mp4
from workbench.workspace import Workspace, write_json

MAX_PROMPTS = 10_000
MAX_BYTES = 4 * 1024 * 1024
RECORD = "dataset.json"


class SynthesizeConfig(StrictModel):
    """Which clips to make.

    Attributes:
        model: registry name, diffusers folder, student folder or hub id.
        prompts: taken in turn; empty draws from the model's own world or the project's 192 training prompts.
        num: clips; clip i has the seed `seed` + i.
        steps, guidance, frames, height, width: as of `GenerateConfig`.
    """

    model: str = "embedded"
    prompts: Annotated[tuple[str, ...], Field(max_length=MAX_PROMPTS)] = ()
    num: Annotated[int, Field(ge=1, le=100_000)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None

    def clip(self, prompt: str, index: int) -> GenerateConfig:
        """Return how the clip of a prompt is made."""
        return GenerateConfig(
            model=self.model,
            prompt=prompt,
            seed=self.seed + index,
            **self.model_dump(include={"steps", "guidance", "frames", "height", "width"}),
        )


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read a text file with one prompt a line; empty lines and lines that start with # are left out.

    Raises:
        InputError: it cannot be read, is no UTF-8 text, or holds no prompt.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path.name} has more than {MAX_BYTES:,} bytes; split the prompts.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"The file of prompts {path.name!r} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text; save it as UTF-8.") from None
    lines = [line.strip() for line in text.splitlines()]
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise InputError(f"{path.name} holds no prompt; write one a line.")
    if len(prompts) > MAX_PROMPTS:
        raise InputError(f"{path.name} holds {len(prompts):,} prompts; at most {MAX_PROMPTS:,} are accepted.")
    return prompts


def check_synthesis(config: SynthesizeConfig) -> None:
    """Refuse what can be refused without loading weights.

    Raises:
        InputError: an unknown model, a size that it cannot make, or a prompt that it cannot read.
    """
    facts = open_facts(config.model)[0]
    facts.check_size(config.clip("size", 0).size(facts))
    for prompt in config.prompts:
        check_words(facts, prompt)


def synthesize(
    model: LoadedModel, config: SynthesizeConfig, workspace: Workspace, *, reporter: Reporter
) -> Path:
    """Make the clips; goes on after the last one that is there.

    Returns:
        The folder: `00000.mp4`, `00000.txt` and so on, with `dataset.json` once all are there.

    Raises:
        InputError: a prompt or size that the model refuses, or more clips without prompts than are known.
        Cancelled, Paused: as the reporter says; the finished clips stay.
    """
    prompts = config.prompts or draw_prompts(model, min(config.num, 192), held_out=False, seed=config.seed)
    prompts = tuple(check_prompt(model, prompt).text for prompt in prompts)
    folder = workspace.folder("datasets") / _name(model, config, prompts)
    folder.mkdir(exist_ok=True)
    reporter.stage("clips", config.num)
    manifest = None
    for index in range(config.num):
        prompt = prompts[index % len(prompts)]
        video = folder / f"{index:05d}.mp4"
        if not video.is_file():
            clip = config.clip(prompt, index)
            made = sample(model, clip)
            video.with_suffix(".txt").write_text(prompt + "\n", encoding="utf-8")
            write_mp4(video, made.frames, fps=model.facts.fps)
            manifest = manifest or clip_manifest(made, clip, model=model)
        reporter.step(index + 1)
    if manifest is not None or not (folder / RECORD).is_file():
        record = {"config": config.model_dump(mode="json"), "num_clips": config.num, "first_made": manifest}
        write_json(folder / RECORD, record)
    return folder


def _name(model: LoadedModel, config: SynthesizeConfig, prompts: tuple[str, ...]) -> str:
    """Return a folder name that follows from everything that determines the clips, but their number."""
    settings = config.model_dump(mode="json", exclude={"num", "model", "prompts"})
    identity = json.dumps([model.fingerprint, model.provenance, settings, prompts], sort_keys=True)
    return f"clips-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
