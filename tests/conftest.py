"""Fixtures for the whole suite: one thread, a workspace of one's own, a Wan model that loads in a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from workbench.models import LoadedModel, ModelFacts, load_model, model_facts
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)

MICRO_DEFAULTS = {
    "text_tokens": 16,
    "default_size": [9, 48, 32],
    "default_steps": 2,
    "default_guidance": 3.0,
    "fps": 8,
}


def build_micro_pipeline(*, num_blocks: int = 3, seed: int = 0):  # type: ignore[no-untyped-def]
    """Build a Wan pipeline of a few thousand parameters: 3 blocks, 2 heads of 12, 72 tokens at 9x48x32."""
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    from workbench.models.embedded.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            patch_size=(1, 1, 1),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=16,
            ffn_dim=32,
            num_layers=num_blocks,
            rope_max_seq_len=64,
        )
        codec = AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        )
        encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=len(tokenizer),
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                pad_token_id=0,
            )
        )
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.eval(),
        vae=codec.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer.eval(),
    )


def save_micro_model(folder: Path, *, num_blocks: int = 3, seed: int = 0) -> Path:
    """Write such a pipeline as a diffusers folder with its own sampling defaults."""
    build_micro_pipeline(num_blocks=num_blocks, seed=seed).save_pretrained(folder)
    (folder / "workbench.json").write_text(json.dumps(MICRO_DEFAULTS), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def micro_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of a tiny Wan with random weights: 3 blocks, 2 heads of 12, 72 tokens. Read-only."""
    return save_micro_model(tmp_path_factory.mktemp("models") / "micro")


@pytest.fixture(scope="session")
def micro_facts(micro_model_folder: Path) -> ModelFacts:
    return model_facts(str(micro_model_folder))


@pytest.fixture
def micro_model(micro_model_folder: Path) -> LoadedModel:
    """The tiny Wan, freshly loaded."""
    return load_model(str(micro_model_folder), device="cpu")


@pytest.fixture(scope="session")
def untrained_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture of the embedded model with random weights: 10 blocks, 6 heads of 32, 1,280 tokens."""
    from workbench.models.embedded import build_untrained

    return build_untrained(tmp_path_factory.mktemp("models") / "untrained")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Call `workbench WORDS... --workspace W` in this process; returns exit code, stdout, stderr."""
    from workbench import cli

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", *words, "--workspace", str(tmp_path / "workspace")])
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def own_attention_backend() -> Iterator[None]:
    """Undo what `set_attention_backend` leaves behind: it sets the backend of the whole process too."""
    name = "diffusers.models.attention_dispatch"
    before = sys.modules[name]._AttentionBackendRegistry._active_backend if name in sys.modules else None
    yield
    if name in sys.modules:
        registry = sys.modules[name]._AttentionBackendRegistry
        registry.set_active_backend(before or sys.modules[name].AttentionBackendName.NATIVE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium, one for all tests of a process: playwright can only be started once in it."""
    from playwright.sync_api import sync_playwright

    from tests.browser import FLAGS, find_browser

    path = find_browser()
    assert path, "No Chromium was found; run `make browser` or set WORKBENCH_CHROMIUM."
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()
