"""The model card of a bundle: what was converted, what was measured, what was not; all from records."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import groupby
from typing import Any

from workbench.models import ModelFacts
from workbench.operators import label
from workbench.planning import Bank, Plan, cost
from workbench.surgery import StudentManifest

USE = """```python
import sys, torch
from diffusers import WanPipeline

sys.path.insert(0, "PATH/TO/THIS/FOLDER")
from linearized import linearize, restore

pipeline = WanPipeline.from_pretrained("{base}", torch_dtype=torch.bfloat16)
linearize(pipeline)  # restore(pipeline) takes it off again
```"""


def card(
    student: StudentManifest,
    plan: Plan,
    *,
    bank: Bank | None,
    record: Mapping[str, Any] | None,
    merged: bool,
) -> str:
    """Return the text of `README.md`.

    Args:
        student: as the bundle holds it.
        plan: of the student.
        bank: that its cells were distilled in; None where it is not at hand.
        record: what finetuning measured; None for a student that was not finetuned.
        merged: whether the folder is a whole diffusers model.
    """
    facts = student.teacher
    elsewhere = facts.source if "/" in facts.source else f"PATH/TO/{facts.name}"
    base = "PATH/TO/THIS/FOLDER" if merged else elsewhere
    name = _text(student.name or student.plan)
    parts = [
        _header(facts),
        f"# {name}",
        f"A linearized student of {_text(facts.name)} (plan {plan.short_name}): {len(plan.converted)} of "
        f"{facts.num_blocks} self-attentions use another operator than softmax (Attention Surgery, "
        "arXiv 2509.24899).",
        "## Use",
        USE.format(base=base),
        _needs(student, merged=merged),
        "## Plan",
        _plan_table(plan),
        _schedule(plan),
        "## Measured",
        _cells(plan, bank),
        _finetuning(record),
        "## Computed, not measured",
        _cost(plan, facts),
        "Speed, memory and clips of this student are not part of this card: nothing here was timed.",
        "## Where it comes from",
        _provenance(student),
        "The weights that are not in this folder, and the licence of the model, are those of the teacher. "
        "`linearized/` is Apache-2.0 and generated; `manifest.json` holds the sha256 of every file.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: ModelFacts) -> str:
    base = f"base_model: {facts.source}\n" if "/" in facts.source else ""
    return (
        f"---\n{base}library_name: diffusers\npipeline_tag: text-to-video\n"
        "tags: [linear-attention, attention-surgery]\n---"
    )


def _needs(student: StudentManifest, *, merged: bool) -> str:
    if merged:
        return "This folder is a whole diffusers model; what was finetuned is merged into its transformer."
    if student.lora_sha256:
        return "It has a LoRA, which `linearize` puts on (peft is needed)."
    if student.weights_sha256:
        return "It was finetuned as a whole: `linearize` replaces the transformer's weights for good."
    return "Only feature maps were trained; all other weights are the teacher's."


def _plan_table(plan: Plan) -> str:
    rows = ["| blocks | operator |", "|---|---|"]
    numbered = enumerate(label(spec) for spec in plan.operators)
    for name, group in groupby(numbered, key=lambda pair: pair[1]):
        blocks = [block for block, _ in group]
        shown = f"{blocks[0]}" if len(blocks) == 1 else f"{blocks[0]} to {blocks[-1]}"
        rows.append(f"| {shown} | {name} |")
    return "\n".join(rows)


def _schedule(plan: Plan) -> str:
    first, every = plan.schedule.dense_first, plan.schedule.dense_every
    words = []
    if first:
        words.append("the first step" if first == 1 else f"the first {first} steps")
    if every:
        words.append(f"steps 0, {every}, {2 * every} and so on")
    return f"On {' and '.join(words)} all blocks keep softmax." if words else ""


def _cells(plan: Plan, bank: Bank | None) -> str:
    if not plan.converted:
        return "No block was converted."
    if bank is None:
        return "The bank of its cells was not at hand at the export: their errors are not known here."
    rows = [
        "Relative L1 error of each distilled attention on held-out prompts, before any finetuning, with its "
        "95 % interval over prompts:",
        "",
        "| block | operator | error | interval | linear branch off |",
        "|---|---|---|---|---|",
    ]
    for block, spec in plan.converted.items():
        cell = bank.cells[block, label(spec)]
        rows.append(
            f"| {block} | {cell.label} | {cell.error:.3f} | {cell.error_low:.3f} to {cell.error_high:.3f} "
            f"| {cell.error_off:.3f} |"
        )
    return "\n".join(rows)


def _finetuning(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "It was not finetuned."
    before, after = record["velocity_error"]["before"], record["velocity_error"]["after"]
    text = (
        f"Finetuned for {len(record['losses']):,} updates. Relative error of the velocity on "
        f"{len(record['held_out_prompts'])} held-out prompts ({after['states']} states): "
        f"{before['error']:.4f} before, {after['error']:.4f} after "
        f"({after['low']:.4f} to {after['high']:.4f})."
    )
    if "flow_loss" in record:
        flow = record["flow_loss"]
        text += f" Flow loss on held-out clips: {flow['before']:.4f} before, {flow['after']:.4f} after."
    return text


def _cost(plan: Plan, facts: ModelFacts) -> str:
    found = cost(plan, facts)
    return (
        f"Operations of one forward pass at {found.tokens:,} tokens, from the formulas of the cost model: "
        f"attention {found.attention_ratio:.3f} of dense, all blocks {found.dit_ratio:.3f} of dense "
        f"({found.dit_tflop:.4g} of {found.dense_tflop:.4g} TFLOP)."
    )


def _provenance(student: StudentManifest) -> str:
    rows = ["| | |", "|---|---|", f"| teacher | {_text(student.teacher.name)} |"]
    if student.teacher.fingerprint:
        rows.append(f"| fingerprint of its transformer | {student.teacher.fingerprint} |")
    rows += [
        f"| {_text(name)} | {_text(value)} |"
        for name, value in student.provenance.items()
        if value is not None
    ]
    return "\n".join(rows)


def _text(value: object) -> str:
    """Return text that markdown shows as it is: no markup, no cell borders, no new lines."""
    plain = " ".join(str(value).split())
    for mark in "\\`*_[]|#":
        plain = plain.replace(mark, f"\\{mark}")
    return escape(plain)
