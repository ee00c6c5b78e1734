"""The word tokenizer of the embedded model, built from the vocabulary of its world.

Every word of the caption grammar is one token; anything else becomes `<unk>`. Nothing is downloaded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from workbench.models.embedded import world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXT_LENGTH = 64
"""Tokens (padding included) with which the embedded model is meant to be called: `max_sequence_length`."""

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
PUNCTUATION = (",", ".", "-", "'", "!", "?", ":", ";")


def known_words() -> tuple[str, ...]:
    """Return every word and punctuation mark that the embedded model knows, sorted."""
    return _split_vocabulary()


def unknown_words(prompt: str) -> tuple[str, ...]:
    """Return the words of `prompt` that the embedded model has never seen, in order, each once."""
    return tuple(word for word, _ in world.unknown_words(prompt))


def nearest_words(word: str) -> tuple[str, ...]:
    """Return up to three known words that `word` may have meant, by sense or by spelling."""
    return tuple(near for _, nearest in world.unknown_words(word) for near in nearest)


def token_list() -> tuple[str, ...]:
    """Return the tokens in the order of their ids: special tokens first."""
    return SPECIAL_TOKENS + known_words()


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer in memory: lower-cased, split at punctuation, ended by `</s>`, right-padded."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: index for index, token in enumerate(token_list())}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
        padding_side="right",
    )


def _split(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]+", text.lower())


@lru_cache(maxsize=1)
def _split_vocabulary() -> tuple[str, ...]:
    words = {piece for entry in world.vocabulary() for piece in _split(entry)}
    return tuple(sorted(words | set(PUNCTUATION)))
