"""Named places where a test makes a process die or hang; without the environment variable they do nothing.

`WORKBENCH_FAULT="<point>=<kill|hang>@<marker file>"`: the first process to reach the point makes the marker
file and then kills itself, or hangs until it is killed or `<marker file>.go` exists. The marker makes sure
that it happens once.
"""

from __future__ import annotations

import os
import signal
import time

ENVIRONMENT = "WORKBENCH_FAULT"
POINTS = (
    "submitted", "claimed", "spawned", "loading", "step", "save-tensors", "save-manifest", "save-renamed",
    "save-pruning", "stopping", "result", "ended", "commit",
)  # fmt: skip


def fault_point(name: str) -> None:
    """Die or hang here if the environment says so and nobody has yet."""
    wanted = os.environ.get(ENVIRONMENT)
    if not wanted or not wanted.startswith(f"{name}="):
        return
    action, _, marker = wanted.partition("=")[2].partition("@")
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while not os.path.exists(f"{marker}.go"):
        time.sleep(0.02)
