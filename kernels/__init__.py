"""Attention operators of the workbench: they know torch and triton, nothing else.

``kernels`` is also the name of an unrelated package on PyPI whose presence diffusers and transformers probe by
version (they want it to download hub kernels, from 0.9 or so up). Our folder shadows that name in a checkout, so it
declares a version below every version they ask for: they then report hub kernels as absent, which is true.
"""

__version__ = "0.0.0"
