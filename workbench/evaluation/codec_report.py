"""How much of a scene survives the embedded model's codec: rendered clips, judged before and after it.

    python -m workbench.evaluation.codec_report [--num 200] [--out docs/results/codec.json]

The held-out scenes of training's measures are rendered, encoded and decoded. What the judge no longer
recognises afterwards no transformer can show.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.evaluation.adherence import Verdicts, judge
from workbench.evaluation.suite import ClipVerdicts, summarize
from workbench.models import load_model
from workbench.models.embedded.training.pool import Draw, build_pool
from workbench.models.embedded.world import Scene, caption

log = logging.getLogger(__name__)
COMMAND = "python -m workbench.evaluation.codec_report"


@torch.no_grad()
def through_codec(codec: Any, clip: Tensor) -> Tensor:
    """Return a clip, uint8 [F, H, W, 3], encoded and decoded as a pipeline decodes."""
    pixels = clip.permute(3, 0, 1, 2).unsqueeze(0).float() / 127.5 - 1
    decoded = codec.decode(codec.encode(pixels).latent_dist.mode(), return_dict=False)[0]
    back: Tensor = decoded[0].permute(1, 2, 3, 0).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return back


def compare(num: int, seed: int) -> dict[str, Any]:
    """Judge `num` held-out clips as they are and through the codec.

    Returns:
        for "truth" and "codec" adherence, intervals and shares fully right; counts of fully right clips with
        two objects by the relation between them.
    """
    codec: Any = load_model("embedded", device="cpu").pipeline.vae
    pool = build_pool(num, seed=seed, draw=Draw(split="held-out"), device="cpu", workers=1)
    judged: dict[str, list[ClipVerdicts]] = {"truth": [], "codec": []}
    pairs: dict[str, Counter[str]] = {}
    for index, (clip, scene) in enumerate(zip(pool.frames, pool.scenes, strict=True)):
        for name, shown in (("truth", clip), ("codec", through_codec(codec, clip))):
            verdicts = judge(shown.numpy(), scene)
            judged[name].append(_of(scene, verdicts))
            if len(scene.objects) == 2:
                counts = pairs.setdefault(str(scene.relation), Counter(asked=0, truth=0, codec=0))
                counts["asked"] += name == "truth"
                counts[name] += _is_right(verdicts)
        if (index + 1) % 20 == 0:
            log.info("%d of %d clips", index + 1, num)
    return {**{name: _scores(clips) for name, clips in judged.items()}, "pairs": pairs}


def _of(scene: Scene, verdicts: Verdicts) -> ClipVerdicts:
    text = caption(scene)
    return ClipVerdicts(text, 0, text, verdicts, len(scene.objects))


def _is_right(verdicts: Verdicts) -> bool:
    return set(verdicts.asked().values()) == {"right"}


def _scores(clips: Sequence[ClipVerdicts]) -> dict[str, Any]:
    found = summarize(list(clips)).to_json()
    return {name: found[name] for name in ("adherence", "intervals", "undecided", "asked", "fully_right")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description="What of a scene survives the embedded model's codec.")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/results/codec.json"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.perf_counter()
    found = compare(options.num, options.seed)
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"{COMMAND} --num {options.num} --seed {options.seed}",
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "clips": options.num,
        "seconds": round(time.perf_counter() - start, 1),
        **found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    log.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
