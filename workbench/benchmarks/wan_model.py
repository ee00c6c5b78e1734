"""Wan transformers of an exact architecture with random weights, and their inputs; nothing of timing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models import adapter_of
from workbench.models.adapter import Adapter
from workbench.models.facts import ModelFacts
from workbench.models.registry import find
from workbench.operators import OperatorSpec, parse_rate
from workbench.planning.grammar import parse_short
from workbench.planning.plan import Plan, make_plan
from workbench.surgery import FreshCells, install_operators, restore
from workbench.types import ClipSize

TINY = {"num_blocks": 2, "num_heads": 2, "head_dim": 32, "ffn_dim": 96, "text_tokens": 8}
TEXT_DIM, TINY_TEXT_DIM = 4096, 32


@dataclass(frozen=True)
class Setting:
    """Which architecture at which clip size.

    Attributes:
        tiny: the same code on a transformer of two narrow blocks, to test a run before it costs GPU time.
    """

    name: str
    size: ClipSize
    tiny: bool = False

    @property
    def facts(self) -> ModelFacts:
        """The registry's facts, narrowed where tiny."""
        entry = find(self.name)
        assert entry is not None, self.name
        return entry.facts.model_copy(update=TINY) if self.tiny else entry.facts

    @property
    def num_tokens(self) -> int:
        return self.facts.token_grid(self.size).num_tokens

    @property
    def label(self) -> str:
        """Name in result rows; a tiny model never carries the name of a real one."""
        return f"tiny {self.name}" if self.tiny else self.name

    def plan(self, short: str) -> Plan:
        """Return the plan of a short name such as `15xR2`, counted in blocks of the real architecture."""
        if not self.tiny:
            return parse_short(short, self.facts)
        return uniform_plan(self.facts, short.partition("x")[2])


def uniform_plan(facts: ModelFacts, rate: str) -> Plan:
    """Return the plan that converts every block to one operator, written as `parse_rate` reads it."""
    spec: OperatorSpec = parse_rate(rate)
    return make_plan(dict.fromkeys(range(facts.num_blocks), spec), facts, name=f"{facts.num_blocks}x{rate}")


@dataclass(frozen=True, eq=False)
class RandomWan:
    """A transformer with random weights, as `observe` wants a model."""

    setting: Setting
    transformer: Any
    adapter: Adapter
    device: torch.device
    dtype: torch.dtype

    @property
    def facts(self) -> ModelFacts:
        return self.setting.facts

    def inputs(self, size: ClipSize | None = None, *, batch: int = 1) -> dict[str, Tensor]:
        """Return keyword arguments of one forward pass, seeded."""
        facts, size = self.facts, size or self.setting.size
        frames, space = facts.vae_scale
        generator = torch.Generator(device=self.device).manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

        channels = self.transformer.config.in_channels
        latent = ((size.frames - 1) // frames + 1, size.height // space, size.width // space)
        return {
            "hidden_states": draw(batch, channels, *latent),
            "timestep": torch.full((batch,), 500, device=self.device),
            "encoder_hidden_states": draw(batch, facts.text_tokens, self.transformer.config.text_dim),
        }

    @torch.no_grad()
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Run the transformer once."""
        found: Tensor = self.transformer(**inputs, return_dict=False)[0]
        return found

    @contextmanager
    def student(self, plan: Plan) -> Iterator[None]:
        """Carry the untrained operators of a plan while the body runs."""
        install_operators(self.transformer, self.adapter, plan, FreshCells(self.facts))
        try:
            yield
        finally:
            restore(self.transformer)


def random_wan(setting: Setting, device: torch.device, dtype: torch.dtype) -> RandomWan:
    """Build the transformer of a setting in ``dtype``; what diffusers keeps in float32 stays so."""
    from diffusers import WanTransformer3DModel

    facts = setting.facts
    entry = find(setting.name)
    assert entry is not None
    torch.manual_seed(0)
    with torch.device(device):
        transformer: nn.Module = WanTransformer3DModel(
            patch_size=facts.patch_size,
            num_attention_heads=facts.num_heads,
            attention_head_dim=facts.head_dim,
            in_channels=entry.in_channels,
            out_channels=entry.in_channels,
            text_dim=TINY_TEXT_DIM if setting.tiny else TEXT_DIM,
            freq_dim=32 if setting.tiny else 256,
            ffn_dim=facts.ffn_dim,
            num_layers=facts.num_blocks,
        )
    kept: Any = WanTransformer3DModel._keep_in_fp32_modules
    for name, parameter in transformer.named_parameters():
        if not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.to(dtype)
    transformer.eval().requires_grad_(False)
    return RandomWan(setting, transformer, adapter_of(transformer), device, dtype)
