"""Finetunes a student in every process that `accelerate launch` starts; run by `test_finetune.py`."""

from __future__ import annotations

import sys

import torch

from workbench.distillation import FinetuneConfig, finetune
from workbench.surgery import open_model
from workbench.types import SilentReporter
from workbench.workspace import Workspace

if __name__ == "__main__":
    torch.set_num_threads(1)
    student, workspace, settings = sys.argv[1:]
    config = FinetuneConfig.model_validate_json(settings)
    model = open_model(student, device="cpu")
    folder = finetune(model, config, Workspace.open(workspace), reporter=SilentReporter())
    sys.stdout.write(f"made {folder}\n")
