"""What this machine and installation are: versions, device, memory, disk, what `auto` picks. Pasteable.

Loads no model and asks no network.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import psutil

import workbench
from workbench.jobs.memory import memory_limit
from workbench.types import StrictModel
from workbench.workspace import Workspace

PACKAGES = ("torch", "triton", "diffusers", "transformers", "safetensors", "gradio")
LEAST_DISK = 2_000_000_000
LEAST_MEMORY = 1_500_000_000
GIGA = 1e9


class Fact(StrictModel):
    """One line of the report.

    Attributes:
        note: what to do, where something is short; "" where all is well.
    """

    name: str
    value: str
    note: str = ""


class Report(StrictModel):
    """What `examine` found.

    Attributes:
        device: in a few words, for a title line.
    """

    device: str
    facts: tuple[Fact, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(fact.note for fact in self.facts if fact.note)

    @property
    def text(self) -> str:
        """The report as plain lines to paste into an issue."""
        width = max(len(fact.name) for fact in self.facts)
        lines = [f"{fact.name:<{width}}  {fact.value}" for fact in self.facts]
        return "\n".join([*lines, *(f"! {problem}" for problem in self.problems)])


def examine(workspace: Workspace) -> Report:
    """Gather the facts of this machine and installation."""
    return Report(
        device=device_words(),
        facts=(
            Fact(name="workbench", value=f"{workbench.__version__}, python {platform.python_version()}"),
            Fact(name="packages", value=", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
            Fact(name="system", value=f"{platform.system()} {platform.release()}, {platform.machine()}"),
            _device_fact(),
            Fact(name="auto picks", value=_implementations()),
            _memory_fact(),
            _disk_fact(workspace),
            Fact(name="workspace", value=_workspace_words(workspace)),
            Fact(name="network", value=_network_words()),
        ),
    )


def device_words() -> str:
    """Return the device that jobs run on and its size, in a few words: "cpu · 2 cores"."""
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        name = torch.cuda.get_device_name(0).removeprefix("NVIDIA ")
        return name if count == 1 else f"{count} × {name}"
    return f"cpu · {usable_cores()} cores"


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_fact() -> Fact:
    import torch

    threads = f"{torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return Fact(name="device", value=f"{device_words()}, {threads}; no CUDA device")
    free, total = torch.cuda.mem_get_info(0)
    value = f"{device_words()}, {free / GIGA:.1f} of {total / GIGA:.1f} GB free, CUDA {torch.version.cuda}"
    return Fact(name="device", value=value)


def _implementations() -> str:
    """Return what `auto` takes for each kind of operator at the shape of the embedded model."""
    import torch

    from workbench.models import model_facts
    from workbench.models.loader import choose_device
    from workbench.operators import build, parse_rate
    from workbench.operators.module import FeatureOperator

    facts = model_facts("embedded")
    device = choose_device("auto")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    tokens = facts.token_grid(facts.default_size).num_tokens
    probe = torch.empty((1, tokens, facts.num_heads, facts.head_dim), device=device, dtype=dtype)
    named = {}
    for name, rate in (("hybrid", "R4"), ("linear", "linear"), ("ReHyAt", "T3o1")):
        operator = build(parse_rate(rate), facts)
        assert isinstance(operator, FeatureOperator)
        named[name] = operator.implementation(probe)
    words = ", ".join(f"{name} {choice}" for name, choice in named.items())
    return f"{words} ({str(dtype).removeprefix('torch.')} on {device.type})"


def _memory_fact() -> Fact:
    limit, free = memory_limit(), psutil.virtual_memory().available
    free = min(free, limit)
    note = "Less than 1.5 GB of memory is free; close other programs first." if free < LEAST_MEMORY else ""
    return Fact(name="memory", value=f"{free / GIGA:.1f} of {limit / GIGA:.1f} GB free", note=note)


def _disk_fact(workspace: Workspace) -> Fact:
    usage = shutil.disk_usage(workspace.root)
    short = usage.free < LEAST_DISK
    note = "Less than 2 GB of disk is free for the workspace; make room." if short else ""
    value = f"{usage.free / GIGA:.1f} of {usage.total / GIGA:.1f} GB free for the workspace"
    return Fact(name="disk", value=value, note=note)


def _workspace_words(workspace: Workspace) -> str:
    counts = []
    for kind in ("captures", "banks", "plans", "students", "comparisons"):
        entries = [path for path in (workspace.root / kind).iterdir() if not path.name.startswith(".")]
        counts.append(f"{len(entries)} {kind}")
    return ", ".join(counts)


def _network_words() -> str:
    return "not used" if os.environ.get("HF_HUB_OFFLINE") == "1" else "the hub, when a model is asked for"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
