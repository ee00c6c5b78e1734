"""Prompts: refused, cut, or passed on, always with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.models import LoadedModel, check_prompt, load_model


@pytest.fixture(scope="module")
def embedded(untrained_model_folder: Path) -> LoadedModel:
    return load_model(str(untrained_model_folder), device="cpu")


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_empty_prompts_are_refused(micro_model: LoadedModel, prompt: str) -> None:
    with pytest.raises(InputError, match="prompt is empty; describe the clip"):
        check_prompt(micro_model, prompt)


def test_ordinary_prompts_pass(embedded: LoadedModel, micro_model: LoadedModel) -> None:
    assert check_prompt(embedded, "a red ball") == ("a red ball", "")
    assert check_prompt(micro_model, "any word at all <script>") == ("any word at all <script>", "")


def test_long_prompts_are_cut_with_a_note(embedded: LoadedModel) -> None:
    checked = check_prompt(embedded, "a red ball " * 100)
    assert checked.note == "The prompt is too long: the first 64 of its 301 tokens were used."
    assert checked.text == ("a red ball " * 21).strip()
    assert check_prompt(embedded, checked.text) == (checked.text, "")


def test_unknown_words_are_named_with_near_ones(embedded: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"does not know the word 'bal' \(near: .*ball"):
        check_prompt(embedded, "a red bal")
    with pytest.raises(InputError, match=r"words 'xq' .*, 'yq' .*, 'zq' .* and 1 more;"):
        check_prompt(embedded, "xq yq zq wq")


@pytest.mark.parametrize("prompt", ["a \ud800 ball", "x" * 1_000_001])
def test_prompts_that_are_no_text(micro_model: LoadedModel, prompt: str) -> None:
    with pytest.raises(InputError) as caught:
        check_prompt(micro_model, prompt)
    assert len(str(caught.value)) < 200


def test_odd_text_never_escapes(micro_model: LoadedModel) -> None:
    for prompt in ("😀" * 600, "a\nb\0c\x1b[31m", "‮red", "é", "x" * 100_000):
        assert check_prompt(micro_model, prompt).text
