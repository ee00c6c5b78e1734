"""Implied rows: applied to the values they give the operator's own output, and they sum to one."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from tests.distillation.test_measure import run
from workbench import capture as capturing
from workbench.capture import CaptureConfig
from workbench.distillation import implied_row
from workbench.distillation.implied import implied_rows
from workbench.errors import InputError
from workbench.models import LoadedModel, ModelFacts
from workbench.operators import build, parse_rate
from workbench.operators.hybrid import HybridAttention
from workbench.types import SilentReporter
from workbench.workspace import Workspace


@pytest.mark.parametrize("rate", ["R2", "R5", "linear"])
def test_rows_applied_to_values_are_the_output(micro_facts: ModelFacts, rate: str) -> None:
    operator = cast(HybridAttention, build(parse_rate(rate), micro_facts))
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 30, 2, 12) for _ in range(3))
    with torch.no_grad():
        rows = implied_rows(operator, query[:, 3:5], key)
        output = operator(query[:, 3:5], key, value, context=cast(Any, None))
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(1, 2, 2))
    torch.testing.assert_close(torch.einsum("bmhn,bnhd->bmhd", rows, value), output)


def test_rows_of_a_bank_over_a_capture(micro_model: LoadedModel, workspace: Workspace) -> None:
    bank = run(micro_model, workspace, updates=8)
    config = CaptureConfig(prompt="a red ball")
    found = capturing.load(capturing.run(micro_model, config, workspace, reporter=SilentReporter()))
    row = implied_row(found, bank, parse_rate("R4"), block=2, head=1, token=7)
    assert row.shape == tuple(found.grid) and row.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="not in bank"):
        implied_row(found, bank, parse_rate("R4"), block=1, head=1, token=7)
    with pytest.raises(InputError, match="Token 72"):
        implied_row(found, bank, parse_rate("R4"), block=2, head=1, token=72)
