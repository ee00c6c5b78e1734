"""Prompts to measure with when the user gives none: drawn from the world, or from the 256 own prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.errors import InputError
from workbench.models import LoadedModel, check_prompt
from workbench.models.own_prompts import own_prompts
from workbench.models.prompts import has_closed_vocabulary


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
    """Take prompts of the project's own set in an order given by the seed, so that all groups take part."""
    import numpy as np

    pool = [own.prompt for own in own_prompts("held-out" if held_out else "train")]
    if count > len(pool):
        raise InputError(
            f"There are {len(pool)} ready {'held-out' if held_out else 'training'} prompts, "
            f"{count} were asked for; give your own prompts."
        )
    order = np.random.default_rng([seed, int(held_out)]).permutation(len(pool))
    return tuple(pool[int(index)] for index in order[:count])
