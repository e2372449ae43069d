"""From predicted to proven: the best candidates are cut, evaluated and measured.

What is returned has been measured to fit its budget. Predictions of networks that a search picked
are too good on average, since it picks the luckiest errors. So what was measured goes back into the
models and the search is repeated, until nothing is predicted to be better than what is proven.
Where candidates miss all the same, the limit is tightened by as much as was missed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ofa_deploy.errors import InfeasibleError
from ofa_deploy.pareto import Candidate
from ofa_deploy.search.constraints import Constraint, GeneConstraint, parse_constraint
from ofa_deploy.search.evolution import search
from ofa_deploy.search.problem import Metric
from ofa_deploy.space import Arch, SearchSpace

__all__ = ["Examiner", "Learner", "Verified", "best_of", "search_verified"]

Latency = Metric | Mapping[str, Metric]


class Examiner(Protocol):
    """What proves candidates; the search itself never touches torch or a device."""

    def __call__(self, archs: Sequence[Arch]) -> Sequence[Mapping[str, float]]:
        """Measured metrics of each network: at least ``top1`` and every constrained latency."""


class Learner(Protocol):
    """What takes measurements back into the models."""

    def __call__(self, examined: Sequence[Candidate]) -> tuple[Metric, Latency]:
        """Models of accuracy and latency that know what was measured of these networks."""


@dataclass(frozen=True)
class Verified:
    """What the closed loop found.

    Attributes:
        best: the most accurate network that was measured to meet the constraints.
        examined: every candidate that was measured, the rejected ones too.
        stands: whether the models, having learned from all that was measured, predict nothing
            better; else the rounds were over first.
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
    """
    asked = tuple(parse_constraint(c) if isinstance(c, str) else c for c in constraints)
    bounds = [c for c in asked if isinstance(c, Constraint)]
    genes = [c for c in asked if isinstance(c, GeneConstraint)]
    sought: Sequence[Constraint] = bounds
    examined: dict[Arch, Candidate] = {}
    best: Candidate | None = None
    for number in range(rounds):
        try:
            front = search(
                space,
                accuracy=accuracy,
                latency=latency,
                metrics=metrics,
                constraints=[*sought, *genes],
                seed=seed,
            )
        except InfeasibleError:
            if not examined:
                raise
            break  # only what was learned or tightened puts it out of reach
        ranked = sorted(front, key=lambda c: -c.predicted["top1"])
        fresh = [c for c in ranked if c.arch not in examined][:candidates]
        if best is not None and not _promising(fresh, best):
            return Verified(best, tuple(examined.values()))
        text = ", ".join(map(str, asked))
        for candidate, measured in zip(fresh, examine([c.arch for c in fresh]), strict=True):
            proven = replace(candidate, budget=text).with_measured(**measured)
            examined[candidate.arch] = proven
        on_round(number, tuple(examined.values()))
        best = _best(examined.values(), bounds)
        if best is None:
            sought = _tightened(sought, bounds, list(examined.values()))
        elif learn is None:
            return Verified(best, tuple(examined.values()))
        if learn is not None:
            accuracy, latency = learn(list(examined.values()))
    if best is None:
        raise _nothing_stood(bounds, list(examined.values()))
    return Verified(best, tuple(examined.values()), stands=False)


def _promising(fresh: Sequence[Candidate], best: Candidate) -> bool:
    """Whether any network not measured yet is predicted to beat the best that was."""
    return any(c.predicted["top1"] > best.measured["top1"] for c in fresh)


def _best(examined: Iterable[Candidate], asked: Sequence[Constraint]) -> Candidate | None:
    standing = [c for c in examined if _meets(c, asked)]
    return max(standing, key=lambda c: c.measured["top1"], default=None)


def _meets(candidate: Candidate, constraints: Sequence[Constraint]) -> bool:
    return all(c.met_by(candidate.value(c.metric)) for c in constraints)


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
