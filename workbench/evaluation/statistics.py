"""Intervals for fractions and means, and paired comparisons on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import InputError


def wilson_interval(right: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's interval of a fraction (95 % for z = 1.96); (0, 1) when nothing was counted.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if total == 0:
        return 0.0, 1.0
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return (0.0 if right == 0 else low), (1.0 if right == total else high)


@dataclass(frozen=True)
class PairedDifference:
    """How much larger the first of two paired samples is.

    Attributes:
        mean: Mean of first - second.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        share_above: Share of resamples in which the mean is above 0.
        num_pairs: Number of pairs.
    """

    mean: float
    low: float
    high: float
    share_above: float
    num_pairs: int


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean.

    Raises:
        InputError: without values, or with some that are not finite.
    """
    means = _resampled_means(values, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def paired_bootstrap(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two measurements made on the same prompts and seeds, in the same order.

    Raises:
        InputError: when they differ in length, are empty, or hold values that are not finite.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise InputError(
            f"A paired comparison needs as many first as second values, not {a.size} and {b.size}; "
            "measure both on the same prompts and seeds."
        )
    means = _resampled_means(a - b, resamples, seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return PairedDifference(float((a - b).mean()), float(low), float(high), float((means > 0).mean()), a.size)


def _resampled_means(values: Sequence[float] | np.ndarray, resamples: int, seed: int) -> np.ndarray:
    array = np.asarray(values, dtype=float).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError("A bootstrap needs values, all of them finite; drop the clips without a value.")
    chosen = np.random.default_rng(seed).integers(array.size, size=(resamples, array.size))
    return array[chosen].mean(1)


@dataclass(frozen=True)
class PairedRatio:
    """How large the mean of one paired sample is beside that of the other.

    Attributes:
        ratio: Mean of first over mean of second: 0.88 is 12 % less.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        num_pairs: Number of pairs.
    """

    ratio: float
    low: float
    high: float
    num_pairs: int


def paired_ratio(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    offset: float = 0.0,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedRatio:
    """Compare the means of two positive measurements made on the same prompts and seeds.

    Args:
        first: One value a pair.
        second: As many.
        offset: Added to both means: the noise of the measure, so that two empty samples are alike.
        resamples: Bootstrap samples of pairs.
        seed: Of the bootstrap.

    Raises:
        InputError: when they differ in length, are empty, or hold values that are not finite.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.size == 0 or not np.isfinite(a).all() or not np.isfinite(b).all():
        raise InputError(
            f"A paired ratio needs as many first as second values, all finite, not {a.size} and {b.size}; "
            "measure both on the same prompts and seeds."
        )
    chosen = np.random.default_rng(seed).integers(a.size, size=(resamples, a.size))
    tiny = np.finfo(float).tiny
    ratios = (a[chosen].mean(1) + offset) / np.maximum(b[chosen].mean(1) + offset, tiny)
    low, high = np.quantile(ratios, (0.025, 0.975))
    ratio = (a.mean() + offset) / max(b.mean() + offset, tiny)
    return PairedRatio(float(ratio), float(low), float(high), a.size)
