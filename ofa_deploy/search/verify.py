"""From predicted to proven: the best candidates are cut, evaluated and measured.

What is returned has been measured to fit its budget. Predictions of networks that a search picked
are too good on average, since it picks the luckiest errors; so candidates that miss are set aside
and the search repeated against a limit tightened by as much as was missed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ofa_deploy.errors import InfeasibleError
from ofa_deploy.pareto import Candidate
from ofa_deploy.search.constraints import Constraint, parse_constraint
from ofa_deploy.search.evolution import search
from ofa_deploy.search.problem import Metric
from ofa_deploy.space import Arch, SearchSpace

__all__ = ["Examiner", "Verified", "search_verified"]


class Examiner(Protocol):
    """What proves candidates; the search itself never touches torch or a device."""

    def __call__(self, archs: Sequence[Arch]) -> Sequence[Mapping[str, float]]:
        """Measured metrics of each network: at least ``top1`` and the constrained ``latency``."""


@dataclass(frozen=True)
class Verified:
    """What the closed loop found.

    Attributes:
        best: the most accurate network that was measured to meet the constraints.
        examined: every candidate that was measured, the rejected ones too.
    """

    best: Candidate
    examined: tuple[Candidate, ...]


def search_verified(
    space: SearchSpace,
    examine: Examiner,
    *,
    accuracy: Metric,
    latency: Metric,
    constraints: Sequence[str | Constraint],
    seed: int = 0,
    candidates: int = 4,
    rounds: int = 4,
    on_round: Callable[[int, Sequence[Candidate]], None] = lambda number, examined: None,
) -> Verified:
    """Search, prove the best candidates, and search again until one stands.

    Args:
        examine: cuts, evaluates and measures networks.
        candidates: how many to prove a round.
        rounds: at most so many rounds; each tightens the limits that were missed.

    Raises:
        InfeasibleError: if no candidate of any round was measured to fit.
    """
    asked = tuple(parse_constraint(c) if isinstance(c, str) else c for c in constraints)
    sought = asked
    examined: dict[Arch, Candidate] = {}
    for number in range(rounds):
        try:
            front = search(space, accuracy=accuracy, latency=latency, constraints=sought, seed=seed)
        except InfeasibleError:
            if not examined:
                raise
            break  # only the tightened limits are out of reach
        ranked = sorted(front, key=lambda c: -c.predicted["top1"])
        fresh = [c for c in ranked if c.arch not in examined][:candidates]
        text = ", ".join(map(str, asked))
        for candidate, measured in zip(fresh, examine([c.arch for c in fresh]), strict=True):
            proven = replace(candidate, budget=text).with_measured(**measured)
            examined[candidate.arch] = proven
        on_round(number, tuple(examined.values()))
        standing = [c for c in examined.values() if _meets(c, asked)]
        if standing:
            best = max(standing, key=lambda c: c.measured["top1"])
            return Verified(best, tuple(examined.values()))
        sought = _tightened(sought, asked, list(examined.values()))
    raise _nothing_stood(asked, list(examined.values()))


def _meets(candidate: Candidate, constraints: Sequence[Constraint]) -> bool:
    return all(
        (candidate.value(c.metric) <= c.limit)
        if c.upper
        else (candidate.value(c.metric) >= c.limit)
        for c in constraints
    )


def _tightened(
    sought: Sequence[Constraint], asked: Sequence[Constraint], examined: Sequence[Candidate]
) -> tuple[Constraint, ...]:
    """Lower each missed limit by the least overshoot seen, and one percent more."""
    result = []
    for now, limit in zip(sought, asked, strict=True):
        values = [c.value(limit.metric) for c in examined]
        least = min(values) if limit.upper else max(values)
        overshoot = least / limit.limit if limit.upper else limit.limit / max(least, 1e-9)
        missed = overshoot > 1
        factor = (overshoot * 1.01) if missed else 1.0
        result.append(replace(now, limit=now.limit / factor if now.upper else now.limit * factor))
    return tuple(result)


def _nothing_stood(asked: Sequence[Constraint], examined: Sequence[Candidate]) -> InfeasibleError:
    reachable = {
        c.metric: (
            min(each.value(c.metric) for each in examined),
            max(each.value(c.metric) for each in examined),
        )
        for c in asked
    }
    ranges = "; ".join(f"{k} from {lo:.4g} to {hi:.4g}" for k, (lo, hi) in reachable.items())
    return InfeasibleError(
        f"none of {len(examined)} candidates was measured to meet {', '.join(map(str, asked))}; "
        f"measured: {ranges}; relax the budget",
        reachable,
    )
