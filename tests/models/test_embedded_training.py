"""Training of the embedded model: stages run, stop, go on to the bit, and end in a folder that loads."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from workbench.models.embedded import train, world
from workbench.models.embedded.tokenizer import TEXT_LENGTH
from workbench.models.embedded.training import codec_stage, text_stage, transformer_stage
from workbench.models.embedded.training.latents import LatentPool, latent_mask
from workbench.models.embedded.training.loop import Budget, Recorder
from workbench.models.embedded.training.measures import compare_clips
from workbench.models.embedded.training.pool import ClipPool, Draw, box_mask, build_pool, draw_scenes
from workbench.models.embedded.training.state import Part, save_average
from workbench.models.embedded.training.text_alignment import fit_projection
from workbench.orthogonal import orthogonalised


@dataclass
class Interrupted(Recorder):
    """A recorder whose time is up after a number of steps."""

    steps: int = 1

    def out_of_time(self) -> bool:
        self.steps -= 1
        return self.steps < 0


def _random_clips(count: int = 3, size: int = 32) -> ClipPool:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (count, 5, size, size, 3), dtype=torch.uint8, generator=generator)
    boxes = torch.zeros(count, 2, 5, 4, dtype=torch.int16)
    boxes[:, 0] = torch.tensor([4, 4, 20, 20])
    tokens = torch.ones(count, 4, TEXT_LENGTH, dtype=torch.long)
    return ClipPool(frames, boxes, tokens, [""] * count, [])


def _codec_run(folder: Path, recorder: Recorder, *, resume: bool) -> Part:
    part = codec_stage.open_codec(folder, device="cpu", seed=0, resume=resume)
    pool = _random_clips()
    codec_stage.train_codec_stage(
        part,
        "vae-clips",
        pool=pool,
        held_out=pool,
        budget=Budget(steps=3),
        recorder=recorder,
        batch=2,
    )
    return part


def _latents() -> LatentPool:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(4, 16, 2, 4, 4, generator=generator).to(torch.bfloat16)
    tokens = torch.zeros(4, 4, TEXT_LENGTH, dtype=torch.long)
    tokens[..., :3] = torch.tensor([9, 12, 1])
    inside = torch.zeros(4, 2, 4, 4, dtype=torch.bool)
    return LatentPool(latents, tokens, inside, torch.zeros(16), torch.ones(16), count=4)


def _transformer_run(folder: Path, recorder: Recorder, *, resume: bool) -> Part:
    part = transformer_stage.open_denoiser(folder, device="cpu", seed=0, resume=resume)
    transformer_stage.train_transformer_stage(
        part, "transformer", pool=_latents(), budget=Budget(steps=3), recorder=recorder, batch=2
    )
    return part


def _text_run(folder: Path, recorder: Recorder, *, resume: bool) -> Part:
    part = text_stage.open_reader(folder, device="cpu", seed=0, resume=resume)
    text_stage.train_text_stage(part, budget=Budget(steps=3), recorder=recorder, batch=4)
    return part


@pytest.mark.parametrize("run", [_codec_run, _transformer_run, _text_run])
def test_a_stage_that_was_stopped_goes_on_to_the_bit(run: Callable[..., Part], tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    straight.mkdir(), stopped.mkdir()
    whole = run(straight, Recorder(straight), resume=False)
    first = run(stopped, Interrupted(stopped, steps=2), resume=False)
    assert first.progress.stage_steps == 2 and not first.progress.done
    second = run(stopped, Recorder(stopped), resume=True)
    assert second.progress.steps == whole.progress.steps == 3
    for ours, theirs in zip(second.parameters, whole.parameters, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(second.average, whole.average, strict=True):
        assert torch.equal(ours, theirs)


def test_a_compact_checkpoint_keeps_weights_to_fp16(tmp_path: Path) -> None:
    part = _codec_run(tmp_path, Recorder(tmp_path, compact=True), resume=False)
    again = codec_stage.open_codec(tmp_path, device="cpu", seed=0, resume=True)
    for ours, theirs in zip(again.parameters, part.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert again.progress.steps == part.progress.steps


def test_sharpening_leaves_the_encoder_alone(tmp_path: Path) -> None:
    part = _codec_run(tmp_path, Recorder(tmp_path), resume=False)
    before = dict(zip(part.named, [value.clone() for value in part.average], strict=True))
    part.progress.enter("vae-sharpen")
    part.freeze(("encoder.", "quant_conv."))
    clip, mask = codec_stage.draw_batch(_random_clips(), frames=5, batch=1, generator=part.generator)
    noise = torch.zeros(1, 2, 4, 4, 16)
    loss, _ = codec_stage.codec_loss(
        codec_stage.WholeClip(part.module), clip, mask, noise, codec_stage.CodecLoss(crisp=2.0)
    )
    loss.backward()
    part.update(1e-3, clip=1.0, decay=0.9)
    changed = {
        name
        for name, value in zip(part.named, part.average, strict=True)
        if not torch.equal(value, before[name])
    }
    assert changed and all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_inflated_codec_holds_a_still_image(tmp_path: Path) -> None:
    part = codec_stage.open_codec(tmp_path, device="cpu", seed=0, resume=False)
    image = torch.rand(1, 1, 32, 32, 3) * 2 - 1
    codec = codec_stage.WholeClip(part.module)
    with torch.no_grad():
        clip = codec.decode(codec.encode(image.expand(-1, 9, -1, -1, -1))[..., :16])
    torch.testing.assert_close(clip[:, 4], clip[:, 8])


def test_padding_bias_stands_for_a_longer_text() -> None:
    torch.manual_seed(0)
    denoiser = transformer_stage.Denoiser(40).eval()
    tokens = transformer_stage.empty_prompt("cpu")[None]
    noisy, sigma = torch.randn(1, 16, 1, 4, 4), torch.tensor([0.7])
    with torch.no_grad():
        text = denoiser.encode_text(tokens)
        longer = torch.cat([text, torch.zeros(1, 226 - TEXT_LENGTH, text.shape[-1])], dim=1)
        expected = denoiser(noisy, sigma, longer)
        transformer_stage.use_padding_bias(
            denoiser.transformer, transformer_stage.padding_bias(226, device="cpu")
        )
        ours = denoiser(noisy, sigma, text)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_questions_are_answered_by_the_scene() -> None:
    first = world.Solid("cone", "blue", "small", "left", "striped")
    second = world.Solid("ball", "red", "big", "still")
    answers = text_stage.answers_of(world.Scene((first, second), "left of", "desert", "static", 0))
    told = {
        name: values[answer]
        for (name, values), answer in zip(text_stage.QUESTIONS.items(), answers, strict=True)
    }
    assert (told["first shape"], told["first motion"], told["second colour"]) == ("cone", "left", "red")
    assert told["relation"] == "left of"
    alone = text_stage.answers_of(world.Scene((first,), None, "desert", "static", 0))
    names = list(text_stage.QUESTIONS)
    assert alone[names.index("second shape")] == len(text_stage.QUESTIONS["second shape"])


def test_the_trained_text_encoder_is_taken_over_once(tmp_path: Path) -> None:
    reader = _text_run(tmp_path, Recorder(tmp_path), resume=False)
    part = transformer_stage.open_denoiser(tmp_path, device="cpu", seed=0)
    assert transformer_stage.take_over_text_encoder(part, tmp_path)
    taken = dict(zip(part.named, part.average, strict=True))
    own = dict(zip(reader.named, reader.average, strict=True))
    assert torch.equal(taken["text_encoder.shared.weight"], own["text_encoder.shared.weight"])
    assert not transformer_stage.take_over_text_encoder(part, tmp_path)


def test_noise_levels_follow_the_sampler() -> None:
    sigma = transformer_stage.draw_sigma(4000, generator=torch.Generator().manual_seed(0), device="cpu")
    assert sigma.min() > 0 and sigma.max() <= 1
    assert 0.15 < (sigma > 0.9).float().mean() < 0.25


def test_measures_of_the_truth_itself() -> None:
    pool = _random_clips()
    same = compare_clips(pool.frames, pool.frames, boxes=pool.boxes)
    assert same["psnr"].min() >= 70
    torch.testing.assert_close(same["crispness"], torch.ones(3))
    blurred = pool.frames.float().mean((2, 3), keepdim=True).expand(pool.frames.shape).to(torch.uint8)
    assert compare_clips(blurred, pool.frames, boxes=pool.boxes)["crispness"].max() < 0.01


def test_pool_holds_what_the_world_renders() -> None:
    pool = build_pool(1, seed=5, draw=Draw(), device="cpu")
    assert torch.equal(pool.frames, world.render(pool.scenes))
    mask = box_mask(pool.boxes, 128, 128)
    left, top, right, bottom = pool.boxes[0, 0, 0].tolist()
    assert mask[0, 0, top:bottom, left:right].all()
    assert int(mask[0, 0].sum()) >= (right - left) * (bottom - top)


def test_command_trains_from_nothing_and_exports(tmp_path: Path) -> None:
    arguments = ["--stage", "vae-images,transformer,export", "--steps", "1,1", "--out", str(tmp_path / "run")]
    arguments += ["--device", "cpu", "--clips", "1", "--latents", "1", "--held-out", "1", "--batch", "1"]
    result = train.run(train.parse([*arguments, "--target", str(tmp_path / "folder")]))
    assert result["codec"]["steps"] == result["transformer"]["steps"] == 1
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"loss"') == 2
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tmp_path / "folder", local_files_only=True)
    trained = load_file(tmp_path / "run" / "transformer" / "average.safetensors")
    weight = pipeline.transformer.proj_out.weight
    torch.testing.assert_close(weight, trained["transformer.proj_out.weight"], rtol=1e-3, atol=1e-6)
    assert len(pipeline.vae.config.latents_mean) == 16


def test_bad_stages_are_named() -> None:
    with pytest.raises(ValueError, match="vae-sculpt"):
        train.run(train.Options(out=Path("unused"), budgets={"vae-sculpt": Budget(steps=1)}))
    with pytest.raises(SystemExit):
        train.parse(["--stage", "vae-images", "--out", "unused"])


def test_twins_differ_in_one_thing_and_stay_out_of_the_held_out_split() -> None:
    rng = np.random.default_rng(2)
    found: dict[str, int] = {}
    for scene in [world.sample_scene(rng, split="train") for _ in range(300)]:
        made = world.twin(scene, rng)
        if made is None:
            continue
        found[made.change] = found.get(made.change, 0) + 1
        assert not world.is_held_out(made.scene)
        assert made.scene.seed == scene.seed
        assert world.caption(made.scene) != world.caption(scene)
        if made.change == "colours swapped":
            ours, theirs = ([solid.colour for solid in one.objects] for one in (scene, made.scene))
            assert ours == theirs[::-1]
    assert set(found) == {
        "motion", "shape", "colour", "size", "colours swapped", "shapes swapped", "side"
    }  # fmt: skip


def test_the_transformers_pool_holds_twins_side_by_side() -> None:
    scenes, captions, _ = draw_scenes(8, seed=3, draw=Draw(twins=True, pair_share=0.5))
    assert all(ours.seed == theirs.seed for ours, theirs in zip(scenes[::2], scenes[1::2], strict=True))
    assert all(group[0] == world.caption(scene) for scene, group in zip(scenes, captions, strict=True))
    chosen = transformer_stage.draw_twins(
        100, 6, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )
    assert (chosen[::2] % 2 == 0).all() and (chosen[1::2] == chosen[::2] + 1).all()


def test_orbits_can_be_asked_for() -> None:
    scenes, _, _ = draw_scenes(8, seed=3, draw=Draw(orbit_share=1.0, pair_share=0.5))
    assert {scene.objects[0].motion for scene in scenes} == {"orbit"}
    twins, _, _ = draw_scenes(8, seed=3, draw=Draw(orbit_share=1.0, twins=True))
    assert {scene.objects[0].motion for scene in twins[::2]} == {"orbit"}


def test_a_finished_codec_of_averages_alone_is_trained_on(tmp_path: Path) -> None:
    part = _codec_run(tmp_path, Recorder(tmp_path), resume=False)
    half = dict(zip(part.named, part.average, strict=True))
    alone = tmp_path / "alone"
    save_average(alone / codec_stage.FOLDER, half, facts={})
    again = codec_stage.open_codec(alone, device="cpu", seed=1, resume=True)
    assert not again.progress.done
    for ours, theirs in zip(again.parameters, part.average, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_latent_cell_is_inside_where_a_box_touches_it() -> None:
    inside = torch.zeros(1, 5, 32, 32, dtype=torch.bool)
    inside[0, 3, 9, 30] = True
    cells = latent_mask(inside)
    assert cells.shape == (1, 2, 4, 4)
    assert cells.nonzero().tolist() == [[0, 1, 1, 3]]


def test_orthogonal_momentum_turns_every_direction_alike() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    for turned in (orthogonalised(matrices), orthogonalised(matrices.transpose(1, 2))):
        values = torch.linalg.svdvals(turned)
        assert values.min() > 0.6 and values.max() < 1.3


def test_training_with_orthogonal_momentum_goes_on_to_the_bit(tmp_path: Path) -> None:
    def run(folder: Path, recorder: Recorder, *, resume: bool) -> Part:
        part = transformer_stage.open_denoiser(folder, device="cpu", seed=0, resume=resume, orthogonal=True)
        transformer_stage.train_transformer_stage(
            part, "transformer", pool=_latents(), budget=Budget(steps=3), recorder=recorder, batch=2
        )
        return part

    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    straight.mkdir(), stopped.mkdir()
    whole = run(straight, Recorder(straight), resume=False)
    assert whole.turning is not None
    run(stopped, Interrupted(stopped, steps=2), resume=False)
    second = run(stopped, Recorder(stopped), resume=True)
    assert all(torch.equal(a, b) for a, b in zip(second.parameters, whole.parameters, strict=True))


def test_training_goes_on_from_shipped_weights(untrained_model_folder: Path, tmp_path: Path) -> None:
    arguments = ["--stage", "text,transformer,export", "--steps", "1,1", "--out", str(tmp_path / "run")]
    arguments += ["--device", "cpu", "--latents", "2", "--held-out", "1", "--batch", "1", "--compact"]
    arguments += ["--resume-from-shipped", str(untrained_model_folder), "--resume", "--optimizer", "muon"]
    arguments += ["--fit-steps", "2"]
    arguments += ["--target", str(tmp_path / "folder")]
    result = train.run(train.parse(arguments))
    assert result["transformer"]["steps"] == 1
    assert 0 <= result["transformer"]["reading"]["prefers_own"]["all"] <= 1
    sizes = [path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors")]
    assert len(sizes) >= 9 and max(sizes) <= 16 * 2**20
    part, name = "transformer/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
    codec = [load_file(folder / name) for folder in (untrained_model_folder, tmp_path / "folder")]
    assert all(torch.equal(codec[0][key].half(), codec[1][key]) for key in codec[0])
    weights = [load_file(folder / part) for folder in (untrained_model_folder, tmp_path / "folder")]
    change = (weights[0]["proj_out.weight"] - weights[1]["proj_out.weight"].float()).abs().max()
    assert 0 < change < 0.01
    again = train.run(train.parse(arguments))
    assert again["transformer"]["steps"] == 1


def test_two_processes_train_one_transformer_on_clips_of_their_own(
    untrained_model_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--stage", "transformer", "--steps", "2", "--out", str(tmp_path), "--device", "cpu"]
    arguments += ["--latents", "2", "--held-out", "1", "--batch", "1"]
    arguments += ["--resume-from-shipped", str(untrained_model_folder)]
    module = ["--standalone", "--nproc-per-node", "2", "-m", "workbench.models.embedded.train"]
    command = [sys.executable, "-m", "torch.distributed.run", *module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)["transformer"]
    assert (found["steps"], found["samples"], found["clips_in_pool"]) == (2, 4, 4)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(line.get("event") == "start" for line in lines) == 1


def test_the_projection_is_fitted_to_a_new_text_encoder(tmp_path: Path) -> None:
    part = transformer_stage.open_denoiser(tmp_path, device="cpu", seed=0)
    denoiser = part.module
    old = copy.deepcopy(denoiser.text_encoder)
    assert fit_projection(part, old, steps=1, batch=2) < 1e-4
    fresh = transformer_stage.open_denoiser(tmp_path, device="cpu", seed=9).module.text_encoder
    part.replace({f"text_encoder.{name}": value for name, value in fresh.named_parameters()})
    before = fit_projection(part, old, steps=1, batch=2)
    assert fit_projection(part, old, steps=40, batch=8) < 0.7 * before
