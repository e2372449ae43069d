"""The best networks of additive models under one additive limit, by dynamic programming.

Genes are eliminated one after the other (Dechter 1999) from a table of the best value by cost: the
knapsack's table (Bellman 1957) with an axis more for every gene that later blocks still ask for.
Costs are rounded to a grid. Rounded up, what is found keeps the limit; rounded down, nothing that
keeps the limit is better than what is found: together they bound the optimum from both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import InputError
from ofa_deploy.search.domain import Domain
from ofa_deploy.search.elimination import elimination_order
from ofa_deploy.space import Population

__all__ = ["Grid", "Optimum", "Sweep", "best_within"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Columns = tuple[int, ...]
_BINS = 4096


@dataclass(frozen=True)
class Optimum:
    """The best network within a limit.

    Attributes:
        row: the best that was found, shape (genes,).
        value: its value.
        bound: no network within the limit has a greater one.
    """

    row: npt.NDArray[np.int8]
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """How far the optimum may be above what was found, in the value's unit."""
        return max(0.0, self.bound - self.value)


def best_within(
    domain: Domain, value: AdditiveModel, cost: AdditiveModel, limit: float, *, bins: int = _BINS
) -> Optimum | None:
    """The greatest value at a cost of at most ``limit``; None where nothing costs so little.

    Args:
        value, cost: sums over blocks, of the domain's space.
        bins: of the grid of costs; the more, the closer the two bounds.
    """
    above, below = (
        Grid(domain, cost, limit, bins=bins, up=up).sweep(value) for up in (False, True)
    )
    rows = np.concatenate([each.rows(np.array([bins])) for each in (above, below)])
    rows = rows[cost.predict(rows) <= limit]
    if not len(rows):
        return None
    values = value.predict(rows)
    return Optimum(rows[values.argmax()], float(values.max()), float(above.best[-1]))


@dataclass(frozen=True)
class _Step:
    """Some genes that nothing more asks for, and what is added before they go.

    Attributes:
        kept: genes that are still asked for.
        gone: those that are not; with ``kept`` in this order the axes of what follows.
        sources: columns of the value's tables that are added.
        possible: 0, or minus infinity for choices that exclude each other.
        cost: in steps of the grid.
        gather: for every choice and cost, where the table before has the cost that is left.
    """

    kept: Columns
    gone: Columns
    sources: tuple[Columns, ...]
    possible: Floats
    cost: Ints
    gather: Ints


class Grid:
    """Costs up to a limit in equal steps, over which values are swept.

    Args:
        domain: the networks to choose among.
        cost: a sum over blocks.
        limit: of the cost.
        up: whether costs are rounded up, so that networks keep the limit, or down.
    """

    def __init__(
        self,
        domain: Domain,
        cost: AdditiveModel,
        limit: float,
        *,
        bins: int = _BINS,
        up: bool = True,
    ) -> None:
        _check_sum(cost)
        self.domain = domain
        self.cost = cost
        self.bins = bins
        self.up = up
        self.axes = _axes(domain)
        self.sizes = [len(axis) for axis in self.axes]
        least = cost.offset + sum(self.cut(c, table).min() for c, table in cost.tables)
        self.reachable = limit >= least
        self._unit = max(limit - least, 1e-300) / bins
        self._steps: dict[tuple[Columns, ...], list[_Step]] = {}

    def cut(self, columns: Columns, table: Floats) -> Floats:
        """A model's table without what the domain leaves out."""
        return table[np.ix_(*(self.axes[c] for c in columns))]

    def sweep(self, value: AdditiveModel) -> "Sweep":
        """The best networks at every cost."""
        _check_sum(value)
        columns = tuple(columns for columns, _ in value.tables)
        if columns not in self._steps:
            self._steps[columns] = self._prepare(columns)
        return Sweep(self, self._steps[columns], value)

    def _prepare(self, value_columns: tuple[Columns, ...]) -> list[_Step]:
        """All that does not depend on the values."""
        costs = {columns: self._rounded(columns, table) for columns, table in self.cost.tables}
        excluded = dict(self._exclusions())
        sizes = tuple(self.sizes)
        steps = []
        alive: Columns = ()
        for taken, gone in elimination_order((*costs, *value_columns, *excluded), sizes):
            touched = dict.fromkeys([*alive, *(c for columns in taken for c in columns)])
            kept = tuple(c for c in touched if c not in gone)
            scope = (*kept, *gone)
            shape = tuple(sizes[c] for c in scope)
            here = dict.fromkeys(taken)
            cost = _total([(c, costs[c]) for c in here if c in costs], scope, shape)
            possible = _total([(c, excluded[c]) for c in here if c in excluded], scope, shape)
            sources = tuple(c for c in here if c in value_columns)
            gather = self._gather(alive, scope, shape, cost.astype(np.int64))
            steps.append(_Step(kept, gone, sources, possible, cost.astype(np.int64), gather))
            alive = kept
        return steps

    def _gather(self, alive: Columns, scope: Columns, shape: Columns, cost: Ints) -> Ints:
        """Flat indices into the table before, one after whose end stands for a cost below 0."""
        points = self.bins + 1
        before = [self.sizes[c] for c in alive]
        rows = np.arange(prod(before)).reshape(before)
        rows = np.broadcast_to(_spread(rows, alive, scope), shape)
        left = np.arange(points) - cost[..., None]
        gather: Ints = np.where(left < 0, prod(before) * points, rows[..., None] * points + left)
        return gather

    def _rounded(self, columns: Columns, table: Floats) -> Ints:
        """Costs beyond the factor's least one, in steps."""
        cut = self.cut(columns, table)
        steps = np.minimum((cut - cut.min()) / self._unit, self.bins + 1.0)
        rounded = np.ceil(steps - 1e-9) if self.up else np.floor(steps + 1e-9)
        whole: Ints = rounded.astype(np.int64)
        return whole

    def _exclusions(self) -> "list[tuple[Columns, Floats]]":
        """What rules out rows in which a gene is active and its block is not, or the reverse."""
        space = self.domain.space
        found: list[tuple[Columns, Floats]] = []
        for column, gene in enumerate(space.genes):
            depth = space.columns.get(f"depth[{gene.stage}]") if gene.block >= 0 else None
            if depth is not None:
                depths = np.array(space.genes[depth].choices)[self.axes[depth] - 1]
                active = space.stages[gene.stage].base_depth + depths > gene.block
                possible = active[:, None] == (self.axes[column] > 0)[None]
                found.append(((depth, column), np.where(possible, 0.0, -np.inf)))
        return found


class Sweep:
    """The best value at every cost of a grid, and the networks that have it.

    Attributes:
        best: by grid point, shape (bins + 1,): the greatest value at that cost or less.
    """

    def __init__(self, grid: Grid, steps: Sequence[_Step], value: AdditiveModel) -> None:
        self._grid = grid
        self._steps = steps
        self._choices: list[npt.NDArray[np.intp]] = []
        table = np.full(grid.bins + 1, -np.inf)
        if grid.reachable:
            table[0] = value.offset
            values = {columns: grid.cut(columns, table) for columns, table in value.tables}
            for step in steps:
                table = self._stepped(step, table, values)
        self.best = np.maximum.accumulate(table)
        better = np.r_[True, table[1:] > self.best[:-1]]
        # The least cost, rounded, of what is best at each grid point's cost or less.
        self._at = np.maximum.accumulate(np.where(better, np.arange(grid.bins + 1), 0))

    def _stepped(self, step: _Step, table: Floats, values: dict[Columns, Floats]) -> Floats:
        sizes = self._grid.sizes
        added = step.possible
        for columns in step.sources:
            added = added + _spread(values[columns], columns, (*step.kept, *step.gone))
        joined = np.append(table.ravel(), -np.inf).take(step.gather)
        joined += added[..., None]
        joined = joined.reshape(*(sizes[c] for c in step.kept), -1, self._grid.bins + 1)
        choice = joined.argmax(-2)
        self._choices.append(choice)
        best: Floats = np.take_along_axis(joined, choice[..., None, :], -2).squeeze(-2)
        return best

    def rows(self, points: Ints) -> Population:
        """The networks that are best at grid points' costs or less, shape (points, genes).

        Points at which nothing was found are left out.
        """
        points = points[np.isfinite(self.best[points])]
        cost = self._at[points]
        rows = np.empty((len(points), len(self._grid.axes)), np.int8)
        if not len(points):
            return rows
        chosen: dict[int, Ints] = {}
        for step, choice in zip(reversed(self._steps), reversed(self._choices), strict=True):
            best = choice[(*(chosen[c] for c in step.kept), cost)]
            shape = [self._grid.sizes[c] for c in step.gone]
            chosen.update(zip(step.gone, np.unravel_index(best, shape), strict=True))
            cost = cost - step.cost[tuple(chosen[c] for c in (*step.kept, *step.gone))]
        for column, axis in enumerate(self._grid.axes):
            rows[:, column] = axis[chosen[column]] - 1
        return rows


def _check_sum(model: AdditiveModel) -> None:
    if model.reduce != "sum":
        raise InputError("expected sums over blocks, found a maximum")


def _axes(domain: Domain) -> list[Ints]:
    """For each gene, the indices of its axis in a model's tables: 0 inactive, 1 + choice."""
    space = domain.space
    axes = []
    for gene, mask in zip(space.genes, domain.allowed, strict=True):
        depth = space.columns.get(f"depth[{gene.stage}]") if gene.block >= 0 else None
        choices = 1 + np.flatnonzero(mask)
        if depth is not None:
            depths = np.array(space.genes[depth].choices)[domain.allowed[depth]]
            active = space.stages[gene.stage].base_depth + depths > gene.block
            choices = choices if active.any() else choices[:0]
            if not active.all():
                choices = np.concatenate([[0], choices])
        axes.append(choices)
    return axes


def _spread(
    table: npt.NDArray[Any], columns: Sequence[int], scope: Sequence[int]
) -> npt.NDArray[Any]:
    """A table with an axis for each gene of a scope, of length 1 where it has none."""
    sizes = dict(zip(columns, table.shape, strict=True))
    order = sorted(range(len(columns)), key=lambda axis: scope.index(columns[axis]))
    return table.transpose(order).reshape([sizes.get(c, 1) for c in scope])


def _total(
    tables: Sequence[tuple[Columns, npt.NDArray[Any]]], scope: Columns, shape: Sequence[int]
) -> Floats:
    total = np.zeros(tuple(shape))
    for columns, table in tables:
        total = total + _spread(table, columns, scope)
    return total
