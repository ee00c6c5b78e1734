"""`workbench evaluate`, `evaluate-suite`, `export-vbench`, `vocabulary`: judge clips, and what to ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.options import (
    DetachOption,
    FramesOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    ModelOption,
    StepsOption,
    WidthOption,
    WorkspaceOption,
    model_name,
    numbers,
    queue_step,
    show,
    stated,
)
from workbench.errors import InputError


def evaluate(
    model: ModelOption = "embedded",
    suite: Annotated[
        str, typer.Option("--suite", help="held-out: combinations never trained on.")
    ] = "held-out",
    num: Annotated[int, typer.Option("--num", help="Clips to generate and judge.")] = 50,
    suite_seed: Annotated[int, typer.Option("--suite-seed", help="Which prompts are drawn.")] = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    frames: FramesOption = None,
    *,
    swap_prompts: Annotated[
        bool,
        typer.Option("--swap-prompts", help="Judge each clip by another's prompt; scores must collapse."),
    ] = False,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge from pixels how well a model's clips obey their prompts."""
    settings = stated(
        model=model_name(model),
        suite=suite,
        num=num,
        suite_seed=suite_seed,
        steps=steps,
        guidance=guidance,
        frames=frames,
        swap_prompts=swap_prompts,
    )
    title = f"{num} {suite} prompts"
    queue_step("evaluate", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)


def evaluate_suite(
    model: Annotated[
        list[str],
        typer.Option("--model", help="Repeat it; the first is the reference, as a rule the teacher."),
    ],
    prompts: Annotated[
        str, typer.Option("--prompts", help="held-out, own-held-out, own-train, or a text file, one a line.")
    ] = "held-out",
    num: Annotated[int | None, typer.Option("--num", help="How many of the prompts (default: 8).")] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="For example 0,1,2.")] = "0",
    floor_clips: Annotated[
        int | None, typer.Option("--floor-clips", help="Clips for each noise floor (default: 4; 0: none).")
    ] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    frames: FramesOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    *,
    detach: DetachOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set models beside the first one on the same prompts and seeds: adherence, fidelity, motion."""
    file = Path(prompts).expanduser()
    texts = _lines(file) if file.is_file() else None
    settings = stated(
        models=[model_name(name) for name in model],
        prompts=prompts if texts is None else "given",
        texts=texts,
        num=num,
        seeds=numbers(seeds, what="--seeds"),
        floor_clips=floor_clips,
        steps=steps,
        guidance=guidance,
        frames=frames,
        height=height,
        width=width,
    )
    title = f"{len(model)} models, {prompts if texts is None else file.name}"
    queue_step("evaluate-suite", settings, title=title, workspace=workspace, as_json=as_json, detach=detach)


def export_vbench(
    suite: Annotated[Path, typer.Argument(help="Folder of a finished evaluate-suite.")],
    out: Annotated[Path, typer.Option("--out", help="A new or empty folder.")],
    model: Annotated[
        str, typer.Option("--model", help="Which of the suite's models (default: the first).")
    ] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Lay out a suite's clips as VBench reads them, with names, seeds and settings written down."""
    from workbench.evaluation import export_suite

    known = model_name(model) if model else ""
    protocol = export_suite(suite, out, model=known)
    show({"folder": str(out), "protocol": str(protocol)}, as_json=as_json, prose=str(protocol))


def vocabulary(*, as_json: JsonOption = False) -> None:
    """Show what the embedded model can be asked for: attributes, phrases, synonyms, example prompts."""
    from workbench.models.embedded.world import prompt_vocabulary

    document = prompt_vocabulary()
    lines = [
        f"{name}: {', '.join(option['phrase'] for option in options)}"
        for name, options in document["attributes"].items()
    ]
    prose = "\n".join([*lines, "", *document["examples"]])
    show(document, as_json=as_json, prose=prose)


def _lines(file: Path) -> list[str]:
    try:
        texts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (UnicodeDecodeError, OSError):
        raise InputError(f"{file.name} is not a readable UTF-8 text file; write one prompt a line.") from None
    if not texts:
        raise InputError(f"{file.name} holds no prompt; write one a line.")
    return texts
