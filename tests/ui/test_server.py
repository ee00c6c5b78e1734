"""Starting the server: which port, which host, and who holds the workspace."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.jobs import server_lock
from workbench.ui.server import bind, check_host, start_message
from workbench.workspace import Workspace

ROOT = Path(__file__).parents[2]


def run_app(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def taken_port() -> int:  # type: ignore[misc]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_port_in_use_is_one_sentence_with_a_free_one(taken_port: int, tmp_path: Path) -> None:
    done = run_app("--port", str(taken_port), "--workspace", str(tmp_path / "w"))
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(
        rf"Port {taken_port} on 127.0.0.1 cannot be used \(.+\); try --port \d+\.\n", done.stderr
    )


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InputError, match="between 1 and 65535"):
        bind(port)


def test_a_second_server_is_told_who_holds_the_workspace(workspace: Workspace) -> None:
    with server_lock(workspace):
        done = run_app("--port", "17871", "--workspace", str(workspace.root))
    assert done.returncode == 2 and "already served by process" in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_hosts_are_refused_with_the_tunnel() -> None:
    check_host("127.0.0.1", 7860)
    with pytest.raises(InputError, match=r"ssh -L 7860:127\.0\.0\.1:7860"):
        check_host("0.0.0.0", 7860)


def test_an_unknown_model_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    done = run_app("--port", "17872", "--workspace", str(tmp_path / "w"), "--model", str(tmp_path / "none"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_the_start_message_names_the_address_once() -> None:
    message = start_message(7860)
    assert message.count("http://127.0.0.1:7860/") == 1 and "ssh -L" in message
