"""Analysis: the numbers per block and head that a capture holds, and what they say."""

from workbench.analysis.profile import KINDS, HeadKind, HeadProfile, Profile, classify, profile

__all__ = ["KINDS", "HeadKind", "HeadProfile", "Profile", "classify", "profile"]
