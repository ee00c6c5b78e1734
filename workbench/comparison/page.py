"""The comparison as a page that opens without a server: scripts, styles and data in one HTML file.

Knows the files of the interface's player by name, as text; imports nothing of the interface.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from workbench.comparison.record import PAGE, Comparison
from workbench.comparison.shown import player_data

STYLES = ("tokens.css", "base.css", "controls.css", "components/player.css", "components/vote.css")
SCRIPTS = ("components/player.js", "components/vote.js")
IMPORT = re.compile(r"import\s*\{([^}]*)\}\s*from\s*'\./([\w-]+\.js)';\n?")
EXPORT = re.compile(r"^export (?=(?:const|function|class)\s+(\w+))", re.MULTILINE)


def write_page(folder: Path, record: Comparison, *, vote: bool = False) -> Path:
    """Write the page of a comparison beside its clips."""
    path = folder / PAGE
    path.write_text(page(player_data(record), made=made_line(record), vote=vote), encoding="utf-8")
    return path


def page(data: Mapping[str, Any], *, made: str, vote: bool = False) -> str:
    """Return the HTML document of a comparison; every text from outside is escaped.

    Args:
        data: the player's value (`shown.player_data`), clips with addresses relative to the page.
        made: one line saying with what and when it was made.
        vote: begin with a blind vote; names and figures are shown after its last pair.
    """
    clips = [clip for row in data["rows"] for clip in row["clips"]]
    labels = list(dict.fromkeys(str(fact[0]) for clip in clips for fact in clip["facts"]))
    heads = "".join(f'<th class="number">{html.escape(label)}</th>' for label in labels)
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    prompts = [str(row["prompt"]) for row in data["rows"]]
    more = f" and {len(prompts) - 1} more" if len(prompts) > 1 else ""
    return template.substitute(
        title=html.escape(f"Comparison: {prompts[0]}{more}"),
        subtitle=html.escape(f"the same prompt and seed, {data['frames']} frames"),
        hint=html.escape(f"{len(clips)} clips"),
        heads=heads,
        rows="".join(_row(row["prompt"], clip, labels) for row in data["rows"] for clip in row["clips"]),
        made=html.escape(made),
        styles="\n".join(_read(name) for name in STYLES),
        script=inline_modules(SCRIPTS),
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028"),
        vote=json.dumps(vote),
    )


def made_line(record: Comparison) -> str:
    """Return what a comparison was made with, as one line."""
    made = record.made
    if "device" not in made:
        return f"Imported clips, {made.get('created', '')}."
    return (
        f"{record.model['name']}, plan {record.plan}; measured on {made['device']} ({made['dtype']}), "
        f"torch {made['torch']}, diffusers {made['diffusers']}, {made['created']}. "
        "Operations are counted, times are one run each."
    )


def inline_modules(names: Sequence[str]) -> str:
    """Return script modules of the interface, with all they import, as one plain script.

    Each module becomes a constant with its exports, named like its file. Only named imports from the same
    folder are understood; that is all our modules use.
    """
    ordered: dict[str, str] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if file not in ordered:
            _collect(folder, file, ordered)
    return "\n".join(ordered.values())


def _collect(folder: str, file: str, ordered: dict[str, str]) -> None:
    source = _read(f"{folder}/{file}")
    for imported in IMPORT.findall(source):
        if imported[1] not in ordered:
            _collect(folder, imported[1], ordered)
    exported = [match[1] for match in EXPORT.finditer(source)]
    body = IMPORT.sub(
        lambda match: f"const {{{match[1].replace(' as ', ': ')}}} = {_constant(match[2])};\n",
        EXPORT.sub("", source),
    )
    ordered[file] = (
        f"const {_constant(file)} = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();"
    )


def _constant(file: str) -> str:
    return file.removesuffix(".js").replace("-", "_") + "_module"


def _row(prompt: str, clip: Mapping[str, Any], labels: list[str]) -> str:
    facts = {str(fact[0]): " ".join(str(part) for part in fact[1:3] if part) for fact in clip["facts"]}
    cells = "".join(f'<td class="number">{html.escape(facts.get(label, ""))}</td>' for label in labels)
    return (
        f"<tr><td>{html.escape(str(clip['name']))}</td>"
        f'<td class="muted clipped">{html.escape(str(prompt))}</td>{cells}</tr>'
    )


def _read(name: str) -> str:
    return files("workbench").joinpath("ui", *name.split("/")).read_text(encoding="utf-8")
