"""Serve one workspace on one loopback port: who may, where, and what the user is told. Knows no page."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass

from workbench.errors import InputError
from workbench.jobs.locks import server_lock
from workbench.ui.guard import LOOPBACK
from workbench.workspace import Workspace

HOST = "127.0.0.1"
PORTS_TO_TRY = 20


@dataclass(frozen=True)
class Settings:
    """How to serve; `model` is what the pages start with."""

    host: str = HOST
    port: int = 7860
    model: str = "embedded"
    open_browser: bool = True


def serve(workspace: Workspace, settings: Settings) -> None:
    """Serve `workspace` until interrupted.

    Raises:
        InputError: a host that is not loopback, a port in use, or a workspace that another server holds.
    """
    check_host(settings.host, settings.port)
    listener = bind(settings.port)
    with listener, server_lock(workspace):
        import uvicorn

        from workbench.ui.app import build_app

        app = build_app(workspace, model=settings.model)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="on"
        )
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut_connection)
        sys.stdout.write(start_message(settings.port))
        sys.stdout.flush()
        if settings.open_browser:
            threading.Timer(0.5, webbrowser.open, [f"http://{HOST}:{settings.port}/"]).start()
        uvicorn.Server(config).run(sockets=[listener])


def check_host(host: str, port: int) -> None:
    """Refuse to serve anything but this machine.

    Raises:
        InputError: the host is not a loopback name.
    """
    if host not in LOOPBACK:
        raise InputError(
            f"The workbench serves this machine only, not {host!r}; to reach it from another one, "
            f"start it here and run there: {tunnel(port)}"
        )


def bind(port: int) -> socket.socket:
    """Return a listening socket on the loopback port.

    Raises:
        InputError: the port is no port, or is in use; a free one near it is named.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"Port must be between 1 and 65535, got {port}.")
    try:
        return _listen(port)
    except OSError as error:
        free = next(
            (other for other in range(port + 1, min(port + PORTS_TO_TRY, 65536)) if _is_free(other)), None
        )
        advice = f"try --port {free}" if free else "choose another with --port"
        raise InputError(f"Port {port} on {HOST} cannot be used ({error.strerror}); {advice}.") from None


def start_message(port: int) -> str:
    """Return what the terminal shows once the server answers."""
    return (
        f"Workbench: http://{HOST}:{port}/\n"
        f"From another machine: {tunnel(port)}, then open the same address there.\n"
        "Stop with Ctrl+C; running jobs go on.\n"
    )


def tunnel(port: int) -> str:
    """Return the line that brings the page to another machine."""
    return f"ssh -L {port}:{HOST}:{port} {socket.gethostname()}"


def _is_no_cut_connection(record: logging.LogRecord) -> bool:
    """Keep every record but those of pages that were open when the server was stopped."""
    fault = record.exc_info[1] if record.exc_info else None
    return (
        not isinstance(fault, asyncio.CancelledError)
        and "timeout_graceful_shutdown" not in record.getMessage()
    )


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _is_free(port: int) -> bool:
    try:
        _listen(port).close()
    except OSError:
        return False
    return True
