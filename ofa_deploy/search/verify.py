"""From predicted to proven: the best candidates are cut, evaluated and measured.

What is returned has been measured to fit its budget. Predictions of networks that a search picked
are too good on average, since it picks the luckiest errors. So what was measured goes back into the
models and the search is repeated, until nothing is predicted to be better than what is proven.
Where candidates miss all the same, the limit is tightened by as much as was missed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from ofa_deploy.errors import InfeasibleError, InputError
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.search.constraints import (
    Constraint,
    GeneConstraint,
    parse_constraint,
    split_metric,
)
from ofa_deploy.search.evolution import search
from ofa_deploy.search.problem import Metric, Problem
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.terminal import span

__all__ = [
    "Examiner",
    "Learner",
    "Verified",
    "best_of",
    "check_provable",
    "search_verified",
]

Latency = Metric | Mapping[str, Metric]
_TO_MEASURE = ("top1", "latency", "energy")  # the arch alone tells what the others are


class Examiner(Protocol):
    """What proves candidates; the search itself never touches torch or a device.

    One that has an attribute ``metrics``, the names of all that it measures, is asked for nothing
    else: a limit on another is refused before the search.
    """

    def __call__(self, archs: Sequence[Arch]) -> Sequence[Mapping[str, float]]:
        """Measured metrics of each network: ``top1``, and every constrained latency and energy.

        Names are those of the models, such as ``latency[device]`` where there are several.
        """


@runtime_checkable
class _Declaring(Protocol):
    @property
    def metrics(self) -> Collection[str]:
        """All that an examiner measures."""


class Learner(Protocol):
    """What takes measurements back into the models."""

    def __call__(
        self, examined: Sequence[Candidate]
    ) -> tuple[Metric, Latency, Mapping[str, Metric]]:
        """Models of accuracy, latency and the other metrics that know what was measured.

        A metric whose model does not learn may be given back as it was: its limit is then kept by
        measuring alone.
        """


@dataclass(frozen=True)
class Verified:
    """What the closed loop found.

    Attributes:
        best: the most accurate network that was measured to meet the constraints.
        examined: every candidate that was measured, the rejected ones too.
        stands: whether the models, having learned from all that was measured, predict nothing
            better under the limits that were asked for; else the rounds were over first.
    """

    best: Candidate
    examined: tuple[Candidate, ...]
    stands: bool = True


def best_of(found: Sequence[Verified]) -> Candidate:
    """The most accurate of several closed loops' answers; of equal ones the first.

    They may be of several precisions or runtimes, each with its own measured accuracy.
    """
    return max((each.best for each in found), key=lambda c: c.measured["top1"])


def search_verified(
    space: SearchSpace,
    examine: Examiner,
    *,
    accuracy: Metric,
    latency: Latency,
    metrics: Mapping[str, Metric] | None = None,
    constraints: Sequence[str | Constraint | GeneConstraint],
    learn: Learner | None = None,
    seed: int = 0,
    candidates: int = 4,
    rounds: int = 4,
    on_round: Callable[[int, Sequence[Candidate]], None] = lambda number, examined: None,
) -> Verified:
    """Search, prove the best candidates, and search again until the answer stands.

    Args:
        examine: cuts, evaluates and measures networks.
        learn: takes measurements back into the models; without it the first round with a network
            that fits is the last.
        candidates: how many to prove a round.
        rounds: at most so many rounds.

    Raises:
        InfeasibleError: if no candidate of any round was measured to fit.
        InputError: if a latency, energy or accuracy is constrained that ``examine`` does not
            measure.
    """
    asked = tuple(parse_constraint(c) if isinstance(c, str) else c for c in constraints)
    problem = Problem.build(
        space, accuracy=accuracy, latency=latency, metrics=metrics, constraints=asked
    )
    bounds = problem.constraints
    if isinstance(examine, _Declaring):
        check_provable(bounds, examine.metrics)

    def find(limits: Sequence[Constraint]) -> ParetoFront:
        models = {"accuracy": accuracy, "latency": latency, "metrics": metrics}
        constraints = [*limits, *problem.domain.constraints]
        return search(space, **models, constraints=constraints, seed=seed)  # type: ignore[arg-type]

    sought = bounds
    examined: dict[Arch, Candidate] = {}
    best: Candidate | None = None
    stands = False
    for number in range(rounds):
        try:
            front = _first_feasible(find, sought, *([] if learn is None else [bounds]))
        except InfeasibleError:
            if not examined:
                raise
            stands = True  # only what was learned or tightened puts it out of reach
            break
        fresh = _fresh(front, examined, candidates)
        if stands := best is not None and not _promising(fresh, best):
            break
        for proven in _examined(examine, fresh, bounds, asked):
            examined[proven.arch] = proven
        on_round(number, tuple(examined.values()))
        best = _best(examined.values(), bounds)
        if stands := best is not None and learn is None:
            break
        # What was learned corrects the models: a limit that stayed lowered would do so once more.
        sought = _tightened(sought, bounds, list(examined.values())) if best is None else bounds
        if learn is not None:
            accuracy, latency, metrics = learn(list(examined.values()))
    if best is None:
        raise _nothing_stood(bounds, list(examined.values()))
    return Verified(best, tuple(examined.values()), stands)


def check_provable(
    constraints: Sequence[Constraint | GeneConstraint], measured: Collection[str]
) -> None:
    """See that every limit on what must be measured can be held against a measurement.

    Args:
        measured: names of the metrics that are.

    Raises:
        InputError: naming the first constraint whose metric is not among them.
    """
    for constraint in constraints:
        if isinstance(constraint, Constraint) and _is_missing(constraint, measured):
            raise InputError(
                f"{constraint.metric} cannot be measured here, so {constraint.text!r} cannot be "
                f"proven (measured: {', '.join(measured)}); leave it out, or search without "
                "proving (--no-verify)"
            )


def _is_missing(constraint: Constraint, measured: Collection[str]) -> bool:
    base = split_metric(constraint.metric)[0]
    return base in _TO_MEASURE and constraint.metric not in measured


def _first_feasible(
    find: Callable[[Sequence[Constraint]], ParetoFront], *limits: Sequence[Constraint]
) -> ParetoFront:
    """The front under the first of some limits that anything is predicted to meet.

    Raises:
        InfeasibleError: that of the last, if nothing meets any of them.
    """
    *others, last = dict.fromkeys(map(tuple, limits))
    for each in others:
        with suppress(InfeasibleError):
            return find(each)
    return find(last)


def _fresh(front: ParetoFront, examined: Collection[Arch], count: int) -> list[Candidate]:
    """The networks that are predicted to be the most accurate, of those not measured yet."""
    ranked = sorted(front, key=lambda c: -c.predicted["top1"])
    return [c for c in ranked if c.arch not in examined][:count]


def _examined(
    examine: Examiner,
    fresh: Sequence[Candidate],
    bounds: Sequence[Constraint],
    asked: Sequence[Constraint | GeneConstraint],
) -> list[Candidate]:
    """Candidates with what was measured of them.

    Raises:
        InputError: if that is not all that the limits are of.
    """
    budget = ", ".join(map(str, asked))
    proven = []
    for candidate, measured in zip(fresh, examine([c.arch for c in fresh]), strict=True):
        check_provable(bounds, measured)
        proven.append(replace(candidate, budget=budget).with_measured(**measured))
    return proven


def _promising(fresh: Sequence[Candidate], best: Candidate) -> bool:
    """Whether any network not measured yet is predicted to beat the best that was."""
    return any(c.predicted["top1"] > best.measured["top1"] for c in fresh)


def _best(examined: Iterable[Candidate], asked: Sequence[Constraint]) -> Candidate | None:
    standing = [c for c in examined if _meets(c, asked)]
    # Of equally accurate ones the fastest: the others are on no front.
    return max(
        standing,
        key=lambda c: (c.measured["top1"], -c.measured.get("latency", 0.0)),
        default=None,
    )


def _meets(candidate: Candidate, constraints: Sequence[Constraint]) -> bool:
    return all(c.met_by(_observed(candidate, c)) for c in constraints)


def _observed(candidate: Candidate, constraint: Constraint) -> float:
    """What a limit is held against: never a prediction of what must be measured."""
    metric = constraint.metric
    if split_metric(metric)[0] in _TO_MEASURE:
        return candidate.measured[metric]
    return candidate.value(metric)


def _tightened(
    sought: Sequence[Constraint], asked: Sequence[Constraint], examined: Sequence[Candidate]
) -> tuple[Constraint, ...]:
    """Lower each missed limit by the least overshoot seen, and one percent more."""
    result = []
    for now, limit in zip(sought, asked, strict=True):
        values = [_observed(c, limit) for c in examined]
        least = min(values) if limit.upper else max(values)
        overshoot = least / limit.limit if limit.upper else limit.limit / max(least, 1e-9)
        missed = overshoot > 1
        factor = (overshoot * 1.01) if missed else 1.0
        result.append(replace(now, limit=now.limit / factor if now.upper else now.limit * factor))
    return tuple(result)


def _nothing_stood(asked: Sequence[Constraint], examined: Sequence[Candidate]) -> InfeasibleError:
    observed = {c.metric: [_observed(each, c) for each in examined] for c in asked}
    reachable = {metric: (min(values), max(values)) for metric, values in observed.items()}
    measured = "; ".join(f"{k} from {span(k, ends)}" for k, ends in reachable.items())
    names = ", ".join(dict.fromkeys(map(str, asked)))
    return InfeasibleError(
        f"none of {len(examined)} candidates was measured to meet {names}; "
        f"measured: {measured}; relax the budget",
        reachable,
    )
