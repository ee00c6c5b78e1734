"""Parts of the interface that gradio lacks: each a script and a style in its own file, and here its Python face.

A part owns its element; gradio only hands values to and fro. The same scripts serve notebooks and offline pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gradio as gr

LOADER = """
const events = %(events)s;
import("/workbench/static/%(script)s.js").then(({ mount }) => mount(element.querySelector(".part"), {
  get: (name = "value") => props[name],
  set: value => { props.value = value; },
  emit: name => trigger(name),
  watch: (act, names = ["value"]) => watch(names, act),
  call: (name, question) => server[name](question),
  say: sentence => import("/workbench/static/bus.js").then(({ say }) => say(sentence)),
}));
"""

from gradio.events import Dependency

class Part(gr.HTML):
    """A component whose markup belongs to its script `components/<script>.js`."""

    script: ClassVar[str] = ""
    emits: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, value: Any = None, *, calls: Sequence[Callable[..., Any]] = (), **options: Any
    ) -> None:
        super().__init__(
            value,
            html_template=f'<div class="part workbench {self.script}-part"></div>',
            js_on_load=LOADER % {"events": list(self.emits), "script": self.script},
            apply_default_css=False,
            server_functions=list(calls),
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": {}, "description": f"value of the {self.script}"}

    def example_payload(self) -> Any:
        return None
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Shell(Part):
    """Top bar, study bar and the pulse that watches the jobs."""

    script = "shell"
    emits = ("settled",)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Sprite(Part):
    """Blocks × heads, the heads of one block, one head in full."""

    script = "sprite"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Overlay(Part):
    """Where one patch looks, over every frame."""

    script = "overlay"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Heads(Part):
    """Numbers of every head, sortable."""

    script = "heads"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Painter(Part):
    """The plan painter; its value is one operator label per block, `table` holds the measured cells."""

    script = "painter"
    emits = ("paint",)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Summary(Part):
    """What a plan costs and how far it is off."""

    script = "summary"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Player(Part):
    """Clips in sync, with their curve."""

    script = "player"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Jobs(Part):
    """All jobs, and the chosen one in full."""

    script = "jobs"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

class Progress(Part):
    """The running job of one kind, beside the form that started it."""

    script = "progress"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
