"""Run a suite of captioned scenes through a model and report how well its clips obey.

Knows no model: whoever calls passes a function from prompt to clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import InputError
from workbench.evaluation.adherence import ATTRIBUTES, Verdicts, judge
from workbench.evaluation.statistics import wilson_interval
from workbench.models.embedded.world import Scene, caption, sample_scene


class Prompt(NamedTuple):
    """A canonical caption, the scene it states in full, and the seed to generate with."""

    prompt: str
    scene: Scene
    seed: int


@dataclass(frozen=True)
class ClipVerdicts:
    """The verdicts on one clip, and the prompt it was judged by (another than its own when swapped)."""

    prompt: str
    seed: int
    judged_by: str
    verdicts: Verdicts
    objects: int


@dataclass(frozen=True)
class AdherenceReport:
    """How many clips of a suite show what was asked.

    Attributes:
        adherence: Attribute → share of right clips among those asked for it; an undecided one is not right.
        intervals: Attribute → Wilson's 95 % interval of that share.
        undecided: Attribute → share of undecided ones.
        asked: Attribute → number of clips asked for it.
        fully_right: Share with every attribute right, of clips with "one" and "two" objects, where there are
            any.
        swapped: Whether each clip was judged by another's prompt.
        clips: Verdicts by clip.
    """

    adherence: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    undecided: dict[str, float]
    asked: dict[str, int]
    fully_right: dict[str, float]
    swapped: bool
    clips: tuple[ClipVerdicts, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; fractions are 0 to 1."""
        document = asdict(self)
        document["intervals"] = {name: list(ends) for name, ends in self.intervals.items()}
        document["clips"] = [
            {
                "prompt": clip.prompt,
                "seed": clip.seed,
                "judged_by": clip.judged_by,
                "verdicts": clip.verdicts.asked(),
                "fully_right": clip.verdicts.fully_right,
            }
            for clip in self.clips
        ]
        return document


def held_out_suite(num: int, *, seed: int = 0) -> list[Prompt]:
    """Draw prompts whose first object has a held-out combination; a longer suite begins with the shorter one.

    Raises:
        InputError: when `num` is below 1.
    """
    if num < 1:
        raise InputError(f"A suite needs at least one prompt, not {num}; ask for 1 or more.")
    rng = np.random.default_rng((seed, 20))
    scenes = [sample_scene(rng, split="held-out") for _ in range(num)]
    return [Prompt(caption(scene), scene, index) for index, scene in enumerate(scenes)]


def evaluate_adherence(
    generate: Callable[[Prompt], np.ndarray], prompts: Sequence[Prompt], *, swap_prompts: bool = False
) -> AdherenceReport:
    """Generate and judge one clip per prompt.

    Args:
        generate: Returns the clip of a prompt, uint8 [F, H, W, 3].
        prompts: The suite.
        swap_prompts: Judge each clip by the next prompt instead of its own: the score of a judge that looks
            at the
            clip must collapse.

    Raises:
        InputError: without prompts, or on a swap of fewer than two.
    """
    if not prompts or (swap_prompts and len(prompts) < 2):
        least = 2 if swap_prompts else 1
        raise InputError(f"The suite has {len(prompts)} prompts, but needs at least {least}; ask for more.")
    clips = []
    for index, asked in enumerate(prompts):
        judge_by = prompts[(index + 1) % len(prompts)] if swap_prompts else asked
        verdicts = judge(generate(asked), judge_by.scene)
        clips.append(
            ClipVerdicts(asked.prompt, asked.seed, judge_by.prompt, verdicts, len(judge_by.scene.objects))
        )
    return summarize(clips, swapped=swap_prompts)


def summarize(clips: Sequence[ClipVerdicts], *, swapped: bool = False) -> AdherenceReport:
    """Count the verdicts of judged clips."""
    counts = {name: Counter[str]() for name in ATTRIBUTES}
    for clip in clips:
        for name, verdict in clip.verdicts.asked().items():
            counts[name][verdict] += 1
    asked = {name: count.total() for name, count in counts.items() if count.total()}
    fully: dict[str, float] = {}
    for number, word in ((1, "one"), (2, "two")):
        alike = [clip.verdicts.fully_right for clip in clips if clip.objects == number]
        if alike:
            fully[word] = sum(alike) / len(alike)
    return AdherenceReport(
        adherence={name: counts[name]["right"] / total for name, total in asked.items()},
        intervals={name: wilson_interval(counts[name]["right"], total) for name, total in asked.items()},
        undecided={name: counts[name]["undecided"] / total for name, total in asked.items()},
        asked=asked,
        fully_right=fully,
        swapped=swapped,
        clips=tuple(clips),
    )
