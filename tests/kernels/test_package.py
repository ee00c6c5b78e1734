"""Our folder shares its name with a package that diffusers and transformers probe."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_diffusers_and_transformers_report_hub_kernels_as_absent():
    code = """
import sys
sys.path.insert(0, ".")
import kernels
from diffusers.utils.import_utils import is_kernels_version as diffusers_sees
from transformers.utils.import_utils import is_kernels_available as transformers_sees
import diffusers.models.transformers.transformer_wan, transformers.integrations.hub_kernels
print(kernels.__version__, diffusers_sees(">=", "0.12"), transformers_sees())
"""
    assert run_python(code).split() == ["0.0.0", "False", "False"]


def test_kernels_import_torch_and_triton_alone():
    code = """
import sys
sys.path.insert(0, ".")
import torch
import triton
before = set(sys.modules)
import kernels.hybrid_attention
names = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(name for name in names if name not in sys.stdlib_module_names))
"""
    assert run_python(code).split() == ["kernels"]
