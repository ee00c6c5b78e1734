"""Check a prompt before it reaches a model."""

from __future__ import annotations

from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.models import registry
from workbench.models.facts import ModelFacts
from workbench.models.loader import LoadedModel

MAX_CHARACTERS = 1_000_000
MAX_NAMED = 3


class CheckedPrompt(NamedTuple):
    """A prompt as the model will see it; `note` says what was cut, and is empty otherwise."""

    text: str
    note: str


def check_prompt(model: LoadedModel, prompt: str) -> CheckedPrompt:
    """Check a prompt against a model's tokenizer.

    Returns:
        The prompt, cut where it is longer than the model reads.

    Raises:
        InputError: empty, not text, or (embedded model only) with words that the model has never seen.
    """
    check_words(model.facts, prompt)
    return _cut(model.pipeline.tokenizer, prompt, limit=model.facts.text_tokens)


def check_words(facts: ModelFacts, prompt: str) -> None:
    """Check a prompt as far as it goes without a tokenizer.

    Raises:
        InputError: empty, not text, or (embedded model only) with words that the model has never seen.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("The prompt is empty; describe the clip in a few words.")
    if len(prompt) > MAX_CHARACTERS:
        raise InputError(
            f"The prompt has {len(prompt):,} characters; at most {MAX_CHARACTERS:,} are accepted."
        )
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("The prompt is not valid Unicode text; type it again.") from None
    if has_closed_vocabulary(facts):
        _refuse_unknown(prompt)


def has_closed_vocabulary(facts: ModelFacts) -> bool:
    """Return whether the model knows only the words of the embedded world."""
    entry = registry.recognise(facts)
    return entry is not None and entry.name == registry.EMBEDDED


def _refuse_unknown(prompt: str) -> None:
    from workbench.models.embedded import nearest_words, unknown_words

    unknown = unknown_words(prompt)
    if not unknown:
        return
    named = []
    for word in unknown[:MAX_NAMED]:
        near = nearest_words(word)
        named.append(f"'{word[:40]}'" + (f" (near: {', '.join(near)})" if near else ""))
    more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
    plural = "words" if len(unknown) > 1 else "word"
    raise InputError(
        f"The embedded model does not know the {plural} {', '.join(named)}{more}; "
        "use words of its world, as in 'a red ball'."
    )


def _cut(tokenizer: Any, prompt: str, *, limit: int) -> CheckedPrompt:
    encoded = tokenizer(prompt, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    total = len(encoded["input_ids"])
    if total <= limit:
        return CheckedPrompt(prompt, "")
    note = f"The prompt is too long: the first {limit:,} of its {total:,} tokens were used."
    if not tokenizer.is_fast:
        return CheckedPrompt(prompt, note)
    num_special = tokenizer.num_special_tokens_to_add(pair=False)
    end = encoded["offset_mapping"][limit - num_special - 1][1]
    return CheckedPrompt(prompt[:end], note)
