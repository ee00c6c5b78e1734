"""The script for a GPU asks for modules, parts and files that exist."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

from workbench.benchmarks.wan_forward import PARTS

ROOT = Path(__file__).parents[2]


def test_every_command_of_the_session_can_be_run(tmp_path):
    done = subprocess.run(
        ["bash", "kernels/benchmarks/gpu_session.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": "/bin/echo", "RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = re.findall(r"^\d+ (\w+): exit 0", done.stdout, re.MULTILINE)
    logs = [(tmp_path / "logs" / f"{name}.txt").read_text() for name in names]
    assert len(names) == len(re.findall(r"^== ", done.stdout, re.MULTILINE)) == 18
    modules = {module for log in logs for module in re.findall(r"-m ([\w.]+) ", log)}
    assert len(modules) > 4
    assert [module for module in modules if find_spec(module) is None] == []
    suites = {suite for log in logs for suite in re.findall(r"tests/kernels/\w+\.py", log)}
    assert [suite for suite in suites if not (ROOT / suite).exists()] == []
    parts = [
        part for log in logs for found in re.findall(r"--parts ([\w,]+)", log) for part in found.split(",")
    ]
    assert sorted(parts) == sorted(PARTS)
