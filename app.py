"""Start the workbench in the browser: python app.py [--port N] [--workspace DIR] [--no-browser]."""

import argparse
import os
import sys
from pathlib import Path

# No look-ups anywhere, by the server or by gradio, unless the user asks for the hub.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> int:
    """Read the arguments, open the workspace, serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="app.py", description="The linearization workbench, on this machine only."
    )
    parser.add_argument("--port", type=int, default=7860, help="port on 127.0.0.1 (default 7860)")
    parser.add_argument(
        "--workspace", type=Path, help="folder for everything made (default: the user's data folder)"
    )
    parser.add_argument("--model", default="embedded", help="registry name or a local diffusers folder")
    parser.add_argument("--host", default="127.0.0.1", help="only loopback is served")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()

    from workbench.errors import InputError
    from workbench.ui.server import Settings, serve
    from workbench.workspace import Workspace

    try:
        settings = Settings(
            arguments.host, arguments.port, arguments.model, open_browser=not arguments.no_browser
        )
        serve(Workspace.open(arguments.workspace), settings)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
