"""Run a bundle as a stranger would: stock diffusers, no workbench, no kernels. Started as its own process."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path


def main(settings: dict[str, str]) -> None:
    checkout = str(Path(__file__).resolve().parents[2])
    sys.path = [place for place in sys.path if place and not place.startswith(checkout + "/tests")]
    sys.path = [place for place in sys.path if place != checkout]
    sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    assert importlib.util.find_spec("workbench") is None
    assert importlib.util.find_spec("kernels") is None
    sys.path.insert(0, settings["bundle"])

    import torch
    from diffusers import WanPipeline
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    from linearized import linearize, restore

    pipeline = WanPipeline.from_pretrained(settings["teacher"])
    pipeline.set_progress_bar_config(disable=True)

    def clip() -> torch.Tensor:
        return pipeline(
            prompt="a red ball",
            height=48,
            width=32,
            num_frames=9,
            num_inference_steps=3,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            max_sequence_length=16,
        ).frames

    found = {"teacher": clip()}
    for impl in ("auto", "sdpa", "reference"):
        blocks = linearize(pipeline, impl=impl)
        assert blocks, "no block was converted"
        found[impl] = clip()
    restore(pipeline)
    found["restored"] = clip()
    save_file({name: latents.contiguous() for name, latents in found.items()}, settings["out"])
    ours = [name for name in sys.modules if name.partition(".")[0] in ("workbench", "kernels", "pydantic")]
    Path(settings["out"]).with_suffix(".json").write_text(json.dumps(ours))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
