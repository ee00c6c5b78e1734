"""See, choose, distil and compare linearized attention in video diffusion transformers."""

__version__ = "0.1.0"
