"""The embedded model: a small Wan pipeline that ships with the workbench, and everything that made it.

`weights/` is an ordinary diffusers folder. This package knows how it was built and trained; it does not know
what the workbench does with it.
"""

from workbench.models.embedded.architecture import build_untrained, default_folder
from workbench.models.embedded.tokenizer import TEXT_LENGTH, known_words, nearest_words, unknown_words

__all__ = [
    "TEXT_LENGTH",
    "build_untrained",
    "default_folder",
    "known_words",
    "nearest_words",
    "unknown_words",
]
