"""Train the embedded model from nothing, stage by stage, on a GPU or a CPU.

    python -m workbench.models.embedded.train --stage all --out runs/embedded --minutes 30

Every stage saves weights, AdamW's moments, running averages and randomness each minute; with `--resume` it
goes on where it stopped. On several GPUs of one machine the transformer's stages run under torchrun. `run` is
the same from Python, where a judge of finished clips can be passed in.
"""

from __future__ import annotations

import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from workbench.models.embedded.architecture import CODEC, TRANSFORMER, default_folder
from workbench.models.embedded.training import codec_stage, text_stage, transformer_stage
from workbench.models.embedded.training.latents import build_latents, open_trained_codec
from workbench.models.embedded.training.loop import Recorder
from workbench.models.embedded.training.measures import measure_codec, reconstruct
from workbench.models.embedded.training.options import STAGES, UNTIMED, Options, parse_options
from workbench.models.embedded.training.parallel import join, leave
from workbench.models.embedded.training.pool import ClipPool, Draw, build_pool
from workbench.models.embedded.training.reading import draw_twin_clips, measure_reading
from workbench.models.embedded.training.sheets import save_sheet
from workbench.models.embedded.training.shipped import start_from_shipped, use_shipped_codec
from workbench.models.embedded.training.state import read_meta
from workbench.models.embedded.training.text_alignment import fit_projection
from workbench.models.embedded.world import Scene

Judge = Callable[[torch.Tensor, Sequence[Scene]], dict[str, Any]]
"""Judges sampled clips, bytes [B, F, H, W, 3], against the scenes that were asked for."""


def run(options: Options, *, judge: Judge | None = None) -> dict[str, Any]:
    """Run the stages of `options` and write `result.json`; returns its content.

    Args:
        options: What to train.
        judge: Judges sampled held-out clips after the transformer's stages.

    Raises:
        ValueError: on an unknown stage, or when the transformer is to be trained without a codec.
    """
    unknown = [stage for stage in options.budgets if stage not in STAGES]
    if unknown:
        raise ValueError(f"Unknown stage '{unknown[0]}'; expected one of {', '.join(STAGES)}.")
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    processes = join()
    alone = [name for name in options.budgets if name not in (*transformer_stage.STAGES, *UNTIMED)]
    if processes.count > 1 and alone:
        raise ValueError(f"Several processes train the transformer only; run '{alone[0]}' in one, before it.")
    recorder = Recorder(
        options.out,
        deadline=None if options.deadline is None else started + options.deadline,
        compact=options.compact,
        log_every=options.log_every,
        processes=processes,
    )
    if options.device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    result = _read_result(options.out) | {"hardware": hardware(options.device), "seed": options.seed}
    held_out = build_pool(
        options.held_out,
        seed=options.seed + 7,
        draw=Draw(split="held-out"),
        device=options.device,
        workers=1,
    )
    recorder.write(event="start", device=options.device, seconds=time.monotonic() - started)
    if options.shipped is not None and processes.first:
        use_shipped_codec(options.out, options.shipped)
    processes.agree([0.0])
    if "text" in options.budgets:
        reader = text_stage.open_reader(
            options.out, device=options.device, seed=options.seed, resume=options.resume
        )
        text_stage.train_text_stage(reader, budget=options.budgets["text"], recorder=recorder)
        with reader.averaged():
            result["text"] = text_stage.measure_reader(reader.module, device=options.device)
    if any(stage in codec_stage.STAGES for stage in options.budgets):
        _train_codec(options, recorder, held_out, result)
    if any(stage in transformer_stage.STAGES for stage in options.budgets):
        _train_transformer(options, recorder, result)
    if not processes.first:
        leave()
        return {}
    if "sample" in options.budgets:
        _sample(options, held_out, result, judge)
    if "export" in options.budgets:
        from workbench.models.embedded.training.export import export

        result["export"] = export(options.out, options.target or default_folder())
    result["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    (options.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    recorder.write(event="end", seconds=time.monotonic() - started)
    leave()
    return result


def _train_codec(options: Options, recorder: Recorder, held_out: ClipPool, result: dict[str, Any]) -> None:
    moment = time.monotonic()
    pool = build_pool(
        options.clips,
        seed=options.seed,
        draw=Draw(orbit_share=options.orbit_share),
        device=options.device,
        workers=options.workers,
    )
    recorder.write(event="rendered", clips=len(pool), seconds=time.monotonic() - moment)
    part = codec_stage.open_codec(
        options.out, device=options.device, seed=options.seed, resume=options.resume
    )
    form: codec_stage.ConvolutionForm = "conv3d"
    if options.device == "cuda":
        form, times = codec_stage.fastest_form(
            part, pool, batch=codec_stage.STAGES["vae-finish"].batch, dtype=torch.bfloat16
        )
        recorder.write(event="convolution form", form=form, milliseconds=times)
    for name in codec_stage.STAGES:
        if name in options.budgets and not recorder.out_of_time():
            codec_stage.train_codec_stage(
                part,
                name,
                pool=pool,
                held_out=held_out,
                budget=options.budgets[name],
                recorder=recorder,
                form=form,
                batch=options.batch,
            )
    codec = codec_stage.WholeClip(part.module)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    with part.averaged():
        measures = measure_codec(codec, held_out, dtype=dtype).as_dict()
        shown = held_out.frames[: min(12, len(held_out))]
        rebuilt = reconstruct(codec, shown, dtype=dtype)
    pairs = [clip for pair in zip(shown, rebuilt, strict=True) for clip in pair]
    save_sheet(options.out / "codec.png", pairs)
    progress = part.progress
    result["codec"] = {
        "held_out": measures,
        "steps": progress.steps,
        "samples": progress.samples,
        "minutes": round(progress.seconds / 60, 2),
        "architecture": CODEC,
    }


def _train_transformer(options: Options, recorder: Recorder, result: dict[str, Any]) -> None:
    moment = time.monotonic()
    if options.compile_cache is not None and options.compile_cache.is_file():
        torch.compiler.load_cache_artifacts(options.compile_cache.read_bytes())
    part = transformer_stage.open_denoiser(
        options.out,
        device=options.device,
        seed=options.seed,
        resume=options.resume,
        orthogonal=options.optimizer == "muon",
    )
    if options.shipped is not None and not part.progress.steps:
        start_from_shipped(part, options.shipped)
        recorder.write(event="started from the shipped weights")
    old_encoder = copy.deepcopy(part.module.text_encoder)
    if transformer_stage.take_over_text_encoder(part, options.out):
        unexplained = (
            None if options.shipped is None else fit_projection(part, old_encoder, steps=options.fit_steps)
        )
        recorder.write(event="text encoder taken over", projection_unexplained=unexplained)
    processes = recorder.processes
    if not processes.first:
        part.generator.manual_seed(processes.seed(part.seed) + part.progress.steps)
    latents = build_latents(
        options.out,
        options.latents,
        seed=processes.seed(options.seed),
        device=options.device,
        workers=options.workers,
        scale=transformer_stage.latent_scale(part),
        orbit_share=options.orbit_share,
    )
    twins = draw_twin_clips(
        open_trained_codec(options.out, device=options.device),
        (latents.mean, latents.std),
        count=options.held_out,
        seed=options.seed + 7,
        device=options.device,
    )
    recorder.write(event="latents", clips=len(latents), seconds=time.monotonic() - moment)
    for name in transformer_stage.STAGES:
        if name in options.budgets and not recorder.out_of_time():
            transformer_stage.train_transformer_stage(
                part,
                name,
                pool=latents,
                budget=options.budgets[name],
                recorder=recorder,
                compiled=options.compiled,
                batch=options.batch,
                twins=twins,
            )
    made = len(latents)
    if not processes.first:
        latents.close()
        return
    if options.compiled and options.compile_cache is not None:
        artifacts = torch.compiler.save_cache_artifacts()
        if artifacts is not None:
            options.compile_cache.write_bytes(artifacts[0])
    with part.averaged():
        reading = measure_reading(part.module, twins)
    latents.close()
    progress = part.progress
    result["transformer"] = {
        "steps": progress.steps,
        "samples": progress.samples,
        "minutes": round(progress.seconds / 60, 2),
        "clips_in_pool": made * processes.count,
        "reading": reading,
        "architecture": TRANSFORMER,
    }


def _sample(options: Options, held_out: ClipPool, result: dict[str, Any], judge: Judge | None) -> None:
    """Sample every held-out prompt once; keep latents, a contact sheet and, with a judge, its verdicts."""
    codec = open_trained_codec(options.out, device=options.device)
    part = transformer_stage.open_denoiser(
        options.out, device=options.device, seed=options.seed, averaged_only=True
    )
    scale = transformer_stage.latent_scale(part)
    if scale is None:
        raise ValueError(f"There is no trained transformer in {options.out}.")
    latents = transformer_stage.sample_latents(part, held_out.tokens[:, 0], seed=options.seed)
    clips = transformer_stage.decode_latents(codec, latents, scale)
    save_file({"latents": latents.to(torch.bfloat16).cpu().contiguous()}, options.out / "samples.safetensors")
    save_sheet(options.out / "samples.png", list(clips[:48]), columns=3)
    result["sampled"] = held_out.captions
    if judge is not None:
        progress = read_meta(options.out / transformer_stage.FOLDER)["progress"]
        had = {"steps": progress["steps"], "samples": progress["samples"]}
        had["minutes"] = round(progress["seconds"] / 60, 2)
        result["adherence"] = judge(clips, held_out.scenes)
        result.setdefault("adherence_over_time", []).append({**had, **result["adherence"]})


def hardware(device: str) -> dict[str, Any]:
    """Return what this ran on and with."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _read_result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Turn command-line arguments into options."""
    return parse_options(arguments, description=__doc__)


def main(arguments: Sequence[str] | None = None, *, judge: Judge | None = None) -> None:
    """Entry point of the command; `judge` as in `run`."""
    result = run(parse(arguments), judge=judge)
    if result:
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
