"""How sure a gain between two fronts is: both resampled, the gain taken each time.

Percentile intervals of the bootstrap: B. Efron, "Bootstrap methods: another look at the jackknife"
(1979). What is drawn anew depends on what is known of the points, and is named with each interval.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ofa_deploy.predict.conformal import COVERAGE
from ofa_deploy.report.series import Point

__all__ = ["DRAWS", "SURE", "How", "draws", "how", "interval_of", "latency_at", "top1_at"]

DRAWS = 600
SURE = 0.95
_CELLS = 4_000_000  # of one array; more are drawn in parts
_DEVIATIONS = 1.6448536269514722  # that a normal value stays within with probability 0.9
assert COVERAGE == 0.9

How = Literal["spread", "networks"]
Floats = npt.NDArray[np.float64]


def how(*fronts: Sequence[Point]) -> How:
    """What to draw anew.

    ``spread``: every network's values, within its own intervals, where all networks have some.
    ``networks``: which networks there are, with replacement, where intervals are not known.
    """
    ranged = all(
        low < high for points in fronts for p in points for low, high in (_wider(p.x_range, p),)
    )
    return "spread" if ranged else "networks"


def _wider(x_range: tuple[float, float], point: Point) -> tuple[float, float]:
    return x_range if x_range[0] < x_range[1] else point.y_range


def draws(points: Sequence[Point], drawn: How, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """The front ``DRAWS`` times, in parts: latencies (ms) and top-1, each (draws, networks)."""
    rng = np.random.default_rng(seed)
    x, y = (np.array([getattr(p, axis) for p in points]) for axis in "xy")
    wide_x, wide_y = (
        np.array([np.ptp(getattr(p, f"{axis}_range")) for p in points]) / (2 * _DEVIATIONS)
        for axis in "xy"
    )
    part = max(1, min(DRAWS, _CELLS // len(points)))
    for first in range(0, DRAWS, part):
        shape = (min(part, DRAWS - first), len(points))
        if drawn == "networks":
            chosen = rng.integers(len(points), size=shape)
            yield x[chosen], y[chosen]
        else:
            yield (
                x + wide_x * rng.standard_normal(shape),
                y + wide_y * rng.standard_normal(shape),
            )


def top1_at(x: Floats, y: Floats, latency: float) -> Floats:
    """The best top-1 within ``latency`` ms along the last axis; −inf where nothing is that fast."""
    return np.asarray(np.where(x <= latency, y, -np.inf).max(axis=-1))


def latency_at(x: Floats, y: Floats, top1: float) -> Floats:
    """The least ms that reaches ``top1`` percent along the last axis; inf where nothing does."""
    return np.asarray(np.where(y >= top1, x, np.inf).min(axis=-1))


def interval_of(gains: Floats) -> tuple[float, float] | None:
    """The central ``SURE`` of the draws, or None where more than the rest had no gain at all."""
    finite = gains[np.isfinite(gains)]
    if len(finite) < SURE * len(gains):
        return None
    low, high = np.quantile(finite, [(1 - SURE) / 2, (1 + SURE) / 2])
    return float(low), float(high)
