"""``Series``: one front as it is drawn and compared, and its candidates as points of the plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Literal, get_args

from ofa_deploy.data import share_interval
from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.space import Arch, SearchSpace

if TYPE_CHECKING:
    from ofa_deploy.hardware import Conditions, LatencyTable

__all__ = [
    "LATENCY",
    "TOP1",
    "Context",
    "Kind",
    "Point",
    "Series",
    "check",
    "check_budgets",
    "known",
    "one_a_label",
    "staircase",
    "top1_range",
]

LATENCY = "latency"
TOP1 = "top1"
_SPREAD = ".spread"

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
class Context:
    """Where a front comes from, as far as it is known.

    Attributes:
        conditions: what its latencies were measured, or predicted, for.
        device: the device's id, where no conditions are known.
        space: the space of its archs, so that they can be drawn.
        table: latencies of the space's blocks under these conditions.
        run: the run folder that its networks are exported from, as a path.
        subnets: files of subnets that were kept, as paths.
        target: what its networks are exported to, where that is not ONNX in float32.
        budgets: latencies in ms that were asked for, drawn as dashed lines.
    """

    conditions: "Conditions | None" = None
    device: str = ""
    space: SearchSpace | None = None
    table: "LatencyTable | None" = None
    run: str = ""
    subnets: Mapping[Arch, str] = field(default_factory=dict)
    target: str = ""
    budgets: tuple[float, ...] = ()

    @property
    def panel(self) -> str:
        """The device, in what decides whether latencies can stand on one axis; empty if unknown."""
        conditions = self.conditions
        if conditions is None:
            return self.device
        batch = f"batch {conditions.batch}" if conditions.batch > 1 else ""
        parts = (conditions.device, conditions.processor, conditions.power_mode, batch)
        return " · ".join(filter(None, parts))

    @property
    def form(self) -> str:
        """How networks are run: runtime, precision, and threads if several; empty if unknown."""
        conditions = self.conditions
        if conditions is None:
            return ""
        threads = f" {conditions.threads} threads" if conditions.threads > 1 else ""
        return f"{conditions.runtime} {conditions.precision}{threads}"

    @property
    def engine(self) -> tuple[str, str]:
        """Runtime and precision; where they are not known, those that all runs have top-1 of."""
        conditions = self.conditions
        return (conditions.runtime, conditions.precision) if conditions else ("onnxruntime", "fp32")


@dataclass(frozen=True)
class Series:
    """A front under the name by which a reader knows it.

    Series of one label belong together: they share colour and marker, and one row a network in
    tables.

    Attributes:
        label: what the front is of, such as a device or a method.
        kind: which values to show. ``"predicted"`` shows predictions even where measurements
            exist; ``"measured"`` shows measurements, and a prediction where there is none.
        latency: the metric of the time axis, ``latency`` or ``latency[device]``.
        context: where it comes from.

    Raises:
        InputError: if the front is empty.
        UnknownNameError: if ``kind`` is neither.
    """

    label: str
    front: ParetoFront
    kind: Kind
    latency: str = LATENCY
    context: Context = Context()

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
        """The label with the kind, which tells the series of a panel apart."""
        return f"{self.label} ({self.kind})"

    @property
    def panel(self) -> str:
        """The device whose latencies these are; see ``Context.panel``."""
        return self.context.panel

    def points(self) -> tuple[Point, ...]:
        """The candidates as points, by rising latency; of equal latency the most accurate first.

        Raises:
            UnknownNameError: if a candidate lacks ``latency`` or ``top1``.
            InputError: if a value is not finite.
        """
        made = [self._point(candidate) for candidate in self.front]
        return tuple(sorted(made, key=lambda point: (point.x, -point.y)))

    def _point(self, candidate: Candidate) -> Point:
        x, x_range, x_measured = self._coordinate(candidate, self.latency)
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
        ends = _measured_range(candidate, metric) if measured else candidate.intervals.get(metric)
        low, high = ends or (value, value)
        if metric == TOP1:  # models know no bounds
            low, high = max(low, 0.0), min(high, 100.0)
        if not all(map(isfinite, (value, low, high))):
            raise InputError(f"front {self.label!r}: {metric} of {candidate.arch} is not finite")
        return value, (min(low, value), max(high, value)), measured


def _measured_range(candidate: Candidate, metric: str) -> tuple[float, float] | None:
    """What a measurement leaves open; None if that is not recorded.

    Of latency, what the measuring processes spanned, taken as even on both sides.
    """
    if metric == TOP1:
        return top1_range(candidate.measured)
    spread = candidate.measured.get(f"{metric}{_SPREAD}")
    if spread is None:
        return None
    value = candidate.measured[metric]
    return value * (1 - spread / 2), value * (1 + spread / 2)


def top1_range(measured: Mapping[str, float]) -> tuple[float, float] | None:
    """The 90 % interval of a measured top-1, in percent; None where the images are not counted."""
    images = measured.get(f"{TOP1}.images", 0)
    if TOP1 not in measured or images < 1:
        return None
    return share_interval(measured[TOP1], int(images))


def check(series_list: Sequence[Series]) -> None:
    """Refuse what cannot be reported.

    Raises:
        InputError: if there is no series, two of a panel have one name, or a budget is not a
            positive number.
    """
    if not series_list:
        raise InputError("nothing to report: expected at least one front, found none")
    seen: set[tuple[str, str]] = set()
    for series in series_list:
        if (series.panel, series.name) in seen:
            raise InputError(f"two fronts are named {series.name!r}; give each a label of its own")
        seen.add((series.panel, series.name))
        check_budgets(series.context.budgets)


def check_budgets(budgets: Sequence[float]) -> None:
    """Refuse a latency budget that is not a positive number of ms.

    Raises:
        InputError: naming it.
    """
    for budget in budgets:
        if not (isfinite(budget) and budget > 0):
            raise InputError(f"latency budget {budget!r}: expected a positive number of ms")


def known(candidate: Candidate, metric: str) -> float | None:
    """The measured or else predicted value, or None where there is neither."""
    return candidate.measured.get(metric, candidate.predicted.get(metric))


def one_a_label(series_list: Sequence[Series]) -> list[Series]:
    """For each label its measured series, or else its predicted one."""
    chosen: dict[str, Series] = {}
    for series in series_list:
        if series.label not in chosen or series.kind == "measured":
            chosen[series.label] = series
    return list(chosen.values())


def staircase(points: Sequence[Point]) -> list[Point]:
    """The points that improve on every faster one, by rising latency and accuracy."""
    steps: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not steps or point.y > steps[-1].y:
            steps.append(point)
    return steps
