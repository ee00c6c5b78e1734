"""Attention operators of the workbench: they know torch and triton, nothing else.

``kernels`` is also the name of an unrelated package on PyPI whose presence and version diffusers and
transformers probe (it downloads kernels from a hub). Our folder shadows that name in a checkout, so it
declares a version below every version they ask for: they then report hub kernels as absent, which is true.
"""

__version__ = "0.0.0"
