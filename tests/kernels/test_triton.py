"""Run the Triton suite in its own process: Triton reads TRITON_INTERPRET when its kernels are defined."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


SUITES = ["triton_suite.py", "stats_suite.py", "elementwise_suite.py"]


def run_suite(name: str, **environment: str) -> None:
    options = ["-q", "-x", "-p", "no:cacheprovider", "--confcutdir", "tests/kernels"]
    command = [sys.executable, "-m", "pytest", *options, f"tests/kernels/{name}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(sys.platform != "linux", reason="triton is installed on Linux alone")
@pytest.mark.parametrize("name", SUITES)
def test_suite_through_the_interpreter(name):
    run_suite(name, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SUITES)
def test_suite_on_the_gpu(name):
    run_suite(name, TRITON_INTERPRET="0")
