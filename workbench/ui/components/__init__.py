"""Parts of the interface that gradio lacks: each a script and a style in its own file, and here its face.

A part owns its element; gradio only hands values to and fro. The same scripts serve notebooks and offline
pages. They are built, not derived from `gr.HTML`: gradio writes a stub file beside every derived class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

LOADER = """
const events = %(events)s;
// a script that could not be had, because the server went away, is had anew with the whole page
const tries = Number(sessionStorage.getItem("workbench-reloads") ?? 0);
const reload = () => { sessionStorage.setItem("workbench-reloads", tries + 1); location.reload(); };
const look = () => fetch("/workbench/static/bus.js", { cache: "no-store" }).then(
  answer => (answer.ok ? reload() : again()), () => again());
const again = () => tries < 5 && setTimeout(look, 1000);
const had = script => { sessionStorage.removeItem("workbench-reloads"); return script; };
import("/workbench/static/%(script)s.js").then(had).then(({ mount }) => mount(
  element.querySelector(".part"), {
  get: (name = "value") => props[name],
  set: value => { props.value = value; },
  emit: name => trigger(name),
  watch: (act, names = ["value"]) => watch(names, act),
  call: (name, question) => server[name](question),
  say: sentence => import("/workbench/static/bus.js").then(({ say }) => say(sentence)),
}), again);
"""


@dataclass(frozen=True)
class Part:
    """A kind of component, whose markup belongs to its script `components/<script>.js`.

    Attributes:
        script: name of the script, and of the style.
        emits: events that the script may tell Python of.
    """

    script: str
    emits: tuple[str, ...] = ()

    def build(self, value: Any = None, *, calls: Sequence[Callable[..., Any]] = (), **props: Any) -> gr.HTML:
        """Place one on the page.

        Args:
            value: plain data that the script shows; see the head of the script for its shape.
            calls: functions that the script may call, by their names.
            props: further data for the script.
        """
        return gr.HTML(
            value,
            html_template=f'<div class="part workbench {self.script}-part"></div>',
            js_on_load=LOADER % {"events": list(self.emits), "script": self.script},
            apply_default_css=False,
            server_functions=list(calls),
            **props,
        )


SHELL = Part("shell", emits=("settled",))
"""Top bar, study bar and the pulse that watches the jobs."""
PLAN = Part("plan")
"""The whole Plan page: measuring, painter, budget, preview, changes."""
ATTENTION = Part("attention")
"""The whole Attention page: capture form, three zooms, overlay, numbers of the heads, playground."""
COMPARE = Part("compare")
"""The whole Compare page: prompts and columns, live preview, clips in sync, scores."""
JOBS = Part("jobs")
"""All jobs, and the chosen one in full."""
HOME = Part("home")
"""The whole Home page: the example study, the model, whether it pays, the machine."""
TRAIN = Part("train")
"""The whole Train page: what to train, its price, the live loss, samples over steps."""


def title(text: str) -> gr.HTML:
    """Place the heading of a page; `text` is ours, never a user's."""
    return gr.HTML(f"<h1>{text}</h1>", elem_classes="page-title workbench", apply_default_css=False)
