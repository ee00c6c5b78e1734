"""The element-wise formulas against torch's own layers, and what is refused."""

import pytest
import torch
from torch import nn

from kernels.elementwise import gated_sum, residual_norm, rms_norm_rotate


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_affine_norm_is_torchs_layer_norm():
    layer = nn.LayerNorm(24)
    with torch.no_grad():
        layer.weight.copy_(draw(24, seed=1))
        layer.bias.copy_(draw(24, seed=2))
        hidden = draw(2, 5, 24)
        summed, normed = residual_norm(
            hidden, scale=layer.weight, shift=layer.bias, one_plus=False, eps=layer.eps
        )
        assert summed is hidden
        torch.testing.assert_close(normed, layer(hidden))


def test_a_plain_rms_norm_is_torchs():
    layer = nn.RMSNorm(24, eps=1e-6)
    with torch.no_grad():
        states = draw(2, 5, 24)
        result = rms_norm_rotate(states, layer.weight, heads=3, eps=1e-6)
        torch.testing.assert_close(result.flatten(2), layer(states))


def test_a_gate_of_zero_changes_nothing():
    hidden, update = draw(1, 3, 8), draw(1, 3, 8, seed=1)
    assert torch.equal(gated_sum(hidden, update, torch.zeros(8)), hidden)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(3, 8)}, "expected floating"),
        ({"update": torch.zeros(1, 4, 8)}, "update must have the shape"),
        ({"scale": torch.zeros(1, 2, 8)}, "scale must broadcast"),
        ({"gate": torch.zeros(8)}, "gate needs an update"),
        ({"impl": "triton"}, "impl 'triton' cannot run here"),
        ({"impl": "fast"}, "impl must be one of"),
        ({"scale": torch.zeros(8, requires_grad=True)}, "have no gradient"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"hidden": torch.zeros(1, 3, 8), **change}
    with pytest.raises(ValueError, match=message):
        residual_norm(arguments.pop("hidden"), **arguments)


def test_rotary_tables_of_another_length_are_refused():
    table = torch.zeros(1, 4, 1, 8)
    with pytest.raises(ValueError, match="rotary must be"):
        rms_norm_rotate(torch.zeros(1, 3, 16), torch.ones(16), heads=2, rotary=(table, table))
