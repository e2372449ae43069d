"""Fronts held against each other: volume, dominance, and accuracy at equal latency.

Hypervolume and coverage as in E. Zitzler and L. Thiele, "Multiobjective evolutionary algorithms:
a comparative case study and the strength Pareto approach" (1999), except that a point is covered
only by one that is better in at least one objective, so that equal fronts cover none of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.report.series import LATENCY, TOP1, Point, Series, check, staircase, top1_at
from ofa_deploy.report.table import TextTable
from ofa_deploy.report.units import UNKNOWN, metric, milliseconds, percent

__all__ = ["Comparison", "FrontFigures", "Offer", "compare"]

GRID = 5


@dataclass(frozen=True)
class FrontFigures:
    """What is said of one front.

    Attributes:
        name: the series' name.
        points: number of candidates.
        hypervolume: ms times percent, between the front and the reference point.
        dominated_by: for each other front, the share (0 to 1) of this one's points that some point
            of the other beats.
    """

    name: str
    points: int
    hypervolume: float
    dominated_by: Mapping[str, float]


@dataclass(frozen=True)
class Offer:
    """What each front offers within one latency.

    Attributes:
        latency: ms.
        top1: for each front, the best top-1 in percent; None if it has nothing that fast.
        gain: for each front but the first, percentage points over the first; None where either
            has nothing.
    """

    latency: float
    top1: Mapping[str, float | None]
    gain: Mapping[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """Fronts compared; the first one is the base of every gain.

    Attributes:
        reference: the point that hypervolumes reach to: worst latency (ms) and top-1 (percent).
    """

    reference: Mapping[str, float]
    fronts: tuple[FrontFigures, ...]
    offers: tuple[Offer, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)

    def tables(self) -> tuple[TextTable, ...]:
        """The figures, and the gains if there are two fronts or more, for terminal and page."""
        return (self._figures(), self._gains()) if len(self.fronts) > 1 else (self._figures(),)

    def _figures(self) -> TextTable:
        names = [front.name for front in self.fronts]
        others = names if len(names) > 1 else []
        point = ", ".join(f"{name} {metric(name, value)}" for name, value in self.reference.items())
        return TextTable(
            title="Fronts",
            headers=("Front", "Points", "Hypervolume (ms·%)", *(f"Beaten by {n}" for n in others)),
            numeric=(False, *[True] * (2 + len(others))),
            rows=tuple(
                (
                    front.name,
                    str(front.points),
                    milliseconds(front.hypervolume),
                    *(_share(front.dominated_by.get(name)) for name in others),
                )
                for front in self.fronts
            ),
            note=f"Hypervolume up to {point}. Beaten: share of the front's points.",
        )

    def _gains(self) -> TextTable:
        base, *others = (front.name for front in self.fronts)
        return TextTable(
            title="Top-1 at equal latency",
            headers=("Within ms", f"{base} %", *(f"{name} %" for name in others)),
            numeric=(True,) * (1 + len(self.fronts)),
            rows=tuple(
                (
                    milliseconds(offer.latency),
                    percent(offer.top1[base]),
                    *(_gained(offer, name) for name in others),
                )
                for offer in self.offers
            ),
            note=f"In brackets: percentage points over {base}.",
        )


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def _gained(offer: Offer, name: str) -> str:
    gain = offer.gain[name]
    return percent(offer.top1[name]) + ("" if gain is None else f" ({gain:+.2f})")


def compare(
    series_list: Sequence[Series],
    reference: Mapping[str, float] | None = None,
    *,
    budgets: Sequence[float] = (),
    latency: str = LATENCY,
) -> Comparison:
    """Hold fronts against each other.

    Args:
        reference: the point that hypervolumes reach to, ``{latency: ms, "top1": percent}``; the
            worst latency and the worst top-1 over all fronts if not given.
        budgets: latencies (ms) at which to compare; if none, even steps over the latencies that
            all fronts span.
        latency: the metric of the time axis.

    Raises:
        InputError: if there is no series, two have one name, or the reference is not two numbers.
        UnknownNameError: if a candidate lacks a metric, or the reference names another.
    """
    check(series_list, budgets)
    fronts = {series.name: series.points(latency) for series in series_list}
    point = _reference(fronts, reference, latency)
    figures = tuple(
        FrontFigures(
            name,
            points=len(points),
            hypervolume=_hypervolume(points, point[latency], point[TOP1]),
            dominated_by={
                other: _dominated(points, fronts[other]) for other in fronts if other != name
            },
        )
        for name, points in fronts.items()
    )
    grid = sorted(budgets) or _overlap(list(fronts.values()))
    return Comparison(point, figures, tuple(_offer(fronts, at) for at in grid))


def _reference(
    fronts: Mapping[str, Sequence[Point]], given: Mapping[str, float] | None, latency: str
) -> dict[str, float]:
    if given is None:
        everyone = [point for points in fronts.values() for point in points]
        return {
            latency: max(point.x for point in everyone),
            TOP1: min(point.y for point in everyone),
        }
    for name in given:
        if name not in (latency, TOP1):
            raise UnknownNameError("metric of the reference point", name, (latency, TOP1))
    for name in (latency, TOP1):
        if not isfinite(given.get(name, float("nan"))):
            raise InputError(
                f"reference point {dict(given)}: expected a number for {latency} and for {TOP1}"
            )
    return {name: float(given[name]) for name in (latency, TOP1)}


def _hypervolume(points: Sequence[Point], latency: float, top1: float) -> float:
    import moocore

    values = np.array([(point.x, point.y) for point in points], dtype=np.float64)
    return float(moocore.hypervolume(values, ref=[latency, top1], maximise=[False, True]))


def _dominated(points: Sequence[Point], other: Sequence[Point]) -> float:
    steps = staircase(other)
    x, y = (np.array([getattr(step, axis) for step in steps]) for axis in "xy")
    beaten = [np.any((x <= p.x) & (y >= p.y) & ((x < p.x) | (y > p.y))) for p in points]
    return float(np.mean(beaten))


def _overlap(fronts: Sequence[Sequence[Point]]) -> list[float]:
    """Even steps from where every front has begun to where the first one ends."""
    low = max(points[0].x for points in fronts)
    high = min(points[-1].x for points in fronts)
    if high <= low:
        return [low]
    return [float(at) for at in np.linspace(low, high, GRID)]


def _offer(fronts: Mapping[str, Sequence[Point]], at: float) -> Offer:
    top1 = {name: top1_at(points, at) for name, points in fronts.items()}
    base, *others = top1
    return Offer(at, top1, {name: _difference(top1[name], top1[base]) for name in others})


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base
