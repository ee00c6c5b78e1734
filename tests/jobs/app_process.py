"""The app's part in the tests of crashes: submit a job, if any, under a key; tend the queue until killed."""

from __future__ import annotations

import json
import sys
import time

from workbench.jobs import Queue
from workbench.workspace import Workspace


def main(folder: str, config: str) -> None:
    queue = Queue(Workspace.open(folder))
    queue.recover()
    if config:
        queue.submit("demo", json.loads(config), key="the one")
    queue.dispatch()
    while True:
        queue.tend()
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
