"""``Series``: one front as it is drawn and compared, and its candidates as points of the plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.pareto import Candidate, ParetoFront

__all__ = ["LATENCY", "TOP1", "Kind", "Point", "Series", "check", "known", "staircase", "top1_at"]

LATENCY = "latency"
TOP1 = "top1"

Kind = Literal["predicted", "measured"]


@dataclass(frozen=True)
class Point:
    """A candidate in the plane of latency and accuracy.

    Attributes:
        x: latency in ms.
        y: top-1 in percent.
        x_range: lower and upper end of the interval around ``x``; both ``x`` where there is none.
        y_range: the same for ``y``.
        measured: whether both coordinates were measured.
    """

    candidate: Candidate
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    measured: bool


@dataclass(frozen=True)
class Series:
    """A front under the name by which a reader knows it.

    Series of one label belong together: they share colour and marker, and one row a network in
    tables.

    Attributes:
        label: what the front is of, such as a device or a method.
        kind: which values to show. ``"predicted"`` shows predictions even where measurements
            exist; ``"measured"`` shows measurements, and a prediction where there is none.

    Raises:
        InputError: if the front is empty.
        UnknownNameError: if ``kind`` is neither.
    """

    label: str
    front: ParetoFront
    kind: Kind

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of series", self.kind, get_args(Kind))
        if not len(self.front):
            raise InputError(
                f"front {self.label!r} is empty: expected at least one candidate; "
                "search again under a larger budget"
            )

    @property
    def name(self) -> str:
        """The label with the kind, which tells the series of a report apart."""
        return f"{self.label} ({self.kind})"

    def points(self, latency: str = LATENCY) -> tuple[Point, ...]:
        """The candidates as points, by rising latency; of equal latency the most accurate first.

        Args:
            latency: the metric of the x axis, ``latency`` or ``latency[device]``.

        Raises:
            UnknownNameError: if a candidate lacks ``latency`` or ``top1``.
            InputError: if a value is not finite.
        """
        made = [self._point(candidate, latency) for candidate in self.front]
        return tuple(sorted(made, key=lambda point: (point.x, -point.y)))

    def _point(self, candidate: Candidate, latency: str) -> Point:
        x, x_range, x_measured = self._coordinate(candidate, latency)
        y, y_range, y_measured = self._coordinate(candidate, TOP1)
        return Point(candidate, x, y, x_range, y_range, x_measured and y_measured)

    def _coordinate(
        self, candidate: Candidate, metric: str
    ) -> tuple[float, tuple[float, float], bool]:
        measured = self.kind == "measured" and metric in candidate.measured
        values = candidate.measured if measured else candidate.predicted
        if metric not in values:
            raise UnknownNameError(f"{self.kind} metric", metric, values, hint=f"in {self.label!r}")
        value = values[metric]
        ends = (value, value) if measured else candidate.intervals.get(metric, (value, value))
        if not all(map(isfinite, (value, *ends))):
            raise InputError(f"front {self.label!r}: {metric} of {candidate.arch} is not finite")
        return value, (min(ends[0], value), max(ends[1], value)), measured


def check(series_list: Sequence[Series], budgets: Sequence[float] = ()) -> None:
    """Refuse what cannot be reported.

    Raises:
        InputError: if there is no series, two have one name, or a budget is not a positive number.
    """
    if not series_list:
        raise InputError("nothing to report: expected at least one front, found none")
    names = [series.name for series in series_list]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two fronts are named {name!r}; give each a label of its own")
    for budget in budgets:
        if not (isfinite(budget) and budget > 0):
            raise InputError(f"latency budget {budget!r}: expected a positive number of ms")


def known(candidate: Candidate, metric: str) -> float | None:
    """The measured or else predicted value, or None where there is neither."""
    return candidate.measured.get(metric, candidate.predicted.get(metric))


def staircase(points: Sequence[Point]) -> list[Point]:
    """The points that improve on every faster one, by rising latency and accuracy."""
    steps: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not steps or point.y > steps[-1].y:
            steps.append(point)
    return steps


def top1_at(points: Sequence[Point], latency: float) -> float | None:
    """The best top-1 (percent) within ``latency`` ms, or None if no point is that fast."""
    return max((point.y for point in points if point.x <= latency), default=None)
