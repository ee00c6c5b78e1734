"""The models that the workbench knows by name: their architecture, defaults and where their weights live.

Facts of the public models are those of their published configurations. Knows no files.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from workbench.models.embedded import TEXT_LENGTH
from workbench.models.embedded import architecture as embedded
from workbench.models.facts import ModelFacts
from workbench.models.footprint import Footprint
from workbench.types import ClipSize

EMBEDDED = "embedded"
EMBEDDED_FPS = 8
UMT5_XXL = 5_680_910_336
WAN21_CODEC, WAN21_DECODE = 126_892_531, 204.0 * 96
WAN22_CODEC, WAN22_DECODE = 704_688_668, 338.0 * 256 / 4


@dataclass(frozen=True)
class RegistryEntry:
    """A model known by name.

    Attributes:
        hub_id: None for the one that ships with the workbench.
        footprint: of its published configuration; None where the weights are always here.
        in_channels: latent channels.
    """

    facts: ModelFacts
    hub_id: str | None
    footprint: Footprint | None = None
    in_channels: int = 16

    @property
    def name(self) -> str:
        return self.facts.name


def _embedded_facts() -> ModelFacts:
    transformer, codec = embedded.TRANSFORMER, embedded.CODEC
    return ModelFacts(
        name=EMBEDDED,
        num_blocks=transformer["num_layers"],
        num_heads=transformer["num_attention_heads"],
        head_dim=transformer["attention_head_dim"],
        ffn_dim=transformer["ffn_dim"],
        text_tokens=TEXT_LENGTH,
        patch_size=transformer["patch_size"],
        vae_scale=(codec["scale_factor_temporal"], codec["scale_factor_spatial"]),
        rope_limit=transformer["rope_max_seq_len"],
        default_size=ClipSize(embedded.NUM_FRAMES, embedded.HEIGHT, embedded.WIDTH),
        default_steps=embedded.NUM_STEPS,
        default_guidance=embedded.GUIDANCE_SCALE,
        fps=EMBEDDED_FPS,
    )


ENTRIES: tuple[RegistryEntry, ...] = (
    RegistryEntry(_embedded_facts(), hub_id=None),
    RegistryEntry(
        ModelFacts(name="wan2.1-t2v-1.3b", num_blocks=30, num_heads=12, head_dim=128, ffn_dim=8960),
        hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        footprint=Footprint(1_418_996_800, UMT5_XXL, WAN21_CODEC, WAN21_DECODE),
    ),
    RegistryEntry(
        ModelFacts(name="wan2.1-t2v-14b", num_blocks=40, num_heads=40, head_dim=128, ffn_dim=13824),
        hub_id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        footprint=Footprint(14_288_491_584, UMT5_XXL, WAN21_CODEC, WAN21_DECODE),
    ),
    RegistryEntry(
        ModelFacts(
            name="wan2.2-ti2v-5b",
            num_blocks=30,
            num_heads=24,
            head_dim=128,
            ffn_dim=14336,
            vae_scale=(4, 16),
            default_size=ClipSize(121, 704, 1280),
            fps=24,
        ),
        hub_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        footprint=Footprint(4_999_787_712, UMT5_XXL, WAN22_CODEC, WAN22_DECODE),
        in_channels=48,
    ),
    RegistryEntry(
        ModelFacts(
            name="wan2.2-t2v-a14b",
            num_blocks=40,
            num_heads=40,
            head_dim=128,
            ffn_dim=13824,
            num_transformers=2,
            default_steps=40,
            default_guidance=4.0,
        ),
        hub_id="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        footprint=Footprint(14_288_491_584, UMT5_XXL, WAN21_CODEC, WAN21_DECODE),
    ),
)


def names() -> tuple[str, ...]:
    """Return every registry name."""
    return tuple(entry.name for entry in ENTRIES)


def find(name: str) -> RegistryEntry | None:
    """Return the entry of a registry name or of its hub id, None for anything else."""
    return next((entry for entry in ENTRIES if name in (entry.name, entry.hub_id)), None)


def nearest_name(name: str) -> str | None:
    """Return the registry name spelt most like `name`, None where none comes near."""
    return next(iter(difflib.get_close_matches(name.lower(), names(), n=1)), None)


def recognise(facts: ModelFacts) -> RegistryEntry | None:
    """Return the entry whose architecture is that of `facts`, None for an unknown one."""
    return next((entry for entry in ENTRIES if _shape(entry.facts) == _shape(facts)), None)


def _shape(facts: ModelFacts) -> tuple[object, ...]:
    return (
        facts.num_blocks, facts.num_heads, facts.head_dim, facts.ffn_dim,
        facts.patch_size, facts.vae_scale, facts.num_transformers,
    )  # fmt: skip
