"""What capturing costs: `python -m workbench.capture.benchmark --out docs/results/capture.json`.

A transformer of the embedded model's architecture (1,280 tokens, 8 blocks, 6 heads, random weights) takes 8
steps with guidance on one thread, without decoding: plain, captured exactly, and captured with every fourth
query. Time is the process's CPU time, the least of several rounds, so that other work on the machine counts
less.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

STEPS = 8
BLOCKS = 8
MODES: dict[str, int | None] = {"plain": None, "exact": 1, "every 4th query": 4}


def main() -> None:
    """Measure times here and peak memory in a process per mode; write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-of", choices=MODES, help="print the peak memory of one run, and stop")
    arguments = parser.parse_args()
    if arguments.peak_of:
        run = Run()
        run.once(arguments.peak_of)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(f"{json.dumps({'peak_mb': peak_mb})}\n")
        return
    run = Run()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(arguments.rounds):
        for mode in MODES:
            seconds[mode].append(run.once(mode))
    least = {mode: min(times) for mode, times in seconds.items()}
    peaks = {mode: peak_of(mode) for mode in MODES}
    result = {
        "what": "cost of capturing every self-attention of a sampling run, against the plain run",
        "tokens": 1280,
        "blocks": BLOCKS,
        "heads": 6,
        "steps": STEPS,
        "guidance": True,
        "threads": 1,
        "cpu_seconds": {mode: round(value, 3) for mode, value in least.items()},
        "ratio": {mode: round(value / least["plain"], 3) for mode, value in least.items()},
        "all_cpu_seconds": {mode: [round(value, 3) for value in times] for mode, times in seconds.items()},
        "peak_mib": {mode: round(value, 1) for mode, value in peaks.items()},
        "extra_mib": {mode: round(value - peaks["plain"], 1) for mode, value in peaks.items()},
        "promised": {"exact": 1.7, "every 4th query": 1.25, "extra_mib": 300},
        **environment("python -m workbench.capture.benchmark --out docs/results/capture.json"),
    }
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


class Run:
    """A pipeline without a decoder, and how to run it plain or watched."""

    def __init__(self) -> None:
        import torch

        from workbench.models import adapter_of
        from workbench.models.embedded import architecture

        torch.set_num_threads(1)
        config = {**architecture.TRANSFORMER, "num_layers": BLOCKS}
        from diffusers import WanTransformer3DModel

        torch.manual_seed(0)
        self.transformer = WanTransformer3DModel(**config).eval()
        self.adapter = adapter_of(self.transformer)
        self.scheduler = architecture.build_scheduler()
        self.text = torch.randn(2, 64, architecture.TEXT_WIDTH)
        self.noise = torch.randn(1, architecture.LATENT_CHANNELS, 5, 16, 16)

    def once(self, mode: str) -> float:
        """Sample once and return the CPU seconds."""
        import contextlib

        from workbench.operators import observe

        stride = MODES[mode]
        watching: Any = contextlib.nullcontext()
        if stride is not None:
            watching = observe(self, recorder(stride))
        started = time.process_time()
        with watching:
            self.sample()
        return time.process_time() - started

    def sample(self) -> None:
        """Take the steps of `WanPipeline`, both branches each."""
        import torch

        transformer: Any = self.transformer
        self.scheduler.set_timesteps(STEPS)
        latents = self.noise
        with torch.no_grad():
            for step, timestep in enumerate(self.scheduler.timesteps):
                found = []
                for branch, text in zip(("cond", "uncond"), self.text.split(1), strict=True):
                    with transformer.cache_context(branch, step_index=step, num_inference_steps=STEPS):
                        found.append(
                            transformer(
                                hidden_states=latents,
                                timestep=timestep.expand(1),
                                encoder_hidden_states=text,
                                return_dict=False,
                            )[0]
                        )
                velocity = found[1] + 3.0 * (found[0] - found[1])
                latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]


def recorder(stride: int) -> Any:
    """Return a recorder of every step and branch."""
    from workbench.capture.config import CaptureConfig, check
    from workbench.capture.recorder import Recorder
    from workbench.models import model_facts

    facts = model_facts("embedded").model_copy(update={"num_blocks": BLOCKS})
    config = CaptureConfig(prompt="a red ball", steps=STEPS, query_stride=stride)
    return Recorder(check(config, facts), facts)


def peak_of(mode: str) -> float:
    """Return the peak resident memory of a process that runs one mode, MiB."""
    command = [sys.executable, "-m", "workbench.capture.benchmark", "--peak-of", mode]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(answer.stdout.splitlines()[-1])["peak_mb"])


def environment(command: str) -> dict[str, Any]:
    """Return what a result file says of where it was made."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if platform.system() == "Linux" else []
    )
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "hardware": names[0] if names else platform.processor(),
        "versions": {name: version(name) for name in ("torch", "diffusers")}
        | {"python": platform.python_version()},
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
