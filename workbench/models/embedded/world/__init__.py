"""A small procedural world: captioned clips of shaded solids on a ground under a sky.

`sample_scene` draws a typed `Scene`, `caption` puts it into words, `render` shows it. The world is the
embedded model's training data, and the truth its clips are judged by.
"""

from workbench.models.embedded.world.language import (
    builder_vocabulary,
    caption,
    unknown_words,
    vocabulary,
    words,
)
from workbench.models.embedded.world.layout import object_boxes
from workbench.models.embedded.world.prompt_builder import build_prompt, prompt_vocabulary
from workbench.models.embedded.world.render import object_masks, render
from workbench.models.embedded.world.scene import Scene, Solid, held_out_triple, is_held_out, sample_scene
from workbench.models.embedded.world.twins import Twin, twin

__all__ = [
    "Scene",
    "Solid",
    "Twin",
    "build_prompt",
    "builder_vocabulary",
    "caption",
    "held_out_triple",
    "is_held_out",
    "object_boxes",
    "object_masks",
    "prompt_vocabulary",
    "render",
    "sample_scene",
    "twin",
    "unknown_words",
    "vocabulary",
    "words",
]
