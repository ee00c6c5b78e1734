"""Whole transformers timed, teacher against student: `python -m workbench.benchmarks.wan_forward --help`."""
