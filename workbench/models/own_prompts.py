"""256 own prompts for real video models: people, animals, nature, cities, things, camera moves, styles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from workbench.errors import InputError

FILE = Path(__file__).with_name("own_prompts.json")
PromptSplit = Literal["train", "held-out"]


class OwnPrompt(NamedTuple):
    """A prompt and the group it belongs to."""

    prompt: str
    group: str


def own_prompts(split: PromptSplit) -> list[OwnPrompt]:
    """Return the 192 prompts for training or the 64 held-out ones for figures; every group is in both.

    Raises:
        InputError: on another split.
    """
    if split not in get_args(PromptSplit):
        raise InputError(f"Unknown split '{split}'; expected one of {', '.join(get_args(PromptSplit))}.")
    return [OwnPrompt(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))[split]]
