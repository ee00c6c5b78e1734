"""The own prompts of `models.own_prompts`, under the name by which evaluation calls them."""

from workbench.models.own_prompts import OwnPrompt, PromptSplit, own_prompts

__all__ = ["OwnPrompt", "PromptSplit", "own_prompts"]
