"""The prompt builder's chips: what the embedded world can say, and what a typed prompt has chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError
from workbench.ui.context import Context, answering, asked_of

if TYPE_CHECKING:
    from workbench.models import ModelFacts
    from workbench.models.embedded.world import Solid

USUAL = {"embedded": "a big red ball moves right over sand"}
OPEN_WORLD = "a red ball rolls over sand"


def usual_prompt(facts: ModelFacts) -> str:
    """Return what a form starts with."""
    return USUAL.get(facts.name, OPEN_WORLD)


def vocabulary(facts: ModelFacts) -> dict[str, Any] | None:
    """Return the choices of the chips, None for a model that reads free text."""
    from workbench.models.prompts import has_closed_vocabulary

    if not has_closed_vocabulary(facts):
        return None
    from workbench.models.embedded.world.prompt_builder import prompt_vocabulary

    known = prompt_vocabulary(num_examples=6)
    return {name: known[name] for name in ("attributes", "order", "second_motions", "pannable", "examples")}


def builder_calls(context: Context) -> list[Callable[..., dict[str, Any]]]:
    """Return what the chips ask."""

    @answering
    def build(question: dict[str, Any]) -> dict[str, Any]:
        """Answer the prompt of the chosen chips."""
        from workbench.models.embedded.world.prompt_builder import build_prompt

        asked = question.get("choices")
        if not isinstance(asked, dict) or not all(isinstance(one, str) for one in asked.values()):
            raise InputError("Choices of a prompt are words by the names of what they describe.")
        return {"prompt": build_prompt(asked)}

    @answering
    def chosen(question: dict[str, Any]) -> dict[str, Any]:
        """Answer the chips that a typed prompt has chosen, and what the model says to it."""
        from workbench.models import check_words

        here, _ = asked_of(context, question)
        prompt = str(question.get("prompt", ""))
        try:
            check_words(here.facts, prompt)
            fault = ""
        except InputError as error:
            fault = str(error)
        return {"choices": choices_of(prompt) if not fault else {}, "fault": fault}

    return [build, chosen]


def choices_of(prompt: str) -> Mapping[str, str]:
    """Return what a caption of the embedded world states, by the names of the builder's choices."""
    from workbench.comparison.asked import asked_scene
    from workbench.models.embedded.world import words
    from workbench.models.embedded.world.prompt_builder import SECOND, prompt_vocabulary

    scene = asked_scene(prompt)
    if scene is None:
        return {}
    options = prompt_vocabulary(num_examples=1)["attributes"]
    spoken = f" {' '.join(words(prompt))} "

    def said(name: str, value: str) -> bool:
        option = next((one for one in options[name] if one["value"] == value), None)
        phrases = [option["phrase"], *option["synonyms"]] if option else []
        return any(f" {' '.join(words(phrase))} " in spoken for phrase in phrases)

    def parts(solid: Solid, prefix: str) -> dict[str, str]:
        named = {name: str(getattr(solid, name)) for name in ("size", "colour", "texture", "shape", "motion")}
        kept = {name: value for name, value in named.items() if said(name, value)}
        return {f"{prefix}{name}": value for name, value in ({"shape": solid.shape} | kept).items()}

    choices = parts(scene.objects[0], "")
    if scene.relation is not None:
        choices |= {"relation": scene.relation, **parts(scene.objects[1], SECOND)}
    if said("background", scene.background):
        choices["background"] = scene.background
    if scene.camera != "static":
        choices["camera"] = scene.camera
    return choices
