"""Measurements of the kernels: correctness first, then time, written to JSON with hardware and versions."""
