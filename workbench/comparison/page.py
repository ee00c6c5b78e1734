"""The comparison as a page that opens without a server: scripts, styles and data in one HTML file.

Knows the files of the interface's player by name, as text; imports nothing of the interface.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

STYLES = ("tokens.css", "base.css", "controls.css", "components/player.css")
PLAYER = "components/player.js"
IMPORT = re.compile(r"import\s*\{([^}]*)\}\s*from\s*'\./([\w-]+\.js)';\n?")
EXPORT = re.compile(r"^export (?=(?:const|function|class)\s+(\w+))", re.MULTILINE)


def page(data: Mapping[str, Any], *, made: str) -> str:
    """Return the HTML document of a comparison; every text from outside is escaped.

    Args:
        data: the player's value (`record.player_data`), clips with addresses relative to the page.
        made: one line saying with what and when it was made.
    """
    labels = list(dict.fromkeys(str(fact[0]) for clip in data["clips"] for fact in clip["facts"]))
    heads = "".join(f'<th class="number">{html.escape(label)}</th>' for label in labels)
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(f"Comparison: {data['prompt']}"),
        subtitle=html.escape(f"the same prompt and seed, {data['frames']} frames"),
        hint="of these two clips",
        heads=heads,
        rows="".join(_row(clip, labels) for clip in data["clips"]),
        made=html.escape(made),
        styles="\n".join(_read(name) for name in STYLES),
        script=inline_module(PLAYER),
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028"),
    )


def inline_module(name: str) -> str:
    """Return a script module of the interface, with all it imports, as one plain script.

    Each module becomes a constant with its exports, named like its file. Only named imports from the same
    folder are understood; that is all our modules use.
    """
    folder, _, file = name.rpartition("/")
    ordered: dict[str, str] = {}
    _collect(folder, file, ordered)
    return "\n".join(ordered.values())


def _collect(folder: str, file: str, ordered: dict[str, str]) -> None:
    source = _read(f"{folder}/{file}")
    for imported in IMPORT.findall(source):
        if imported[1] not in ordered:
            _collect(folder, imported[1], ordered)
    exported = [match[1] for match in EXPORT.finditer(source)]
    body = IMPORT.sub(
        lambda match: f"const {{{match[1]}}} = {_constant(match[2])};\n", EXPORT.sub("", source)
    )
    ordered[file] = (
        f"const {_constant(file)} = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();"
    )


def _constant(file: str) -> str:
    return file.removesuffix(".js").replace("-", "_")


def _row(clip: Mapping[str, Any], labels: list[str]) -> str:
    facts = {str(fact[0]): " ".join(str(part) for part in fact[1:] if part) for fact in clip["facts"]}
    cells = "".join(f'<td class="number">{html.escape(facts.get(label, ""))}</td>' for label in labels)
    return f"<tr><td>{html.escape(str(clip['name']))}</td>{cells}</tr>"


def _read(name: str) -> str:
    return files("workbench").joinpath("ui", *name.split("/")).read_text(encoding="utf-8")
