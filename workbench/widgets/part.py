"""One part of the interface as an anywidget. Knows the parts' `mount(element, host)`, not what they show.

Everything travels inside the widget: scripts and styles are inlined, clips and pictures are data addresses,
so a notebook asks no other host for anything.
"""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from workbench.comparison.page import inline_modules
from workbench.errors import WorkbenchError

STYLES = ("tokens.css", "base.css", "controls.css")
HOST = """
const hostOf = model => {
  const watchers = [];
  const waiting = new Map();
  let own = false;
  model.on('msg:custom', message => {
    waiting.get(message.ticket)?.(message.answer);
    waiting.delete(message.ticket);
  });
  model.on('change:props', () => own || watchers.forEach(act => act()));
  return {
    get: (name = 'value') => model.get('props')[name],
    set: value => {
      own = true;
      model.set('props', { ...model.get('props'), value });
      model.save_changes();
      own = false;
    },
    emit: name => model.send({ event: name }),
    watch: act => watchers.push(act),
    call: (name, question) => new Promise(done => {
      const ticket = String(Math.random()); // every view of the widget hears every answer
      waiting.set(ticket, done);
      model.send({ call: name, question, ticket });
    }),
    say: () => {},
  };
};
const render = ({ model, el }) => {
  el.classList.add('workbench', 'workbench-widget');
  if (model.get('arrangement')) el.classList.add(model.get('arrangement'));
  el.classList.toggle('dark', document.body.dataset.jpThemeLight === 'false');
  for (const [name, mount] of MOUNTS) {
    const part = document.createElement('div');
    part.className = `part ${name}-part`;
    el.append(part);
    mount(part, hostOf(scoped(model, name)));
  }
};
const scoped = (model, name) => ({
  get: () => model.get('props')[name],
  set: (_, value) => model.set('props', { ...model.get('props'), [name]: value }),
  save_changes: () => model.save_changes(),
  on: (event, act) => model.on(event, act),
  send: message => model.send(message),
});
export default { render };
"""


STILL = """
const on = {};
const model = {
  get: name => STATE[name],
  set: (name, value) => { STATE[name] = value; },
  save_changes: () => {},
  on: (name, act) => (on[name] ??= []).push(act),
  send: ({ call, question, ticket }) => {
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    const found = STATE.canned.find(([name, asked]) =>
      name === call && Object.entries(asked).every(([key, value]) => same(question[key], value)));
    const answer = found ? found[2] : { error: 'This page is still; run the notebook to ask for more.' };
    (on['msg:custom'] ?? []).forEach(act => act({ ticket, answer }));
  },
};
render({ model, el: document.getElementById('part') });
"""
STILL_ENVIRONMENT = "WORKBENCH_STILL"
"""When set, widgets are shown as pages without Python: for notebooks that become documents."""


class PartWidget(anywidget.AnyWidget):
    """A part, or several that share one selection.

    Args:
        parts: names of the scripts, `workbench/ui/components/<name>.js`.
        props: what each part is given: `{part: {"value": ...}}`.
        answers: what a part may ask: function name → question (a dict) → answer (a dict).
        arrangement: how several parts stand, a class of `widgets.css`.
        still: questions (function name, question) that a page without Python answers as well.

    Attributes:
        props: as given; changes of the user are written back to it.
    """

    props = traitlets.Dict().tag(sync=True)
    arrangement = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        *parts: str,
        props: Mapping[str, Mapping[str, Any]],
        answers: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
        arrangement: str = "",
        still: Sequence[tuple[str, dict[str, Any]]] = (),
    ) -> None:
        self._answers = dict(answers or {})
        self._still = list(still)
        self._told: list[Callable[[str], None]] = []
        mounts = ", ".join(f"['{part}', {part}_module.mount]" for part in parts)
        script = inline_modules([f"components/{part}.js" for part in parts])
        self._esm = f"{script}\nconst MOUNTS = [{mounts}];\n{HOST}"
        self._css = _styles()  # of all parts: anywidget keeps one sheet a class
        super().__init__(arrangement=arrangement, props={part: dict(given) for part, given in props.items()})
        self.on_msg(self._receive)

    def value(self, part: str) -> Any:
        """Return the present value of a part, with what the user did."""
        return self.props[part].get("value")

    def on_event(self, act: Callable[[str], None]) -> None:
        """Call `act(event)` whenever a part tells of something, such as `paint`."""
        self._told.append(act)

    def page(self) -> str:
        """Return the part as an HTML document that needs no Python: the questions of `still` are answered."""
        canned = [[name, question, self._answers[name](question)] for name, question in self._still]
        state = {"props": self.props, "arrangement": self.arrangement, "canned": canned}
        data = json.dumps(state, allow_nan=False).replace("<", "\\u003c")
        return (
            f'<!doctype html><meta charset="utf-8"><title>Workbench</title><style>{self._css}</style>'
            '<body class="workbench"><div id="part"></div><div class="toasts"></div>'
            f'<script type="module">{self._esm.replace("export default { render };", "")}\n'
            f"const STATE = {data};\n{STILL}</script>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if os.environ.get(STILL_ENVIRONMENT):
            frame = (
                f'<iframe srcdoc="{html.escape(self.page(), quote=True)}" title="Workbench" '
                'style="width:100%;height:640px;border:0" '
                "onload=\"this.style.height = this.contentDocument.documentElement.scrollHeight + 8 + 'px'\">"
                "</iframe>"
            )
            return {"text/html": frame, "text/plain": repr(self)}
        return super()._repr_mimebundle_(**kwargs)

    def _receive(self, _: Any, content: Mapping[str, Any], __: Any) -> None:
        if "event" in content:
            for act in self._told:
                act(str(content["event"]))
            return
        answer = self._answers.get(str(content.get("call")))
        if answer is None:
            return
        try:
            reply = answer(content.get("question") or {})
        except WorkbenchError as error:
            reply = {"error": str(error)}
        self.send({"ticket": content.get("ticket"), "answer": reply})


def data_address(path: Path) -> str:
    """Return a small file as a data address, so that it travels inside a notebook."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _styles() -> str:
    folder = files("workbench").joinpath("ui")
    parts = [file for file in folder.joinpath("components").iterdir() if file.name.endswith(".css")]
    sheets = [*(folder.joinpath(name) for name in STYLES), *sorted(parts, key=lambda file: file.name)]
    sheets.append(files(__package__).joinpath("widgets.css"))
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
