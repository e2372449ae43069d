"""Evolutionary search over int8 populations, in the manner of NSGA-II (Deb et al. 2002).

A generation is a handful of array operations. Feasible networks come before infeasible ones,
those by how little they miss; feasible ones by Pareto rank, then by how alone they stand. Every
feasible non-dominated network ever seen is kept. At the end the most accurate one is improved by
trying all single and pair changes of its genes until none helps.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError
from ofa_deploy.pareto import ParetoFront
from ofa_deploy.search.constraints import Constraint
from ofa_deploy.search.problem import Metric, Problem
from ofa_deploy.space import Population, SearchSpace

__all__ = ["search"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def search(
    space: SearchSpace,
    *,
    accuracy: Metric,
    latency: "Metric | Mapping[str, Metric] | None" = None,
    constraints: Sequence[str | Constraint] = (),
    objectives: Mapping[str, str] | None = None,
    seed: int = 0,
    population: int = 400,
    generations: int = 50,
) -> ParetoFront:
    """Find the networks worth choosing under the constraints.

    Args:
        accuracy: predicts top-1 in percent.
        latency: predicts ms; or a mapping from device id, for metrics ``latency[device]``.
        constraints: such as ``"latency <= 8 ms"``; where a model has an interval, its unfavourable
            end must keep the limit.
        objectives: metric to ``"max"`` or ``"min"``; top-1 against latency when not given.
        seed: the same seed gives the same answer.

    Returns:
        The front, all of it predicted to meet the constraints. ``front.best("top1")`` is the most
        accurate one.

    Raises:
        InfeasibleError: if nothing meets the constraints, with what can be reached.
    """
    if population < 4 or generations < 1:
        raise InputError("expected a population of at least 4 and at least 1 generation")
    problem = Problem.build(
        space,
        accuracy=accuracy,
        latency=latency,
        constraints=constraints,
        objectives=objectives,
    )
    problem.check_reachable()
    rng = np.random.default_rng([seed, 0x5EA2C4])
    archive = _Archive(problem)
    parents = _first_generation(space, rng, population)
    parents = archive.survivors(parents, population)
    for _ in range(generations):
        children = _offspring(space, parents, rng)
        parents = archive.survivors(_unique(np.concatenate([parents, children])), population)
    if not len(archive.front):
        raise problem.infeasible()
    archive.polish()
    return ParetoFront.of(problem.candidates(archive.front), problem.objectives)


def _first_generation(space: SearchSpace, rng: np.random.Generator, n: int) -> Population:
    extremes = space.encode([space.smallest, space.largest])
    return _unique(np.concatenate([extremes, space.sample(rng, n)]))


def _offspring(space: SearchSpace, parents: Population, rng: np.random.Generator) -> Population:
    """As many children as parents; the better of two is chosen, then crossed, then mutated."""
    n = len(parents)
    # Survivors are sorted from best to worst, so the smaller of two indices wins the tournament.
    mothers, fathers = rng.integers(0, n, size=(2, 2, n)).min(axis=1)
    children = space.crossover(parents[mothers], parents[fathers], rng)
    return space.mutate(children, rng, rate=1.5 / len(space.genes))


def _unique(population: Population) -> Population:
    """Distinct rows, in order of first appearance."""
    rows = np.ascontiguousarray(population).view([("", np.int8)] * population.shape[1]).ravel()
    _, first = np.unique(rows, return_index=True)
    return population[np.sort(first)]


class _Archive:
    """Every feasible non-dominated row seen so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.front: Population = np.empty((0, len(problem.space.genes)), np.int8)
        self._costs: Floats = np.empty((0, len(problem.objectives)))

    def survivors(self, population: Population, n: int) -> Population:
        """Score rows, remember the good ones and return the best ``n``, best first."""
        costs = self.problem.costs(population)
        violation = self.problem.violation(population)
        feasible = violation == 0
        self.add(population[feasible], costs[feasible])
        return population[_order(costs, violation)[:n]]

    def add(self, rows: Population, costs: Floats) -> None:
        """Merge feasible rows into the front."""
        import moocore

        if not len(rows):
            return
        rows, costs = np.concatenate([self.front, rows]), np.concatenate([self._costs, costs])
        keep = moocore.is_nondominated(costs)
        self.front, self._costs = rows[keep], costs[keep]

    def polish(self) -> None:
        """Climb from the most accurate network over single and pair changes."""
        top1 = list(self.problem.objectives).index("top1")
        while True:
            best = self._costs[:, top1].min()
            row = self.front[self._costs[:, top1].argmin()]
            near = _neighbours(self.problem.space, row)
            near = near[self.problem.violation(near) == 0]
            self.add(near, self.problem.costs(near))
            if not self._costs[:, top1].min() < best:
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


def _neighbours(space: SearchSpace, row: npt.NDArray[np.int8]) -> Population:
    """All networks one or two genes away; blocks that wake up take their middle choice."""
    awake = np.where(row < 0, (space.num_choices - 1) // 2, row).astype(np.int8)
    changes = [
        (column, choice)
        for column, gene in enumerate(space.genes)
        for choice in range(len(gene.choices))
        if choice != awake[column]
    ]
    singles = [(change,) for change in changes]
    pairs = [pair for pair in combinations(changes, 2) if pair[0][0] != pair[1][0]]
    rows = np.repeat(awake[None], len(singles) + len(pairs), axis=0)
    for i, group in enumerate([*singles, *pairs]):
        for column, choice in group:
            rows[i, column] = choice
    return _unique(space.mask_inactive(rows))
