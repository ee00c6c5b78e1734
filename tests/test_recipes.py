"""Recipes for several GPUs and machines: accelerate reads them, SLURM would start the right lines."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from workbench.cli.app import app

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["accelerate.yaml", "recipes/accelerate-gpus.yaml"])
def test_accelerate_reads_the_configuration(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / name))
    assert config.num_machines == 1 and config.num_processes >= 2 and config.mixed_precision == "no"


def _executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_slurm_starts_one_launcher_a_machine(tmp_path: Path) -> None:
    """`srun`, `scontrol` and the launcher are stand-ins: they show what each machine would run."""
    _executable(tmp_path / "bin" / "scontrol", "echo node-a; echo node-b")
    _executable(tmp_path / "bin" / "srun", 'shift; for id in 0 1; do SLURM_NODEID=$id "$@"; done')
    _executable(tmp_path / ".venv" / "bin" / "accelerate", 'printf "%q " "$@"; echo')
    variables = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_GPUS_ON_NODE": "4",
    }
    words = ["bash", str(ROOT / "recipes" / "slurm-finetune.sh"), "/shared/my workspace", "/shared/s/1"]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        options = dict(itertools.pairwise(line))
        assert options["--num_machines"] == "2" and options["--num_processes"] == "8"
        assert options["--machine_rank"] == str(rank) and options["--main_process_ip"] == "node-a"
        assert options["--main_process_port"] == "23456" and options["-m"] == "workbench.cli"
        assert options["--workspace"] == "/shared/my workspace" and options["--student"] == "/shared/s/1"
        assert options["--preset"] == "24gb" and "--here" in line
    bare = subprocess.run(words[:2], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert bare.returncode != 0 and "usage: sbatch recipes/slurm-finetune.sh" in bare.stderr


def test_the_commands_of_the_page_exist() -> None:
    """Every `workbench …` line of docs/wan.md names a command and options that there are."""
    group = typer.main.get_command(app)
    blocks = (ROOT / "docs" / "wan.md").read_text(encoding="utf-8").split("```bash")[1:]
    lines = [line for block in blocks for line in block.split("```")[0].replace("\\\n", " ").splitlines()]
    checked = 0
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] != ["workbench"]:
            continue
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
        checked += 1
    assert checked >= 8
