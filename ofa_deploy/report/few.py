"""Which networks stand for a front: the best within each budget, and a few from end to end."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache

from ofa_deploy.errors import ConstraintError
from ofa_deploy.pareto import Candidate
from ofa_deploy.report.series import TOP1, Series
from ofa_deploy.search import Constraint, parse_constraint

__all__ = ["MOST", "best_places", "few_places"]

MOST = 12  # networks of a front that a terminal shows


def best_places(series: Series) -> set[int]:
    """Where in a front the most accurate network stands that keeps its limits, for each budget.

    In a measured series it is one whose accuracy was measured, if any was. A limit that is of no
    metric of the network, or that does not parse, is taken to be kept.
    """
    proven = series.kind == "measured" and any(TOP1 in each.measured for each in series.front)
    best: dict[str, tuple[float, int]] = {}
    for place, candidate in enumerate(series.front):
        top1 = (candidate.measured if proven else candidate.predicted).get(TOP1)
        if top1 is None or not _keeps_its_limits(series, candidate):
            continue
        if candidate.budget not in best or top1 > best[candidate.budget][0]:
            best[candidate.budget] = top1, place
    return {place for _, place in best.values()}


def few_places(count: int, kept: Collection[int], most: int = MOST) -> list[int]:
    """At most so many of ``count`` places: both ends, those to keep, and others evenly between.

    Of more places to keep than that, some evenly.
    """
    if count <= most:
        return list(range(count))
    if len(kept) > most:
        ordered = sorted(kept)
        return [ordered[i] for i in _spread(len(ordered), most)]
    for steps in range(most, 1, -1):
        found = {*kept, *_spread(count, steps)}
        if len(found) <= most:
            return sorted(found)
    return sorted(kept)


def _spread(count: int, steps: int) -> Iterator[int]:
    return (round(i * (count - 1) / (steps - 1)) for i in range(steps))


def _value(series: Series, candidate: Candidate, metric: str) -> float | None:
    measured = candidate.measured if series.kind == "measured" else {}
    return measured.get(metric, candidate.predicted.get(metric))


def _keeps_its_limits(series: Series, candidate: Candidate) -> bool:
    for limit in _limits(candidate.budget):
        value = _value(series, candidate, limit.metric)
        if value is not None and not limit.met_by(value):
            return False
    return True


@lru_cache  # thousands of networks have one budget
def _limits(budget: str) -> tuple[Constraint, ...]:
    """Of the constraints that a candidate was searched under, those on metrics."""
    found = []
    for text in budget.split(", "):
        with suppress(ConstraintError):
            if isinstance(limit := parse_constraint(text), Constraint):
                found.append(limit)
    return tuple(found)
