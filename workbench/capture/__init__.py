"""Capture: reduced attention statistics of a real sampling run, with its clip."""

from workbench.capture.config import CaptureConfig, check
from workbench.capture.recorder import METRICS
from workbench.capture.run import run
from workbench.capture.store import Capture, CaptureManifest, load

__all__ = ["METRICS", "Capture", "CaptureConfig", "CaptureManifest", "check", "load", "run"]
