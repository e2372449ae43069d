"""Climbs: exact optima of additive stand-ins for the accuracy, fitted nearer and nearer.

Accuracy is nearly a sum over genes, and what it is bought with mostly is one. So a sum is fitted to
what the accuracy model says of some networks (ridge regression), and its optimum found for every
budget at once by dynamic programming; then again, fitted to networks around the best that were
found, where the stand-in matters. This is successive approximation in the manner of a trust region:
samples stay near the best, so that the sum need only be right there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.search.constraints import GeneConstraint
from ofa_deploy.search.domain import Domain, first_of_each, unique
from ofa_deploy.search.exact import Grid
from ofa_deploy.search.problem import Problem, Widening
from ofa_deploy.space import Population, SearchSpace

__all__ = ["Climber", "Price"]

Floats = npt.NDArray[np.float64]
Score = Callable[[Population], tuple[Floats, npt.NDArray[np.bool_]]]

_BINS = 128
_SAMPLES = 500
_ELITES = 5
_CHANGES = 3.0  # a network, in the mean, around the best
_RIDGE = 1e-3


@dataclass(frozen=True)
class Price:
    """What accuracy is bought with.

    Attributes:
        model: a sum over blocks.
        least: the least that any network costs, by the model's prediction.
        limit: the most there is to spend.
    """

    model: AdditiveModel
    least: float
    limit: float

    @classmethod
    def of(cls, problem: Problem) -> "Price | None":
        """Of the first limited or minimised metric that is a sum; None if there is none."""
        limits: dict[str, float] = {}
        for constraint in problem.constraints:
            if constraint.upper:
                known = limits.get(constraint.metric, np.inf)
                limits[constraint.metric] = min(known, constraint.limit)
        minimised = [name for name, goal in problem.objectives.items() if goal == "min"]
        for name in dict.fromkeys([*limits, *minimised]):
            model = problem.metrics[name]
            if isinstance(model, AdditiveModel) and model.reduce == "sum":
                limit = limits.get(name, np.inf)
                if isinstance(model, Widening):
                    limit /= float(model.widen(np.ones(1))[1][0])
                least, greatest = model.bounds(problem.domain.allowed)
                return cls(model, least, min(limit, greatest))
        return None


class Climber:
    """Climbs towards the most accurate network within a budget.

    Args:
        score: from rows to top-1 and whether all constraints hold; keeps what is good.
    """

    def __init__(self, problem: Problem, price: Price, score: Score) -> None:
        self.domain = problem.domain
        self.price = price
        self.score = score
        self._grids: dict[tuple[float, tuple[float, ...]], Grid] = {}

    @cached_property
    def _rate(self) -> float:
        return _CHANGES / len(self.domain.space.genes)

    def climb(
        self,
        limit: float,
        rng: np.random.Generator,
        *,
        rounds: int = 7,
        start: Population | None = None,
    ) -> None:
        """Climb once.

        Args:
            limit: of the price.
            start: networks to begin around; random ones of the whole domain if not given.
        """
        best = _Best(limit, self.price.model)
        rows = self.domain.sample(rng, _SAMPLES) if start is None else self._around(start, rng)
        for _ in range(rounds):
            top1, feasible = self.score(rows)
            best.take(rows, top1, feasible)
            found = self._grid(limit, best.rows).sweep(fit_sum(self.domain.space, rows, top1))
            proposed = unique(found.rows(np.arange(_BINS + 1)))
            if not len(proposed):
                return  # nothing costs so little
            best.take(proposed, *self.score(proposed))
            rows = self._around(best.rows if len(best.rows) else proposed[-_ELITES:], rng)

    def _around(self, rows: Population, rng: np.random.Generator) -> Population:
        return self.domain.mutate(rows[rng.integers(0, len(rows), _SAMPLES)], rng, self._rate)

    def _grid(self, limit: float, near: Population) -> Grid:
        """Of all networks, or of those with the resolutions of some: it is as much smaller."""
        choices = self.domain.space.genes[0].choices
        sizes = tuple(sorted({choices[choice] for choice in near[:, 0]})) or choices
        if (limit, sizes) not in self._grids:
            text = f"resolution in {','.join(f'{size:g}' for size in sizes)}"
            here = GeneConstraint("resolution", "in", sizes, text)
            domain = Domain(self.domain.space, [*self.domain.constraints, here])
            self._grids[limit, sizes] = Grid(domain, self.price.model, limit, bins=_BINS)
        return self._grids[limit, sizes]


class _Best:
    """The few most accurate networks of a climb that keep its limit."""

    def __init__(self, limit: float, model: AdditiveModel) -> None:
        self.limit, self.model = limit, model
        self.rows: Population = np.empty((0, len(model.space.genes)), np.int8)
        self.top1: Floats = np.empty(0)

    def take(self, rows: Population, top1: Floats, feasible: npt.NDArray[np.bool_]) -> None:
        kept = feasible & (self.model.predict(rows) <= self.limit)
        every, values = np.concatenate([self.rows, rows[kept]]), np.r_[self.top1, top1[kept]]
        first = first_of_each(every)
        order = first[np.argsort(-values[first], kind="stable")][:_ELITES]
        self.rows, self.top1 = every[order], values[order]


def fit_sum(space: SearchSpace, rows: Population, values: Floats) -> AdditiveModel:
    """The sum over single genes that is nearest to the values (ridge regression)."""
    pairs = [
        (column, choice)
        for column, gene in enumerate(space.genes)
        for choice in range(len(gene.choices))
    ]
    columns, choices = np.array(pairs).T
    taken = (rows[:, columns] == choices).astype(float)
    mean, middle = taken.mean(0), values.mean()
    centred = taken - mean
    weights = _ridge(centred, values - middle)
    ends = np.cumsum([len(gene.choices) for gene in space.genes])[:-1]
    tables = [((column,), np.r_[0.0, own]) for column, own in enumerate(np.split(weights, ends))]
    return AdditiveModel(space, tables, offset=float(middle - mean @ weights))


def _ridge(taken: Floats, values: Floats) -> Floats:
    """Weights of columns, by whichever of the two equal forms has the smaller matrix."""
    rows, columns = taken.shape
    penalty = _RIDGE * rows
    if rows < columns:
        solved = np.linalg.solve(taken @ taken.T + penalty * np.eye(rows), values)
        return np.asarray(taken.T @ solved)
    return np.linalg.solve(taken.T @ taken + penalty * np.eye(columns), taken.T @ values)
