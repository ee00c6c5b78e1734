"""The table of a suite, as Markdown: a row a measure, a column a model, the noise floors beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.evaluation.adherence import ATTRIBUTES
from workbench.evaluation.measures import CLIP_MEASURES, PAIR_MEASURES


def table(document: Mapping[str, Any]) -> str:
    """Return the figures of `suite_report.summary` as a Markdown table with a line on how to read it."""
    models, floors = document["models"], document["noise_floor"]
    heads = ["measure", *_names(models)]
    heads += [floor["label"] for floor in floors.values()]
    rows = [_pair_row(name, models, floors) for name in PAIR_MEASURES]
    rows += [_clip_row(name, models, len(floors)) for name in CLIP_MEASURES]
    rows += [_attribute_row(name, models, len(floors)) for name in ATTRIBUTES]
    lines = [heads, ["---"] * len(heads), *(row for row in rows if row)]
    count = len(document["prompts"]) * len(document["config"]["seeds"])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = [model["motion"]["sentence"] for model in models if "motion" in model]
    reading = (
        f"{count} clips a model ({len(document['prompts'])} prompts, "
        f"{len(document['config']['seeds'])} seeds). In brackets: the 95 % interval; after Δ: the paired "
        "difference from the first model with its interval. The last columns are noise floors of the first "
        "model: a difference no larger than that of another precision means nothing, one as large as that of "
        "another seed leaves only the prompt in common. VBench-like measures are no VBench scores."
    )
    return "\n".join([text, "", *notes, "", reading, ""])


def _names(models: list[dict[str, Any]]) -> list[str]:
    """Return the plan of every student; its name stands beside it where two have the same plan."""
    short = [model["plan"] or model["name"] for model in models]
    whole = [f"{model['name']} {model['plan']}".strip() for model in models]
    return [one if short.count(one) == 1 else both for one, both in zip(short, whole, strict=True)]


def _pair_row(name: str, models: list[dict[str, Any]], floors: Mapping[str, Any]) -> list[str]:
    digits = PAIR_MEASURES[name].digits
    cells = [_interval(model.get("pair", {}).get(name), digits) for model in models]
    cells += [_interval(floor["pair"].get(name), digits) for floor in floors.values()]
    return [PAIR_MEASURES[name].label, *cells] if any(cells) else []


def _clip_row(name: str, models: list[dict[str, Any]], blanks: int) -> list[str]:
    digits = CLIP_MEASURES[name].digits
    cells = []
    for model in models:
        cell = _interval(model["measures"][name], digits)
        change = model.get("against_reference", {}).get(name)
        cells.append(
            cell
            if change is None
            else f"{model['measures'][name]['mean']:.{digits}f} {_change(change, digits)}"
        )
    return [CLIP_MEASURES[name].label, *cells, *[""] * blanks]


def _attribute_row(name: str, models: list[dict[str, Any]], blanks: int) -> list[str]:
    cells = []
    for model in models:
        share = model.get("adherence", {}).get(name)
        if share is None:
            return []
        low, high = model["intervals"][name]
        cell = f"{share:.0%} [{low:.0%}, {high:.0%}]"
        change = model.get("against_reference", {}).get(name)
        cells.append(cell if change is None else f"{share:.0%} {_change(change, 2)}")
    return [f"{name} right", *cells, *[""] * blanks]


def _interval(value: Mapping[str, float] | None, digits: int) -> str:
    if value is None:
        return ""
    if value["prompts"] < 2:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _change(change: Mapping[str, float], digits: int) -> str:
    return f"Δ {change['mean']:+.{digits}f} [{change['low']:+.{digits}f}, {change['high']:+.{digits}f}]"
