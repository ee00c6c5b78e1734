"""Finetuning (stage 3): the whole student learns the teacher's velocity, or flow matching on clips.

LoRA on the transformer (through peft, saved as a standard LoRA file) or all of it, and the maps; under
`accelerate launch` the states of an update are divided among the processes, and the result is that of one.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workbench.distillation.clips import ClipSource
from workbench.distillation.finetune_config import FinetuneConfig, check_finetune
from workbench.distillation.finetuned import Findings, save_finetuned
from workbench.distillation.lessons import Exam, FlowLesson, Lesson, TeacherLesson, together
from workbench.distillation.prompts import PromptSplit, choose_prompts
from workbench.distillation.room import require_room
from workbench.distillation.team import Team
from workbench.distillation.trajectories import TrajectoryCache
from workbench.errors import Diverged
from workbench.jobs.training import TrainingParts
from workbench.models import LoadedModel, check_prompt
from workbench.operators import Schedule
from workbench.orthogonal import OrthogonalMomentum
from workbench.sampling import GenerateConfig, sample, save_clip
from workbench.surgery import Student, install_student, operators_of, restore
from workbench.surgery.lora import ADAPTER
from workbench.surgery.weights import keep_own, own_parameters
from workbench.types import Reporter
from workbench.workspace import Workspace

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ffn.net.0.proj", "ffn.net.2")
MAX_NORM = 1.0


class Material(NamedTuple):
    """What a finetuning learns from and is examined on."""

    prompts: PromptSplit
    lesson: TeacherLesson | FlowLesson
    exam: Exam


def finetune(model: LoadedModel, config: FinetuneConfig, workspace: Workspace, *, reporter: Reporter) -> Path:
    """Finetune a student; goes on exactly from `reporter.restore()`.

    Args:
        model: the student of `config.model`, as `surgery.open_model` gives it; finetuned afterwards.

    Returns:
        A new student folder: plan, feature maps, `pytorch_lora_weights.safetensors` (or the transformer's
        weights) and `finetune.json`.

    Raises:
        InputError: as `check_finetune`, or prompts or clips that cannot be used; nothing was started.
        Diverged: the loss became NaN or infinite; nothing was saved.
        Cancelled, Paused: as the reporter says.

    Source: light finetuning of Attention Surgery, arXiv 2509.24899; the default target is the teacher's
    velocity.
    """
    student = check_finetune(config)
    require_room(model, config, student.plan)
    if config.sample_prompt:
        check_prompt(model, config.sample_prompt)
    team = Team(model.device)
    reporter = team.reporter(reporter)
    restore(model)
    material = gather(model, config, workspace, team=team, reporter=reporter)
    for part in (material.lesson, material.exam):
        part.prepare(reporter)
    install_student(model, student.plan, student)
    run = Finetuning(model, config, student, material.lesson)
    findings = Findings(material.prompts)
    findings.look(run, material, reporter)
    show = functools.partial(run.sample, workspace, material.prompts.held_out[0])
    reporter.offer_sample(show, config.sample_every)
    run.train(reporter)
    reporter.offer_sample(show)
    run.use_average()
    findings.look(run, material, reporter)
    return team.from_first(lambda: save_finetuned(run, student, findings, workspace))


def gather(
    model: LoadedModel, config: FinetuneConfig, workspace: Workspace, *, team: Team, reporter: Reporter
) -> Material:
    """Sample the trajectories and encode the clips that a finetuning needs; the model is the teacher.

    Raises:
        InputError: prompts that the model refuses, clips that cannot be used, no room on the disk.
    """
    sampling = config.sampling(model.facts)
    prompts = choose_prompts(
        model,
        training=config.prompts,
        held_out=config.held_out_prompts,
        num_training=config.num_prompts,
        num_held_out=config.num_held_out,
        seed=config.seed,
    )
    room = config.cache_megabytes * 1_000_000
    cache = TrajectoryCache(model, workspace, settings=sampling, max_bytes=room, batch=config.batch)
    with team.first_goes_ahead():
        if config.objective == "teacher":
            wanted = (*prompts.training, *prompts.held_out)
            trajectories = cache.prepare(wanted, seed=config.seed, reporter=reporter)
            count = len(prompts.training)
            lesson: TeacherLesson | FlowLesson = TeacherLesson(
                model, config, sampling, trajectories[:count], team
            )
            held_out = trajectories[count:]
        else:
            folder = None if config.clips is None else Path(config.clips)
            source = ClipSource(model, cache.folder, size=sampling.size, folder=folder)
            clips, examined = source.prepare(
                config.num_clips, held_out=config.num_held_out, seed=config.seed, reporter=reporter
            )
            prompts = prompts._replace(training=tuple(dict.fromkeys(clip.caption for clip in clips)))
            lesson = FlowLesson(model, config, clips, examined, team)
            held_out = cache.prepare(prompts.held_out, seed=config.seed, reporter=reporter)
    return Material(prompts, lesson, Exam(model, sampling, held_out, team))


class Finetuning:
    """The trainable parts of a student, their optimiser and their average."""

    def __init__(self, model: LoadedModel, config: FinetuneConfig, student: Student, lesson: Lesson) -> None:
        self.model = model
        self.config = config
        self.lesson = lesson
        self.scheduled = student.plan.schedule != Schedule()
        self.losses: list[float] = []
        transformer: Any = model.transformer
        self.dtype: torch.dtype = transformer.dtype
        transformer.requires_grad_(False)
        if config.method == "lora" and not student.lora:
            _add_lora(transformer, rank=config.rank, seed=config.seed)
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        self.maps: dict[str, nn.Parameter] = {
            f"block.{block}.{name}": parameter
            for block, operator in operators_of(model).items()
            for name, parameter in operator.named_parameters()
        }
        self.lora: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in transformer.named_parameters()
            if f".lora_A.{ADAPTER}." in name or f".lora_B.{ADAPTER}." in name
        }
        self.whole: dict[str, nn.Parameter] = {}
        if config.method == "full" or student.own_weights:
            keep_own(transformer)
            self.whole = own_parameters(transformer)
        trained: dict[str, nn.Parameter] = {"maps": {}, "lora": self.lora, "full": self.whole}[config.method]
        self.weights: dict[str, nn.Parameter] = {**self.maps, **trained}
        for parameter in self.weights.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_()
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        turned = matrices_of(self.whole) if config.optimizer == "muon" else {}
        rest = {name: weight for name, weight in trained.items() if name not in turned}
        groups = [
            {"params": list(group.values()), "lr": peak, "peak": peak}
            for group, peak in ((self.maps, config.maps_lr), (rest, config.peak_lr))
            if group
        ]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)
        }
        if turned:
            self.optimizers["muon"] = OrthogonalMomentum(turned.values(), weight_decay=0.0)
            self.optimizers["muon"].param_groups[0]["peak"] = config.peak_lr
        self.parts = TrainingParts(
            optimizers=self.optimizers,
            tensors={
                **{f"weight.{name}": weight for name, weight in self.weights.items()},
                **{f"average.{name}": weight for name, weight in self.average.items()},
            },
        )

    def train(self, reporter: Reporter) -> None:
        """Take all updates; goes on from the reporter's state."""
        state = reporter.restore()
        first = 0
        if state is not None:
            meta = self.parts.unpack(state)
            first, self.losses = int(meta["update"]), [float(loss) for loss in meta["losses"]]
        self.model.transformer.train()
        reporter.stage("finetuning", self.config.updates)
        for update in range(first, self.config.updates):
            metrics = self.update(update)
            self.losses.append(metrics["loss"])
            pack = functools.partial(self.parts.pack, {"update": update + 1, "losses": self.losses})
            reporter.step(update + 1, state=pack, **metrics)
        self.model.transformer.eval()

    def update(self, update: int) -> dict[str, float]:
        """Take one optimiser step and return the mean loss of its states, the rate and the gradient's norm.

        Raises:
            Diverged: the loss or a gradient is not finite; the weights are those before.
        """
        config = self.config
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        weights = list(self.weights.values())
        sums = torch.zeros(1, device=self.model.device)
        kind = functools.partial(self.lesson.kind, scheduled=self.scheduled)
        for items in together(self.lesson.share(update), kind, config.batch):
            with self.arithmetic():
                loss = self.lesson.loss(items) / config.accumulate
            loss.backward()
            sums += loss.detach()
        self.lesson.team.add_up([sums, *(_gradient(weight) for weight in weights)])
        total, norm = float(sums), float(nn.utils.clip_grad_norm_(weights, MAX_NORM))
        if not math.isfinite(total + norm):
            raise Diverged(
                f"The finetuning loss became NaN or infinite at update {update + 1}; nothing was saved. "
                "Try a lower lr."
            )
        risen = _schedule(update + 1, config.updates, warmup=config.warmup)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * risen
            optimizer.step()
        decay = min(config.ema, (update + 1) / (update + 10)) if config.ema else 0.0
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.average[name].lerp_(weight.detach(), 1 - decay)
        return {"loss": total, "lr": config.peak_lr * risen, "gradient_norm": norm}

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context in which the model computes: in bfloat16 where the user or the model says so."""
        names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": self.dtype}
        dtype = names[self.config.precision]
        if dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=dtype)

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the model."""
        for name, weight in self.weights.items():
            weight.copy_(self.average[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Run the block with the averaged weights, as the result will be, without touching the training."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        was_training = self.model.transformer.training
        self.use_average()
        self.model.transformer.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(kept[name])
            self.model.transformer.train(was_training)

    def sample(self, workspace: Workspace, prompt: str) -> Path:
        """Make a clip with the averaged weights of this moment; returns its file."""
        config, facts = self.config, self.model.facts
        size = config.sampling(facts).size
        wanted = GenerateConfig(
            prompt=config.sample_prompt or prompt,
            seed=config.seed,
            guidance=config.guidance,
            frames=size.frames,
            height=size.height,
            width=size.width,
        )
        with self.averaged(), self.arithmetic():
            made = sample(self.model, wanted)
            more = {
                "finetuning_update": len(self.losses),
                "model": {"name": f"{self.model.name}, finetuning"},
            }
            folder = save_clip(made, wanted, workspace, model=self.model, manifest=more)
        return folder / "clip.mp4"


def _add_lora(transformer: Any, *, rank: int, seed: int) -> None:
    """Add a LoRA to every self-attention and feed-forward of the transformer; it starts at zero effect."""
    from peft import LoraConfig

    names = [*(f"attn1.{name}" for name in ATTENTION), *FEED_FORWARD]
    pattern = rf".*\.({'|'.join(map(re.escape, names))})"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=pattern), adapter_name=ADAPTER
        )


def matrices_of(weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return the matrices of a transformer's blocks, which orthogonalised momentum moves."""
    return {
        name: weight for name, weight in weights.items() if name.startswith("blocks.") and weight.ndim == 2
    }


def _gradient(weight: nn.Parameter) -> Tensor:
    """Return the gradient, made zero where a process had no state to learn from."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _schedule(update: int, updates: int, *, warmup: float) -> float:
    """Return the share of the peak rate: linear rise, then a cosine fall to a tenth."""
    progress = update / updates
    if progress < warmup:
        return progress / warmup
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
