"""Models: what a Wan pipeline is, where to find one, and the small one that ships with the workbench."""

from workbench.models.facts import ModelFacts
from workbench.models.loader import LoadedModel, adapter_of, load_model, model_facts, resolve_folder
from workbench.models.prompts import CheckedPrompt, check_prompt, check_words

__all__ = [
    "CheckedPrompt",
    "LoadedModel",
    "ModelFacts",
    "adapter_of",
    "check_prompt",
    "check_words",
    "load_model",
    "model_facts",
    "resolve_folder",
]
