"""What is worth trying around a network that is nearly the best.

Of the spaces that are published, all changes of one gene and of two. Pairs grow as the square of
the genes and a walk takes more steps, so in larger spaces only those pairs are tried that promise
most, taken for sums of their single changes; and the best of them also together, which saves steps.
What is tried is scored by the models themselves, so a promise that is not kept costs a try only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.search.domain import unique
from ofa_deploy.search.problem import Problem
from ofa_deploy.space import Population

__all__ = ["worth_trying"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_FEW = 128  # changes of which all pairs are tried; the spaces of the catalogue have up to 118
_POOL = 512  # changes of which pairs are looked at, where there are more
_PAIRS = 2_000  # that are tried


def worth_trying(problem: Problem, row: npt.NDArray[np.int8]) -> Population:
    """Other networks near one, among which a better one is looked for; shape (n, genes).

    Args:
        row: shape (genes,); meets the constraints.
    """
    domain = problem.domain
    if len(domain.other_changes(row)) <= _FEW:
        return domain.neighbours(row)
    near, _, which = domain.single_changes(row[None])
    if not len(near):
        return near
    singles = _Singles.of(problem, row, near, which)
    pairs = singles.pairs()
    together = [domain.changed(row, each[None]) for each in singles.together(pairs)]
    return unique(np.concatenate([near, domain.changed(row, singles.which[pairs]), *together]))


@dataclass(frozen=True)
class _Singles:
    """Changes of single genes, and what each does.

    Attributes:
        which: indices into ``Domain.changes``, shape (n,).
        genes: that they change, shape (n,).
        gain: of top-1, shape (n,).
        spent: of what each constraint leaves, relative to its limit, shape (constraints, n).
        left: of each constraint before the change, shape (constraints,).
    """

    which: Indices
    genes: Indices
    gain: Floats
    spent: Floats
    left: Floats

    @classmethod
    def of(
        cls, problem: Problem, row: npt.NDArray[np.int8], near: Population, which: Indices
    ) -> "_Singles":
        """Of all changes, or of those that gain or save most for what they cost."""
        both = np.concatenate([row[None], near])
        top1 = problem.metrics["top1"].predict(both)
        missed = np.array(problem.misses(both)).reshape(len(problem.constraints), len(both))
        gain, spent = top1[1:] - top1[0], missed[:, 1:] - missed[:, :1]
        if len(which) > _POOL:
            kept = _best_rated(gain, spent.sum(axis=0))
            which, gain, spent = which[kept], gain[kept], spent[:, kept]
        return cls(which, problem.domain.changes[0][which], gain, spent, -missed[:, 0])

    def pairs(self) -> Indices:
        """The pairs that promise to be feasible and better, best first; shape (n, 2)."""
        first, second = np.triu_indices(len(self.which), 1)
        gain = self.gain[first] + self.gain[second]
        good = (self.genes[first] != self.genes[second]) & (gain > 0)
        for spent, left in zip(self.spent, self.left, strict=True):
            good &= spent[first] + spent[second] <= left
        found = np.flatnonzero(good)
        best = found[np.argsort(-gain[found], kind="stable")[:_PAIRS]]
        return np.stack([first[best], second[best]], axis=1)

    def together(self, pairs: Indices) -> list[Indices]:
        """The best pairs of different genes that promise to be feasible together.

        Returns:
            For 2, 4, 8 and so on of them, their changes.
        """
        picked: list[int] = []
        met: set[int] = set()
        left = self.left
        for pair in pairs.tolist():
            genes = {int(self.genes[change]) for change in pair}
            spent = self.spent[:, pair].sum(axis=1)
            if not genes & met and (spent <= left).all():
                picked += pair
                met |= genes
                left = left - spent
        sizes = [2**power for power in range(2, len(picked).bit_length())]
        return [self.which[picked[:size]] for size in (*sizes, len(picked)) if size > 2]


def _best_rated(gain: Floats, cost: Floats) -> Indices:
    """The changes that gain most for what they cost, and those that lose least for what they save.

    Args:
        gain: of top-1, shape (n,).
        cost: of the budgets together, shape (n,).
    """
    rate = np.full(len(gain), -np.inf)
    gains, saves = gain > 0, (gain <= 0) & (cost < 0)
    rate[gains] = np.inf
    dear = gains & (cost > 0)
    rate[dear] = gain[dear] / cost[dear]
    rate[saves] = -gain[saves] / cost[saves]
    order = np.argsort(-rate, kind="stable")
    return np.sort(np.concatenate([order[kind[order]][: _POOL // 2] for kind in (gains, saves)]))
