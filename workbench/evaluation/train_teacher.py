"""Train the embedded model as `workbench.models.embedded.train` does, and judge what it samples.

    python -m workbench.evaluation.train_teacher --resume-from-shipped --stage transformer,sample ...

Takes the same arguments. Every `sample` stage adds the adherence of its held-out clips to `result.json`,
beside the steps, samples and minutes that the transformer has had by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from workbench.evaluation.adherence import judge
from workbench.evaluation.suite import ClipVerdicts, summarize
from workbench.models.embedded import train
from workbench.models.embedded.world import Scene, caption


def judge_clips(clips: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Judge clips of scenes' canonical captions.

    Args:
        clips: Bytes [B, F, H, W, 3].
        scenes: What each was asked to show.

    Returns:
        adherence, intervals, undecided, asked and fully_right, as in `AdherenceReport`.
    """
    judged = []
    for clip, scene in zip(clips, scenes, strict=True):
        text = caption(scene)
        verdicts = judge(clip.cpu().numpy(), scene)
        judged.append(ClipVerdicts(text, 0, text, verdicts, len(scene.objects)))
    found = summarize(judged).to_json()
    return {name: found[name] for name in ("adherence", "intervals", "undecided", "asked", "fully_right")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    train.main(arguments, judge=judge_clips)


if __name__ == "__main__":
    main()
