"""Fronts held against each other: volume, dominance, gains at equal latency and equal accuracy.

Hypervolume and coverage as in E. Zitzler and L. Thiele, "Multiobjective evolutionary algorithms:
a comparative case study and the strength Pareto approach" (1999). Coverage counts points that are
dominated or equalled; "beaten" only those that another is better than in at least one objective, so
that equal fronts beat none of each other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError, MismatchError, UnknownNameError
from ofa_deploy.report.panels import panels_of
from ofa_deploy.report.resample import (
    DRAWS,
    SURE,
    How,
    draws,
    how,
    interval_of,
    latency_at,
    top1_at,
)
from ofa_deploy.report.series import LATENCY, TOP1, Point, Series, check_budgets, staircase
from ofa_deploy.terminal import UNKNOWN, TextTable, metric, milliseconds, percent

__all__ = ["Comparison", "FrontFigures", "Gain", "Offer", "compare"]

GRID = 5
_HOW: Mapping[How, str] = {
    "spread": "networks moved within their own intervals, each by itself",
    "networks": "networks drawn anew with replacement, since their spread is not known",
}

Points = Mapping[str, Sequence[Point]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrontFigures:
    """What is said of one front.

    Attributes:
        name: the series' name.
        points: number of candidates.
        hypervolume: ms times percent, between the front and the reference point.
        dominated_by: for each other front, the share (0 to 1) of this one's points that some point
            of the other beats.
        covered_by: the same, of points that the other beats or equals.
    """

    name: str
    points: int
    hypervolume: float
    dominated_by: Mapping[str, float]
    covered_by: Mapping[str, float]


@dataclass(frozen=True)
class Gain:
    """A difference to the first front, with its interval where one can be told.

    Attributes:
        value: percentage points of top-1, or percent of latency.
        low, high: the interval of ``SURE`` of the draws.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        ends = "" if self.low is None else f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.value:+.2f}{ends}"


@dataclass(frozen=True)
class Offer:
    """What each front offers at one value of the other axis.

    Attributes:
        at: the latency in ms, or the top-1 in percent.
        value: for each front, its best top-1 within that latency, or its least ms that reaches that
            top-1; None if it has nothing there.
        gain: for each front but the first, against the first: percentage points, or percent of
            latency (negative is faster); None where either has nothing.
    """

    at: float
    value: Mapping[str, float | None]
    gain: Mapping[str, Gain | None]


@dataclass(frozen=True)
class Comparison:
    """Fronts of one device compared; the first one is the base of every gain.

    Attributes:
        panel: the device; empty if unknown.
        reference: the point that hypervolumes reach to: worst latency (ms) and top-1 (percent).
        at_latency: the best top-1 at equal latencies.
        at_accuracy: the least latency at equal top-1.
        drawn: for each front but the first, what its intervals drew anew.
    """

    panel: str
    reference: Mapping[str, float]
    fronts: tuple[FrontFigures, ...]
    at_latency: tuple[Offer, ...]
    at_accuracy: tuple[Offer, ...]
    drawn: Mapping[str, How]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)

    def tables(self) -> tuple[TextTable, ...]:
        """The figures, and the gains if there are two fronts or more, for terminal and page."""
        if len(self.fronts) < 2:
            return (self._figures(),)
        base = self.fronts[0].name
        at_latency = self._gains(
            "Top-1 at equal latency",
            ("Within ms", "%"),
            (self.at_latency, milliseconds, percent),
            f"In brackets: percentage points over {base}",
        )
        at_accuracy = self._gains(
            "Latency at equal top-1",
            ("At least %", "ms"),
            (self.at_accuracy, percent, milliseconds),
            f"In brackets: percent of the latency of {base}, negative is faster",
        )
        return (self._figures(), at_latency, at_accuracy)

    def _figures(self) -> TextTable:
        names = [front.name for front in self.fronts]
        others = names if len(names) > 1 else []
        point = ", ".join(f"{name} {metric(name, value)}" for name, value in self.reference.items())
        columns = [f"{verb} by {name}" for name in others for verb in ("Beaten", "Covered")]
        return TextTable(
            title=self._titled("Fronts"),
            headers=("Front", "Points", "Hypervolume (ms·%)", *columns),
            numeric=(False, *[True] * (2 + len(columns))),
            rows=tuple(
                (
                    front.name,
                    str(front.points),
                    milliseconds(front.hypervolume),
                    *(
                        _share(shares.get(name))
                        for name in others
                        for shares in (front.dominated_by, front.covered_by)
                    ),
                )
                for front in self.fronts
            ),
            note=f"Hypervolume up to {point}. Beaten: share of the front's points that a point of "
            "the other is better than. Covered: better than, or equal to.",
        )

    def _gains(
        self,
        title: str,
        units: tuple[str, str],
        offered: tuple[Sequence[Offer], Callable[[float], str], Callable[[float | None], str]],
        note: str,
    ) -> TextTable:
        base, *others = (front.name for front in self.fronts)
        offers, at, value = offered
        rows = tuple(
            (
                at(offer.at),
                value(offer.value[base]),
                *(_gained(value(offer.value[name]), offer.gain[name]) for name in others),
            )
            for offer in offers
        )
        ways = "; ".join(dict.fromkeys(_HOW[self.drawn[name]] for name in others))
        return TextTable(
            title=self._titled(title),
            headers=(units[0], *(f"{name} {units[1]}" for name in (base, *others))),
            numeric=(True,) * (1 + len(self.fronts)),
            rows=rows,
            note=f"{note}, with the {SURE:.0%} interval of {DRAWS} draws ({ways}).",
        )

    def _titled(self, title: str) -> str:
        return f"{title} on {self.panel}" if self.panel else title


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.0f} %"


def _gained(said: str, gain: Gain | None) -> str:
    return said if gain is None else f"{said} ({gain})"


def compare(
    series_list: Sequence[Series],
    reference: Mapping[str, float] | None = None,
    *,
    budgets: Sequence[float] = (),
    seed: int = 0,
) -> Comparison:
    """Hold the fronts of one device against each other.

    Args:
        reference: the point that hypervolumes reach to, ``{"latency": ms, "top1": percent}``; the
            worst latency and the worst top-1 over all fronts if not given.
        budgets: latencies (ms) at which to compare; if none, those that the fronts were searched
            under, or else even steps over the latencies that all fronts span.
        seed: of the draws behind the intervals.

    Raises:
        InputError: if there is no series, two have one name, or the reference is not two numbers.
        MismatchError: if the fronts are of several devices.
        UnknownNameError: if a candidate lacks a metric, or the reference names another.
    """
    check_budgets(budgets)
    panels = panels_of(series_list)
    if len(panels) > 1:
        found = ", ".join(repr(panel.name) for panel in panels)
        raise MismatchError(
            f"expected fronts of one device, found {found}: latencies of two devices do not "
            "dominate each other; compare each device's fronts by themselves"
        )
    fronts = {series.name: series.points() for series in series_list}
    point = _reference(fronts, reference)
    figures = tuple(_figures_of(name, fronts, point) for name in fronts)
    base, *others = fronts
    drawn = {name: how(fronts[base], fronts[name]) for name in others}
    latencies = sorted(budgets) or panels[0].budgets or _grid(fronts, "x")
    return Comparison(
        panels[0].name,
        point,
        figures,
        _offers(fronts, latencies, drawn, (top1_at, _points_more), seed),
        _offers(fronts, _grid(fronts, "y"), drawn, (latency_at, _percent_more), seed),
        drawn,
    )


def _reference(fronts: Points, given: Mapping[str, float] | None) -> dict[str, float]:
    if given is None:
        everyone = [point for points in fronts.values() for point in points]
        return {
            LATENCY: max(point.x for point in everyone),
            TOP1: min(point.y for point in everyone),
        }
    for name in given:
        if name not in (LATENCY, TOP1):
            raise UnknownNameError("metric of the reference point", name, (LATENCY, TOP1))
    for name in (LATENCY, TOP1):
        if not isfinite(given.get(name, float("nan"))):
            raise InputError(
                f"reference point {dict(given)}: expected a number for {LATENCY} and for {TOP1}"
            )
    return {name: float(given[name]) for name in (LATENCY, TOP1)}


def _figures_of(name: str, fronts: Points, reference: Mapping[str, float]) -> FrontFigures:
    points = fronts[name]
    others = {other: fronts[other] for other in fronts if other != name}
    return FrontFigures(
        name,
        points=len(points),
        hypervolume=_hypervolume(points, reference[LATENCY], reference[TOP1]),
        dominated_by={other: _beaten(points, by) for other, by in others.items()},
        covered_by={other: _beaten(points, by, equal=True) for other, by in others.items()},
    )


def _hypervolume(points: Sequence[Point], latency: float, top1: float) -> float:
    import moocore

    values = np.array([(point.x, point.y) for point in points], dtype=np.float64)
    return float(moocore.hypervolume(values, ref=[latency, top1], maximise=[False, True]))


def _beaten(points: Sequence[Point], other: Sequence[Point], *, equal: bool = False) -> float:
    """The share of points that the best one of ``other`` within their latency beats."""
    x, y = _arrays(staircase(other))
    own_x, own_y = _arrays(points)
    best = np.searchsorted(x, own_x, side="right") - 1
    there = best >= 0
    best = np.maximum(best, 0)
    better = (y[best] > own_y) | ((y[best] == own_y) & ((x[best] < own_x) | equal))
    return float(np.mean(there & better))


def _arrays(points: Sequence[Point]) -> tuple[Floats, Floats]:
    return np.array([p.x for p in points]), np.array([p.y for p in points])


def _grid(fronts: Points, axis: str) -> list[float]:
    """Even steps from where every front has begun to where the first one ends."""
    values = [[getattr(p, axis) for p in staircase(points)] for points in fronts.values()]
    low, high = max(each[0] for each in values), min(each[-1] for each in values)
    if axis == "y" and high <= low:
        return [min(high, low)]  # the accuracy that all fronts reach
    return [low] if high <= low else [float(at) for at in np.linspace(low, high, GRID)]


def _points_more(value: Any, base: Any) -> Any:
    return value - base


def _percent_more(value: Any, base: Any) -> Any:
    return 100 * (value / base - 1)


def _offers(
    fronts: Points,
    grid: Sequence[float],
    drawn: Mapping[str, How],
    measure: tuple[Callable[[Floats, Floats, float], Floats], Callable[[Any, Any], Any]],
    seed: int,
) -> tuple[Offer, ...]:
    best, difference = measure
    at = {n: [float(best(*_arrays(points), g)) for g in grid] for n, points in fronts.items()}
    base, *others = fronts

    def sampled(name: str, way: How, index: int) -> list[Floats]:
        parts = [[best(*xy, g) for g in grid] for xy in draws(fronts[name], way, seed + index)]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    gains: dict[str, list[Gain | None]] = {}
    bases = {way: sampled(base, way, 0) for way in set(drawn.values())}
    for index, name in enumerate(others, start=1):
        of_draws = zip(sampled(name, drawn[name], index), bases[drawn[name]], strict=True)
        ranges = [interval_of(_differences(difference, *pair)) for pair in of_draws]
        pairs = zip(at[name], at[base], ranges, strict=True)
        gains[name] = [_gain(value, other, ends, difference) for value, other, ends in pairs]
    return tuple(
        Offer(
            g,
            {name: values[i] if isfinite(values[i]) else None for name, values in at.items()},
            {name: gains[name][i] for name in others},
        )
        for i, g in enumerate(grid)
    )


def _differences(difference: Callable[[Any, Any], Any], values: Floats, bases: Floats) -> Floats:
    """The difference in each draw; NaN where either front had nothing there."""
    there = np.isfinite(values) & np.isfinite(bases)
    made = np.full(len(values), np.nan)
    made[there] = difference(values[there], bases[there])
    return made


def _gain(
    value: float,
    base: float,
    ends: tuple[float, float] | None,
    difference: Callable[[float, float], float],
) -> Gain | None:
    if not (isfinite(value) and isfinite(base)):
        return None
    return Gain(difference(value, base), *(ends or (None, None)))
