"""Ascents: children of good networks, each led uphill by changes of its genes.

Along a front, accuracy has a price: the slope at what a network costs. A network is good if its
accuracy minus its price at that slope is great, so changes can be judged one by one, with no budget
in the way; and what lies on the way is for the front too. Accuracy models have many local optima:
children of two of the front start between them, as in memetic algorithms (Moscato 1989).

A step tries all changes of a single gene (of spaces larger than any that is published, so many at
random), and the best few of them together: accuracy is nearly a sum, so that mostly saves steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.search.domain import Domain
from ofa_deploy.space import Population

__all__ = ["Ascender", "Known"]

Floats = npt.NDArray[np.float64]
Score = Callable[[Population], tuple[Floats, npt.NDArray[np.bool_]]]

_CHILDREN = 16  # that climb side by side
_STEPS = 14
_TRIED = 256  # changes of single genes at a step; the spaces of the catalogue have up to 166
_TOGETHER = (2, 4, 8)  # changes of single genes that are tried at once
_NEAREST = 6  # one of so many on the front is the mother
_WINDOW = 1.5  # fathers cost at most so many times more, or less, than what a child is meant to
_SLOPE = 1.14  # is measured between networks that cost so many times more and less
_CHANGES = 5.0  # of genes, in the mean, besides the crossing
_LEAST_GAIN = 1e-6


@dataclass(frozen=True)
class Known:
    """The networks of a front.

    Attributes:
        rows: shape (n, genes).
        top1, price: each of shape (n,).
    """

    rows: Population
    top1: Floats
    price: Floats

    def slope(self, price: float) -> float:
        """Accuracy that a unit of price buys, around a price."""
        cheap, dear = self._best(price / _SLOPE), self._best(price * _SLOPE)
        return max((dear - cheap) / (price * (_SLOPE - 1 / _SLOPE)), 1e-9)

    def _best(self, price: float) -> float:
        kept = self.top1[self.price <= price]
        return float(kept.max() if len(kept) else self.top1.min())

    def child(
        self, price: float, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """A mother and a father for a network of about that price."""
        distance = np.abs(np.log(self.price / price))
        order = np.argsort(distance, kind="stable")
        mother = order[rng.integers(0, min(_NEAREST, len(order)))]
        near = np.flatnonzero(distance < np.log(_WINDOW))
        father = rng.choice(near if len(near) else order[:_NEAREST])
        return self.rows[mother], self.rows[father]


@dataclass(frozen=True)
class Ascender:
    """Leads children uphill, generation by generation.

    Attributes:
        price: what accuracy is bought with.
        score: from rows to top-1 and whether all constraints hold; keeps what is good.
    """

    domain: Domain
    price: AdditiveModel
    score: Score

    def ascend(self, known: Known, least: float, most: float, rng: np.random.Generator) -> None:
        """One generation, meant for prices that are spread evenly, in their logarithm.

        Args:
            known: the front so far; not empty.
            least, most: the ends of the prices.
        """
        aims = np.exp(rng.uniform(np.log(least), np.log(most), _CHILDREN))
        slopes = np.array([known.slope(aim) for aim in aims])
        mothers, fathers = (
            np.array(rows) for rows in zip(*(known.child(aim, rng) for aim in aims), strict=True)
        )
        space = self.domain.space
        rows = space.crossover(mothers, fathers, rng)
        rows = self.domain.mutate(rows, rng, min(1.0, _CHANGES / len(space.genes)))
        worth = self._worth(rows, slopes)
        moving = np.arange(len(rows))
        for _ in range(_STEPS):
            tried = self._tried(rng)
            found, values = self._step(rows[moving], worth[moving], slopes[moving], tried)
            better = values > worth[moving] + _LEAST_GAIN
            moving = moving[better]
            if not len(moving):
                break
            rows[moving], worth[moving] = found[better], values[better]

    def _worth(self, rows: Population, slopes: Floats) -> Floats:
        """Accuracy less its price; nothing where a constraint is missed."""
        top1, feasible = self.score(rows)
        return np.where(feasible, top1 - slopes * self.price.predict(rows), -np.inf)

    def _tried(self, rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """The changes to try at one step: all, or so many of them at random."""
        changes = len(self.domain.changes[0])
        if changes <= _TRIED:
            return np.arange(changes)
        return np.sort(rng.choice(changes, _TRIED, replace=False))

    def _step(
        self, rows: Population, worth: Floats, slopes: Floats, tried: npt.NDArray[np.intp]
    ) -> tuple[Population, Floats]:
        """The best of what is near each row, and what it is worth."""
        near, owner, change = self.domain.single_changes(rows, tried)
        if not len(near):
            return rows, worth
        values = np.full((len(rows), len(self.domain.changes[0])), -np.inf)
        values[owner, change] = self._worth(near, slopes[owner])
        jumps, of = self._together(rows, worth, values)
        near, owner = np.concatenate([near, jumps]), np.r_[owner, of]
        worths = np.r_[values[owner[: len(change)], change], self._worth(jumps, slopes[of])]
        found, best = rows.copy(), worth.copy()
        for index in np.lexsort((worths, owner)):  # the last of an owner is its best
            if worths[index] > best[owner[index]]:
                found[owner[index]], best[owner[index]] = near[index], worths[index]
        return found, best

    def _together(
        self, rows: Population, worth: Floats, values: Floats
    ) -> tuple[Population, npt.NDArray[np.intp]]:
        """Each row with the best few of its changes that help, one a gene, and whose it is."""
        columns, choices = self.domain.changes
        jumps: list[npt.NDArray[np.int8]] = []
        owners: list[int] = []
        for index, row in enumerate(rows):
            order = np.argsort(-values[index], kind="stable")
            helping = order[values[index, order] > worth[index] + _LEAST_GAIN]
            _, first = np.unique(columns[helping], return_index=True)
            picked = helping[np.sort(first)]
            for most in _TOGETHER:
                if len(picked) > most // 2:
                    jump = row.copy()
                    jump[columns[picked[:most]]] = choices[picked[:most]]
                    jumps.append(jump)
                    owners.append(index)
        made = np.array(jumps, np.int8).reshape(-1, rows.shape[1])
        return self.domain.awake(made), np.array(owners, np.intp)
