"""Data for training: captioned clips that a teacher makes from prompts."""

from workbench.data.synthesize import SynthesizeConfig, check_synthesis, read_prompts, synthesize

__all__ = ["SynthesizeConfig", "check_synthesis", "read_prompts", "synthesize"]
