"""Watches a sampling run and reduces every self-attention to numbers at once; nothing of size N x N is kept.

Knows the observer's protocol and tensors; knows nothing of files.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention_stats import DISTANCE_EDGES, attention_stats
from workbench.capture.config import CapturePlan
from workbench.errors import WorkbenchError
from workbench.models import ModelFacts
from workbench.operators import AttentionContext

METRICS = ("entropy", "normalized_entropy", "same_frame", "same_place", "near", "first_frame")


class Recorder:
    """The observer of a capture; call it for every self-attention of the run.

    Attributes:
        tensors: name to [steps, branches, blocks, heads, ...]; `rows` are scaled by the number of tokens, so
            that half precision keeps small masses.
    """

    def __init__(self, plan: CapturePlan, facts: ModelFacts) -> None:
        self.plan = plan
        self.timesteps: dict[int, float] = {}
        self._missing = len(plan.steps) * len(plan.branches) * facts.num_blocks
        place = (len(plan.steps), len(plan.branches), facts.num_blocks, facts.num_heads)
        tokens, side = plan.grid.num_tokens, plan.map_size
        self.tensors = {name: torch.zeros(place) for name in METRICS}
        self.tensors["by_frame_distance"] = torch.zeros(*place, plan.grid.frames)
        self.tensors["by_distance"] = torch.zeros(*place, len(DISTANCE_EDGES))
        self.tensors["pooled"] = torch.zeros(*place, side, side, dtype=torch.float16)
        if plan.row_queries:
            shape = (*place, len(plan.row_queries), tokens)
            self.tensors["rows"] = torch.zeros(shape, dtype=torch.float16)
        if plan.kept_step is not None:
            kept = (facts.num_blocks, tokens, facts.num_heads, facts.head_dim)
            self.tensors["kept_query"] = torch.zeros(kept, dtype=torch.float16)
            self.tensors["kept_key"] = torch.zeros(kept, dtype=torch.float16)

    def __call__(
        self, block: int, query: Tensor, key: Tensor, value: Tensor, context: AttentionContext
    ) -> None:
        """Reduce one self-attention, [B, N, H, D] each; the first of a batch is taken."""
        plan = self.plan
        if context.step not in plan.steps or context.branch not in plan.branches:
            return
        query, key = query[:1], key[:1]
        place = (plan.steps.index(context.step), plan.branches.index(context.branch), block)
        stats = attention_stats(
            query,
            key,
            grid=context.grid,
            query_stride=plan.query_stride,
            row_queries=plan.row_queries,
            map_size=plan.map_size,
        )
        for name in (*METRICS, "by_frame_distance", "by_distance", "pooled"):
            self.tensors[name][place] = getattr(stats, name)[0].to("cpu", self.tensors[name].dtype)
        if plan.row_queries:
            self.tensors["rows"][place] = (stats.rows[0] * plan.grid.num_tokens).half().cpu()
        if context.step == plan.kept_step and context.branch == "cond":
            self.tensors["kept_query"][block] = query[0].half().cpu()
            self.tensors["kept_key"][block] = key[0].half().cpu()
        if context.timestep is not None:
            self.timesteps[context.step] = context.timestep
        self._missing -= 1

    def check_complete(self) -> None:
        """Refuse to go on where a chosen step, branch or block was never seen.

        Raises:
            WorkbenchError: names how many are missing.
        """
        if self._missing:
            raise WorkbenchError(
                f"The sampling run showed {self._missing} fewer self-attentions than were to be captured."
            )
