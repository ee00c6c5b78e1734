"""Prove the judge on clips whose truth is known, and write what it scores.

    python -m workbench.evaluation.validate_judge [--num 300] [--seed 1000] [--out docs/results/judge.json]

Held-out scenes are rendered and judged as they are, softened, badly softened, and by the wrong caption
(where the score must collapse); noise and flat grey must leave everything undecided.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy import ndimage

from workbench.evaluation.adherence import judge
from workbench.evaluation.suite import Prompt, evaluate_adherence, held_out_suite
from workbench.models.embedded.world import render

log = logging.getLogger(__name__)
COMMAND = "python -m workbench.evaluation.validate_judge"
DAMAGES = {"truth": (0.0, 0.0), "mild blur and noise": (1.0, 5.0), "strong blur and noise": (1.8, 8.0)}
"""Standard deviations of the blur in pixels and of the noise in levels of 255."""


def damaged(clip: np.ndarray, blur: float, noise: float, seed: int) -> np.ndarray:
    """Return a clip uint8 [F, H, W, 3] blurred frame by frame and made noisy."""
    if blur == noise == 0:
        return clip
    rough = ndimage.gaussian_filter(clip.astype(np.float32), (0, blur, blur, 0))
    rough += noise * np.random.default_rng(seed).standard_normal(rough.shape, dtype=np.float32)
    return rough.clip(0, 255).astype(np.uint8)


def validate(num: int, seed: int) -> dict[str, Any]:
    """Score the judge on `num` held-out scenes; fractions by kind of clip and attribute."""
    suite = held_out_suite(num, seed=seed)

    def rendered(blur: float, noise: float) -> Callable[[Prompt], np.ndarray]:
        return lambda asked: damaged(render([asked.scene])[0].numpy(), blur, noise, asked.seed)

    scores: dict[str, Any] = {}
    for name, (blur, noise) in DAMAGES.items():
        scores[name] = _scores(evaluate_adherence(rendered(blur, noise), suite).to_json())
        log.info("%s: %s", name, scores[name]["adherence"])
    swapped = evaluate_adherence(rendered(0, 0), suite, swap_prompts=True)
    scores["another's caption"] = _scores(swapped.to_json())
    rng = np.random.default_rng(seed)
    scores["garbage"] = {
        "noise": _undecided(rng.integers(0, 256, (17, 128, 128, 3), dtype=np.uint8), suite[0]),
        "flat grey": _undecided(np.full((17, 128, 128, 3), 128, np.uint8), suite[0]),
    }
    return scores


def _scores(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("adherence", "intervals", "undecided", "asked", "fully_right")}


def _undecided(clip: np.ndarray, asked: Prompt) -> float:
    """Share of undecided verdicts."""
    verdicts = judge(clip, asked.scene).asked().values()
    return sum(verdict == "undecided" for verdict in verdicts) / len(verdicts)


def main() -> None:
    """Validate the judge and write the figures."""
    parser = argparse.ArgumentParser(description="Prove the adherence judge on rendered truth.")
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/judge.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    start = time.perf_counter()
    scores = validate(arguments.num, arguments.seed)
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"{COMMAND} --num {arguments.num} --seed {arguments.seed}",
        "hardware": {"machine": platform.machine(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "clips": arguments.num,
        "seconds": round(time.perf_counter() - start, 1),
        "scores": scores,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    log.info("wrote %s", arguments.out)


if __name__ == "__main__":
    main()
