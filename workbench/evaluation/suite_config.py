"""What a suite runs: which models, on which prompts and seeds, and against which noise floors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from workbench.errors import InputError
from workbench.evaluation.prompt_set import own_prompts
from workbench.evaluation.suite import held_out_suite
from workbench.models import check_words
from workbench.models.embedded.world import Scene
from workbench.models.prompts import has_closed_vocabulary
from workbench.sampling import MAX_SEED, GenerateConfig
from workbench.surgery import open_facts
from workbench.types import StrictModel

PromptSource = Literal["held-out", "own-held-out", "own-train", "given"]
Floor = Literal["another seed", "another precision"]
FLOOR_SEED = 1_000_003
"""Added to a clip's seed for the noise floor "another seed"."""


PairSeed = Annotated[int, Field(ge=0, le=MAX_SEED - FLOOR_SEED)]


class SuiteConfig(StrictModel):
    """Models, prompts and seeds of a suite; None takes the model's default.

    Attributes:
        models: names or student folders; the first is the reference, as a rule the teacher.
        prompts: "held-out" are scenes of the embedded world, judged from pixels too; "own-held-out" and
            "own-train" are the project's 64 and 192 prompts for real models; "given" takes `texts`.
        texts: the prompts themselves, with "given".
        num: how many of the prompts; None takes 8, or all that were given.
        seeds: every prompt is sampled once with each.
        floor_clips: on how many of the first clips the noise floors are measured; 0 for none.
        points: at how many steps of the trajectory the divergence is measured.
        cache_megabytes: bound on the clips kept in the workspace's cache.
    """

    models: Annotated[list[str], Field(min_length=1, max_length=20)]
    prompts: PromptSource = "held-out"
    texts: list[str] = Field(default_factory=list)
    num: Annotated[int, Field(ge=1, le=1000)] | None = None
    seeds: Annotated[list[PairSeed], Field(min_length=1)] = Field(default_factory=lambda: [0])
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    frames: Annotated[int, Field(ge=3)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    floor_clips: Annotated[int, Field(ge=0)] = 4
    points: Annotated[int, Field(ge=1, le=64)] = 8
    cache_megabytes: Annotated[int, Field(ge=1)] = 20_000

    def settings(self, model: str, prompt: str, seed: int) -> GenerateConfig:
        """Return the settings of one clip."""
        return GenerateConfig(
            model=model,
            prompt=prompt,
            seed=seed,
            steps=self.steps,
            guidance=self.guidance,
            frames=self.frames,
            height=self.height,
            width=self.width,
        )


@dataclass(frozen=True)
class Asked:
    """A prompt of a suite, with the scene it states in full where there is one."""

    prompt: str
    scene: Scene | None = None


@dataclass(frozen=True)
class Run:
    """One clip of a suite: of which model, for which prompt and seed, or for which noise floor.

    Attributes:
        model: Index into the suite's models.
        prompt: Index into its prompts.
        seed: Seed of the pair; a floor of another seed adds `FLOOR_SEED` when it samples.
        floor: Which noise floor this clip is for, or None.
    """

    model: int
    prompt: int
    seed: int
    floor: Floor | None = None

    @property
    def key(self) -> str:
        """Name of the clip inside the suite."""
        what = {"another seed": "s", "another precision": "p", None: "m"}[self.floor]
        return f"{what}{self.model}-{self.prompt:03}-{self.seed}"

    @property
    def sampling_seed(self) -> int:
        return self.seed + FLOOR_SEED if self.floor == "another seed" else self.seed


def asked_prompts(config: SuiteConfig) -> list[Asked]:
    """Return the prompts of a suite.

    Raises:
        InputError: more are asked for than there are, or texts and source do not go together.
    """
    if (config.prompts == "given") != bool(config.texts):
        raise InputError('Prompts of your own go in texts with prompts "given", and nowhere else.')
    if config.prompts == "held-out":
        return [Asked(one.prompt, one.scene) for one in held_out_suite(config.num or 8)]
    if config.prompts == "given":
        texts = list(config.texts)
    else:
        split: Literal["train", "held-out"] = "train" if config.prompts == "own-train" else "held-out"
        texts = [own.prompt for own in own_prompts(split)]
    count = config.num or (len(texts) if config.prompts == "given" else 8)
    if count > len(texts):
        raise InputError(f"There are {len(texts)} prompts of this kind, not {count}; ask for fewer.")
    if len(set(texts)) < len(texts):
        raise InputError("A prompt is given twice; name each once and use more seeds instead.")
    return _spread(texts, count)


def _spread(texts: list[str], count: int) -> list[Asked]:
    """Take `count` texts evenly over the list, which is ordered by group."""
    return [Asked(texts[index * len(texts) // count]) for index in range(count)]


def planned_runs(config: SuiteConfig, num_prompts: int) -> Iterator[Run]:
    """Yield every clip of a suite, those of the reference first, model after model."""
    pairs = [(prompt, seed) for seed in config.seeds for prompt in range(num_prompts)]
    floors = pairs[: config.floor_clips]
    yield from (Run(0, prompt, seed) for prompt, seed in pairs)
    yield from (Run(0, prompt, seed, "another seed") for prompt, seed in floors)
    yield from (Run(0, prompt, seed, "another precision") for prompt, seed in floors)
    for model in range(1, len(config.models)):
        yield from (Run(model, prompt, seed) for prompt, seed in pairs)


def check_suite(config: SuiteConfig) -> None:
    """Refuse a suite that cannot run, before anything is loaded.

    Raises:
        InputError: one sentence that names the model, prompt or setting.
    """
    asked = asked_prompts(config)
    for values, what in ((config.models, "model"), (config.seeds, "seed")):
        if len(set(values)) < len(values):
            raise InputError(f"A {what} is named twice; name each once.")
    for name in config.models:
        facts = open_facts(name)[0]
        if config.prompts == "held-out" and not has_closed_vocabulary(facts):
            raise InputError(
                f'The prompts "held-out" are scenes of the embedded world, which {name} does not know; '
                'choose "own-held-out" or give your own.'
            )
        for one in asked:
            check_words(facts, one.prompt)
        facts.check_size(config.settings(name, asked[0].prompt, 0).size(facts))
