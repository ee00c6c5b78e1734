"""Capturing: the numbers are those of dense softmax, the run is not disturbed, bad input is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from workbench import capture as capturing
from workbench.capture import CaptureConfig
from workbench.errors import InputError
from workbench.models import LoadedModel, model_facts
from workbench.operators import observe
from workbench.sampling import GenerateConfig, sample
from workbench.types import SilentReporter
from workbench.video import read_mp4
from workbench.workspace import Workspace

PROMPT = "a red ball"


def capture(model: LoadedModel, workspace: Workspace, **settings: object) -> capturing.Capture:
    config = CaptureConfig(prompt=PROMPT, seed=3, **settings)  # type: ignore[arg-type]
    return capturing.load(capturing.run(model, config, workspace, reporter=SilentReporter()))


def dense_attention(model: LoadedModel, *, step: int, branch: str) -> list[torch.Tensor]:
    """Return the softmax attention of every block, [H, N, N], from the same run."""
    found = []

    def look(block, query, key, value, context):  # type: ignore[no-untyped-def]
        if context.step == step and context.branch == branch:
            scores = torch.einsum("nhd,mhd->hnm", query[0].double(), key[0].double())
            found.append(torch.softmax(scores / query.shape[-1] ** 0.5, dim=-1))

    with observe(model, look):
        sample(model, GenerateConfig(prompt=PROMPT, seed=3))
    return found


def test_numbers_are_those_of_dense_softmax(micro_model: LoadedModel, workspace: Workspace) -> None:
    found = capture(micro_model, workspace, row_queries=(5, 30), map_size=9)
    frames, height, width = found.grid
    tokens = np.arange(frames * height * width)
    frame, place = tokens // (height * width), tokens % (height * width)
    for block, attention in enumerate(dense_attention(micro_model, step=1, branch="uncond")):
        dense = attention.numpy()
        expected = {
            "entropy": -(dense * np.log(dense)).sum(-1).mean(-1),
            "same_frame": (dense * (frame[:, None] == frame)).sum(-1).mean(-1),
            "first_frame": (dense * (frame == 0)).sum(-1).mean(-1),
            "same_place": (dense * ((place[:, None] == place) & (frame[:, None] != frame))).sum(-1).mean(-1),
        }
        for name, value in expected.items():
            measured = found.metric(name, step=1, branch="uncond")[block]
            np.testing.assert_allclose(measured, value, rtol=2e-4, err_msg=name)
        pooled = dense.reshape(-1, 9, len(tokens) // 9, 9, len(tokens) // 9).sum(-1).mean(2)
        measured = found.metric("pooled", step=1, branch="uncond")[block]
        np.testing.assert_allclose(measured, pooled, atol=2e-4)
        row = found.row(block, 1, 30, step=1, branch="uncond")
        np.testing.assert_allclose(row.ravel(), dense[1, 30], rtol=2e-3)


def test_any_token_has_a_row_at_the_kept_step(micro_model: LoadedModel, workspace: Workspace) -> None:
    found = capture(micro_model, workspace)
    dense = dense_attention(micro_model, step=found.default_step, branch="cond")
    for block, head, token in ((0, 0, 0), (2, 1, 71)):
        row = found.row(block, head, token)
        assert row.shape == tuple(found.grid)
        np.testing.assert_allclose(row.ravel(), dense[block][head, token].numpy(), rtol=1e-2)


def test_the_clip_is_that_of_an_unwatched_run(micro_model: LoadedModel, workspace: Workspace) -> None:
    found = capture(micro_model, workspace)
    plain = sample(micro_model, GenerateConfig(prompt=PROMPT, seed=3))
    from workbench.jobs.tensors import load_tensors

    assert torch.equal(load_tensors(found.folder / "latents.safetensors")["latents"], plain.latents)
    assert len(read_mp4(found.clip)) == len(plain.frames)
    assert all(picture.is_file() for picture in found.frames)


def test_every_fourth_query_is_close_to_all(micro_model: LoadedModel, workspace: Workspace) -> None:
    every = capture(micro_model, workspace, any_query=False)
    fourth = capture(micro_model, workspace, query_stride=5, any_query=False)
    np.testing.assert_allclose(fourth.metric("entropy"), every.metric("entropy"), rtol=0.05)
    assert fourth.manifest.kept_step is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"at_steps": (0, 2)}, "Step 2"),
        ({"row_queries": (72,)}, "token 72"),
        ({"query_stride": 100}, "100"),
        ({"height": 40}, "40"),
        ({"prompt": " "}, "prompt"),
        (
            {
                "row_queries": tuple(range(72)),
                "max_megabytes": 1,
                "steps": 400,
                "at_steps": tuple(range(400)),
            },
            "MB",
        ),
    ],
)
def test_bad_input_is_refused_before_the_run(
    micro_model: LoadedModel, workspace: Workspace, settings: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        config = CaptureConfig(**{"prompt": PROMPT, **settings})  # type: ignore[arg-type]
        capturing.run(micro_model, config, workspace, reporter=SilentReporter())
    assert not list(workspace.folder("captures").iterdir())


def test_a_damaged_capture_is_refused(micro_model: LoadedModel, workspace: Workspace, tmp_path: Path) -> None:
    found = capture(micro_model, workspace)
    with pytest.raises(InputError, match="not a capture"):
        capturing.load(tmp_path)
    with pytest.raises(InputError, match="token 7 was not kept"):
        found.row(0, 0, 7, step=0)
    statistics = found.folder / "statistics.safetensors"
    statistics.write_bytes(statistics.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"statistics\.safetensors"):
        capturing.load(found.folder)


def test_the_maps_of_a_large_model_fit_by_default() -> None:
    facts = model_facts("wan2.1-t2v-14b")
    plan = capturing.check(CaptureConfig(prompt="a cat"), facts)
    assert plan.kept_step is None and plan.notes and plan.map_size == 32
    with pytest.raises(InputError, match="max_megabytes"):
        capturing.check(CaptureConfig(prompt="a cat", max_megabytes=20), facts)
