"""Run bundles as a stranger would: stock diffusers, no workbench, no kernels. Started as its own process."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main(settings: dict[str, Any]) -> None:
    """Run every case; the clips of each go to `<out>/<case>.safetensors`."""
    checkout = str(Path(__file__).resolve().parents[2])
    sys.path = [place for place in sys.path if place and place not in (checkout, f"{checkout}/tests/export")]
    sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    assert importlib.util.find_spec("workbench") is None
    assert importlib.util.find_spec("kernels") is None

    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    for name, case in settings["cases"].items():
        sys.path.insert(0, case["bundle"])
        clips = run(case, device=settings["device"], dtype=settings["dtype"], impls=settings["impls"])
        save_file(clips, Path(settings["out"], f"{name}.safetensors"))
        sys.path.remove(case["bundle"])
        for module in [module for module in sys.modules if module.partition(".")[0] == "linearized"]:
            del sys.modules[module]
    ours = [name for name in sys.modules if name.partition(".")[0] in ("workbench", "kernels")]
    assert ours == [], ours


def run(case: dict[str, str], *, device: str, dtype: str, impls: list[str]) -> dict[str, Any]:
    """Make a clip with the teacher, with the student by each implementation, and with it taken off."""
    import torch
    from diffusers import WanPipeline
    from linearized import linearize, restore

    pipeline: Any = WanPipeline.from_pretrained(case["teacher"])
    pipeline.transformer.to(getattr(torch, dtype))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    found = {"teacher": clip(pipeline)}
    for impl in impls:
        blocks = linearize(pipeline, impl=impl)
        assert blocks, "no block was converted"
        found[impl] = clip(pipeline)
    restore(pipeline)
    found["restored"] = clip(pipeline)
    return found


def clip(pipeline: Any) -> Any:
    """Make the latents of a small clip."""
    import torch

    latents = pipeline(
        prompt="a red ball",
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        max_sequence_length=16,
    ).frames
    return latents.float().cpu().contiguous()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
