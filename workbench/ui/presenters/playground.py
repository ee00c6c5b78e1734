"""The one-head playground as plain data: the last few fits are kept, so that another patch costs nothing."""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.ui.presenters.maps import place_of
from workbench.visualization.encoded import encode_mass

if TYPE_CHECKING:
    from workbench.capture import Capture
    from workbench.distillation.playground import HeadFit

RATES = (2, 4, 8, 16)
DEGREES = 4
WIDTHS = 4
BINS = 24
_ONE_AT_A_TIME = threading.Lock()


def first() -> dict[str, Any]:
    """Return the ends of the sliders and where they start."""
    return {
        "rates": [f"R{rate}" for rate in RATES] + ["linear"],
        "degrees": DEGREES,
        "widths": WIDTHS,
        "start": {"rate": "R4", "degree": 2, "width": 2},
    }


def answer(capture: Capture, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return softmax row against implied row of one query, error and denominators of the refitted head.

    Args:
        capture: as read.
        question: `block`, `head`, `patch`; `rate` ("R4" or "linear"), `degree`, `width`.

    Raises:
        InputError: out of range, named; or nothing was kept to fit on.
    """
    block, head, token = place_of(capture, question)
    rate = question.get("rate", "R4")
    known = [f"R{one}" for one in RATES]
    if rate not in (*known, "linear"):
        raise InputError(
            f"The playground has the rates {', '.join(known)} and linear, not {str(rate)[:20]!r}."
        )
    degree = _slider(question, "degree", DEGREES)
    width = _slider(question, "width", WIDTHS)
    with _ONE_AT_A_TIME:
        number = None if rate == "linear" else int(rate.removeprefix("R"))
        fit = _fits(_Kept(capture), block, head, number, degree, width)
    own, implied = fit.softmax_row(token), fit.implied_row(token)
    top = float(np.quantile(own, 0.999))
    counts, edges = np.histogram(np.log10(np.maximum(fit.denominators, 1e-6)), bins=BINS)
    return {
        "softmax": encode_mass(own, top),
        "implied": encode_mass(implied, top),
        "line": base64.b64encode(_line(own, implied).tobytes()).decode("ascii"),
        "row_error": round(float(np.abs(own - implied).sum()) / 2, 4),
        "mean_error": round(fit.error, 4),
        "off_error": round(fit.error_off, 4),
        "denominator": {
            "counts": counts.tolist(),
            "low": float(edges[0]),
            "high": float(edges[-1]),
            "least": float(fit.denominators.min()),
            "here": float(fit.denominators[token]),
        },
        "losses": [round(loss, 4) for loss in fit.losses],
        "seconds": round(fit.seconds, 2),
        "updates": len(fit.losses),
        "features": fit.spec.feature_map.num_features(fit.query.shape[1]),
    }


class _Kept:
    """A capture as a key of the cache: two readings of one folder are the same."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    def __hash__(self) -> int:
        return hash(self.capture.folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.capture.folder == self.capture.folder


@functools.lru_cache(maxsize=24)
def _fits(kept: _Kept, block: int, head: int, rate: int | None, degree: int, width: int) -> HeadFit:
    from workbench.distillation.playground import fit_head, playground_spec

    spec = playground_spec(rate, degree=degree, width=width)
    return fit_head(kept.capture, spec, block=block, head=head)


def _line(own: np.ndarray, implied: np.ndarray) -> np.ndarray:
    """Return both rows, sorted by the softmax one and summed into at most 160 parts [2, parts]."""
    order = np.argsort(-own.ravel())
    parts = min(160, order.size)
    shares = [
        np.add.reduceat(row.ravel()[order], np.linspace(0, order.size, parts, endpoint=False).astype(int))
        for row in (own, implied)
    ]
    return np.stack(shares).astype("<f4")


def _slider(question: Mapping[str, Any], name: str, most: int) -> int:
    value = question.get(name, 2)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(
            f"{name.capitalize()} must be a whole number from 1 to {most}, got {str(value)[:20]!r}."
        )
    return value
