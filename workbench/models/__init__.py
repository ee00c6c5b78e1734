"""Models: what a Wan pipeline is, where to find one, and the small one that ships with the workbench."""

from workbench.models.facts import ModelFacts
from workbench.models.fetch import DownloadConfig, check_download, fetch
from workbench.models.footprint import Footprint
from workbench.models.hub import download
from workbench.models.loader import (
    LoadedModel,
    adapter_of,
    check_here,
    load_model,
    model_companions,
    model_facts,
    model_footprint,
    plan_placement,
    resolve_folder,
)
from workbench.models.placement import Placement, PlacementConfig
from workbench.models.prompts import CheckedPrompt, check_prompt, check_words

__all__ = [
    "CheckedPrompt",
    "DownloadConfig",
    "Footprint",
    "LoadedModel",
    "ModelFacts",
    "Placement",
    "PlacementConfig",
    "adapter_of",
    "check_download",
    "check_here",
    "check_prompt",
    "check_words",
    "download",
    "fetch",
    "load_model",
    "model_companions",
    "model_facts",
    "model_footprint",
    "plan_placement",
    "resolve_folder",
]
