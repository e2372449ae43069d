"""Evolutionary search over int8 populations, in the manner of NSGA-II (Deb et al. 2002).

It starts from what climbs find (``Climber``) and, where a whole front is wanted, from ascents along
it (``Ascender``). A generation is a handful of array operations.
Feasible networks come before infeasible ones, those by how little they miss; feasible ones by
Pareto rank, then by how alone they stand. Every feasible non-dominated network ever seen is kept.
At the end the most accurate one is improved by trying all single and pair changes of its genes
until none helps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InfeasibleError, InputError
from ofa_deploy.pareto import ParetoFront
from ofa_deploy.search.ascent import Ascender, Known
from ofa_deploy.search.climb import Climber, Price
from ofa_deploy.search.constraints import Constraint, GeneConstraint
from ofa_deploy.search.domain import Domain, first_of_each, unique
from ofa_deploy.search.polish import worth_trying
from ofa_deploy.search.problem import Bounded, Metric, Problem
from ofa_deploy.space import Population, SearchSpace

__all__ = ["search"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_TO_COME_NEAR = 20  # generations to find the nearest network when none can be feasible
_STARTS = 5
_ABOVE = 1.15  # a climb also starts from what costs so much more than its limit


def search(
    space: SearchSpace,
    *,
    accuracy: Metric,
    latency: "Metric | Mapping[str, Metric] | None" = None,
    metrics: Mapping[str, Metric] | None = None,
    constraints: "str | Sequence[str | Constraint | GeneConstraint]" = (),
    objectives: Mapping[str, str] | None = None,
    seed: int = 0,
    population: int = 200,
    generations: int | None = None,
    climbs: int | None = None,
    ascents: int | None = None,
) -> ParetoFront:
    """Find the networks worth choosing under the constraints.

    Args:
        accuracy: predicts top-1 in percent.
        latency: predicts ms; or a mapping from device id, for metrics ``latency[device]``.
        metrics: further models by name, such as ``latency.p99`` or ``energy``.
        constraints: such as ``"latency <= 8 ms"`` or ``"resolution in 160,192"``; where a model has
            an interval, its unfavourable end must keep the limit. A latency of no named device
            holds on all of them.
        objectives: metric to ``"max"`` or ``"min"``, all of whose front is wanted. When not given,
            the most accurate network is, and of top-1 against latency what is met on the way. A
            latency of no named device is one objective a device.
        seed: the same seed gives the same answer.
        population, generations: of the evolution; 15 generations for two objectives, and 60 for
            more, if not given.
        climbs: towards the most accurate network, each from a start of its own; 3 if not given.
            Of a wanted front 1, and as many passes along it.
        ascents: generations of networks between those of the front that are led uphill; 32 if a
            front is wanted, else none, if not given.

    Returns:
        The front, all of it predicted to meet the constraints. ``front.best("top1")`` is the most
        accurate one.

    Raises:
        InfeasibleError: if nothing meets the constraints, with what can be reached and the network
            that comes nearest.
    """
    problem = Problem.build(
        space,
        accuracy=accuracy,
        latency=latency,
        metrics=metrics,
        constraints=[constraints] if isinstance(constraints, str) else constraints,
        objectives=objectives,
    )
    if generations is None:
        generations = 15 if len(problem.objectives) <= 2 else 60
    if climbs is None:
        climbs = 3 if objectives is None else 1
    if ascents is None:
        ascents = 0 if objectives is None else 32
    if population < 4 or generations < 1 or min(climbs, ascents) < 0:
        raise InputError(
            "expected a population of at least 4, 1 generation, and no negative climbs or ascents"
        )
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more, found {seed}")
    rng = np.random.default_rng([seed, 0x5EA2C4])
    archive = _Archive(problem)
    try:
        problem.check_reachable()
        _climb(problem, archive, rng, climbs, _ON_THE_WAY if objectives is None else _WHOLE)
        _ascend(problem, archive, rng, ascents)
    except InfeasibleError:
        generations = min(generations, _TO_COME_NEAR)
    first = _first_generation(problem.domain, archive.front, rng, population)
    parents = archive.scored(first).best(population)
    for _ in range(generations):
        children = archive.scored(_offspring(problem.domain, parents.rows, rng))
        parents = parents.with_others(children).best(population)
    if not len(archive.front):
        raise problem.infeasible(problem.candidates(parents.rows[:1])[0], archive.seen)
    archive.polish()
    return ParetoFront.of(problem.candidates(archive.front), problem.objectives)


@dataclass(frozen=True)
class _Along:
    """How a front is gone along.

    Attributes:
        points: a pass.
        rounds: of the climb at each.
        climbs: to the front's end for each pass.
    """

    points: int
    rounds: int
    climbs: int


_ON_THE_WAY = _Along(points=4, rounds=2, climbs=3)
_WHOLE = _Along(points=24, rounds=1, climbs=1)


def _climb(
    problem: Problem, archive: "_Archive", rng: np.random.Generator, climbs: int, along: _Along
) -> None:
    """Climb to the budget some times, then go along the front and climb a little everywhere.

    Accuracy models have many local optima. What was found at one budget is carried to the next,
    upwards and downwards in turn.
    """
    price = Price.of(problem)
    if price is None:
        return
    climber = Climber(problem, price, archive.judged)
    for _ in range(climbs):
        climber.climb(price.limit, rng)
    if "min" not in problem.objectives.values():
        return
    limits = np.geomspace(max(price.least, 1e-12), price.limit, along.points + 2)[1:-1]
    for number in range(climbs // along.climbs):
        for limit in limits[:: -1 if number % 2 else 1]:
            spent = price.model.predict(archive.front)
            starts = [archive.most_accurate(spent <= share * limit) for share in (1, _ABOVE)]
            start = np.concatenate(starts)
            climber.climb(limit, rng, rounds=along.rounds, start=start if len(start) else None)


def _ascend(problem: Problem, archive: "_Archive", rng: np.random.Generator, times: int) -> None:
    """Lead children of the front uphill, so many generations of them."""
    price = Price.of(problem)
    if price is None:
        return
    ascender = Ascender(problem.domain, price.model, archive.judged)
    for _ in range(times if len(archive.front) else 0):
        spent = np.maximum(price.model.predict(archive.front), 1e-12)
        known = Known(archive.front, archive.top1, spent)
        ascender.ascend(known, float(spent.min()), max(price.limit, float(spent.max())), rng)


def _first_generation(
    domain: Domain, front: Population, rng: np.random.Generator, n: int
) -> Population:
    return unique(np.concatenate([front, domain.extremes(), domain.sample(rng, n)]))


def _offspring(domain: Domain, parents: Population, rng: np.random.Generator) -> Population:
    """As many children as parents; the better of two is chosen, then crossed, then mutated."""
    n = len(parents)
    # Survivors are sorted from best to worst, so the smaller of two indices wins the tournament.
    mothers, fathers = rng.integers(0, n, size=(2, 2, n)).min(axis=1)
    children = domain.space.crossover(parents[mothers], parents[fathers], rng)
    return domain.mutate(children, rng, rate=1.5 / len(domain.space.genes))


@dataclass(frozen=True)
class _Scored:
    """Rows with what they cost, to be minimised, and by how much they miss the constraints."""

    rows: Population
    costs: Floats
    violation: Floats

    def with_others(self, others: "_Scored") -> "_Scored":
        """Both, equal rows once."""
        rows = np.concatenate([self.rows, others.rows])
        costs = np.concatenate([self.costs, others.costs])
        violation = np.concatenate([self.violation, others.violation])
        return _Scored(rows, costs, violation)[first_of_each(rows)]

    def best(self, n: int) -> "_Scored":
        """The best ``n``, best first."""
        return self[_order(self.costs, self.violation)[:n]]

    def __getitem__(self, index: Indices | npt.NDArray[np.bool_]) -> "_Scored":
        return _Scored(self.rows[index], self.costs[index], self.violation[index])


class _Archive:
    """Every feasible non-dominated row seen so far.

    Attributes:
        seen: (least, greatest) of what limits are held against, of metrics without bounds.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.seen: dict[str, tuple[float, float]] = {}
        self.front: Population = np.empty((0, len(problem.space.genes)), np.int8)
        self._costs: Floats = np.empty((0, len(problem.objectives)))

    def scored(self, population: Population) -> _Scored:
        """Score rows, and remember the good ones."""
        misses = self.problem.misses(population)
        violation = self.problem.summed(misses, len(population))
        found = _Scored(population, self.problem.costs(population), violation)
        self._look(misses)
        feasible = found.violation == 0
        self.add(population[feasible], found.costs[feasible])
        return found

    def _look(self, misses: Sequence[Floats]) -> None:
        """Widen what was seen; a limit and by how much it is missed tell the value."""
        for constraint, missed in zip(self.problem.constraints, misses, strict=True):
            if isinstance(self.problem.metrics[constraint.metric], Bounded) or not len(missed):
                continue
            excess = missed if constraint.upper else -missed
            ends = constraint.limit * (1 + excess.min()), constraint.limit * (1 + excess.max())
            known = self.seen.get(constraint.metric, ends)
            self.seen[constraint.metric] = min(known[0], *ends), max(known[1], *ends)

    def judged(self, population: Population) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Score rows: their top-1 in percent, and whether they meet the constraints."""
        found = self.scored(population)
        return self._sign * found.costs[:, self._top1], found.violation == 0

    @property
    def top1(self) -> Floats:
        """Of the front, in percent."""
        return self._sign * self._costs[:, self._top1]

    @property
    def _sign(self) -> int:
        return -1 if self.problem.objectives["top1"] == "max" else 1

    @property
    def _top1(self) -> int:
        return list(self.problem.objectives).index("top1")

    def most_accurate(self, among: npt.NDArray[np.bool_]) -> Population:
        """The most accurate few of some of the front."""
        order = np.argsort(self._costs[among, self._top1], kind="stable")[:_STARTS]
        return self.front[among][order]

    def add(self, rows: Population, costs: Floats) -> None:
        """Merge feasible rows into the front."""
        import moocore

        if not len(rows):
            return
        rows, costs = np.concatenate([self.front, rows]), np.concatenate([self._costs, costs])
        keep = moocore.is_nondominated(costs)
        self.front, self._costs = rows[keep], costs[keep]

    def polish(self) -> None:
        """Climb from the most accurate network by what is worth trying around it."""
        while True:
            best = self._costs[:, self._top1].min()
            row = self.front[self._costs[:, self._top1].argmin()]
            near = worth_trying(self.problem, row)
            near = near[self.problem.violation(near) == 0]
            if not len(near):
                return
            self.add(near, self.problem.costs(near))
            if not self._costs[:, self._top1].min() < best:
                return


def _order(costs: Floats, violation: Floats) -> Indices:
    """Row indices, best first."""
    import moocore

    rank = np.zeros(len(costs))
    crowding = np.zeros(len(costs))
    feasible = violation == 0
    if feasible.any():
        rank[feasible] = moocore.pareto_rank(costs[feasible])
        crowding[feasible] = _crowding(costs[feasible], rank[feasible])
    return np.lexsort((-crowding, rank, violation))


def _crowding(costs: Floats, rank: Floats) -> Floats:
    """Distance to the neighbours of the same rank, summed over objectives; infinite at the ends."""
    distance = np.zeros(len(costs))
    span = np.maximum(np.ptp(costs, axis=0), 1e-12)
    for column in range(costs.shape[1]):
        order = np.lexsort((costs[:, column], rank))
        values, ranks = costs[order, column] / span[column], rank[order]
        gaps = np.full(len(order), np.inf)
        inner = (ranks[2:] == ranks[1:-1]) & (ranks[1:-1] == ranks[:-2])
        gaps[1:-1][inner] = (values[2:] - values[:-2])[inner]
        distance[order] += gaps
    return distance
