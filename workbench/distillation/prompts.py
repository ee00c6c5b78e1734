"""Prompts to measure with when the user gives none: drawn from the world, or a list of everyday scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.errors import InputError
from workbench.models import LoadedModel, check_prompt
from workbench.models.prompts import has_closed_vocabulary

SCENES = (
    "A red fox trots across fresh snow while the camera follows from the side",
    "Waves break against dark rocks at dusk, spray catching the last light",
    "A cyclist in a yellow jacket rides along a wet city street at night",
    "Close-up of hands kneading bread dough on a floured wooden table",
    "A hot air balloon drifts slowly over a patchwork of green fields",
    "An old steam train crosses a stone bridge in the mountains",
    "A child blows soap bubbles in a sunny garden",
    "Time-lapse of clouds rolling over a desert plateau",
    "A black cat jumps from a shelf onto a sofa in a bright living room",
    "A potter shapes a clay bowl on a spinning wheel",
    "Traffic moves through a roundabout, seen from above",
    "A dancer turns on an empty stage under a single spotlight",
    "Koi fish swim under lily pads in a clear pond",
    "Steam rises from a cup of coffee beside a rainy window",
    "A skateboarder rolls down a ramp and lifts into the air",
    "Autumn leaves fall in a quiet park while the camera pans left",
    "A lighthouse beam sweeps through fog over a calm sea",
    "Two dogs chase a ball across a beach at sunrise",
    "Molten glass is blown into a vase in a dim workshop",
    "A field of sunflowers sways in the wind under a blue sky",
    "A robot arm sorts coloured blocks on a conveyor belt",
    "Snow falls on a narrow street with paper lanterns",
    "A sailing boat heels in strong wind, filmed from the water",
    "A hummingbird hovers in front of a pink flower",
)


class PromptSplit(NamedTuple):
    """Prompts to train on, and others that only errors are measured on."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def choose_prompts(
    model: LoadedModel,
    *,
    training: Sequence[str],
    held_out: Sequence[str],
    num_training: int,
    num_held_out: int,
    seed: int,
) -> PromptSplit:
    """Check the given prompts, and draw those that are not given.

    Args:
        model: decides which prompts make sense.
        training: empty draws `num_training` prompts.
        held_out: empty draws `num_held_out` prompts.

    Raises:
        InputError: a prompt that the model cannot read, or one that is in both lists.
    """
    chosen = PromptSplit(
        check_prompts(model, training) or draw_prompts(model, num_training, held_out=False, seed=seed),
        check_prompts(model, held_out) or draw_prompts(model, num_held_out, held_out=True, seed=seed),
    )
    for prompt in chosen.held_out:
        if prompt in chosen.training:
            raise InputError(
                f"The prompt {prompt[:80]!r} is both trained on and held out; take it from one of the lists."
            )
    return chosen


def check_prompts(model: LoadedModel, prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the prompts as the model reads them, each once.

    Raises:
        InputError: one that the model cannot read.
    """
    return tuple(dict.fromkeys(check_prompt(model, prompt).text for prompt in prompts))


def draw_prompts(model: LoadedModel, count: int, *, held_out: bool, seed: int) -> tuple[str, ...]:
    """Return ready prompts; held-out ones are never among those for training.

    Raises:
        InputError: more than there are.
    """
    draw = _world_prompts if has_closed_vocabulary(model.facts) else _scene_prompts
    return draw(count, held_out=held_out, seed=seed)


def _world_prompts(count: int, *, held_out: bool, seed: int) -> tuple[str, ...]:
    """Draw different captions; held-out ones have attribute combinations that no training clip has."""
    import numpy as np

    from workbench.models.embedded.world import caption, sample_scene

    rng = np.random.default_rng([seed, int(held_out)])
    found: dict[str, None] = {}
    while len(found) < count:
        found[caption(sample_scene(rng, split="held-out" if held_out else "train"))] = None
    return tuple(found)


def _scene_prompts(count: int, *, held_out: bool, seed: int) -> tuple[str, ...]:
    """Take every third scene for holding out, the others for training, from a place given by the seed."""
    pool = [scene for index, scene in enumerate(SCENES) if (index % 3 == 2) == held_out]
    if count > len(pool):
        raise InputError(
            f"There are {len(pool)} ready {'held-out' if held_out else 'training'} prompts, "
            f"{count} were asked for; give your own prompts."
        )
    first = seed % len(pool)
    return tuple((pool[first:] + pool[:first])[:count])
