"""The networks of a space that constraints on genes leave, and how to move among them."""

from collections.abc import Sequence
from functools import cache, cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import ConstraintError
from ofa_deploy.search.constraints import GeneConstraint
from ofa_deploy.space import Population, SearchSpace

__all__ = ["Domain", "first_of_each", "unique"]

Indices = npt.NDArray[np.int8]


def first_of_each(population: Population) -> npt.NDArray[np.intp]:
    """Where each distinct row stands first, in order.

    Rows are told apart by a 64-bit hash, which is ten times as fast as sorting them: that two of a
    million differ and are taken for the same has a chance of one in 10 million.
    """
    _, first = np.unique(
        population.astype(np.int64) @ _hash(population.shape[1]), return_index=True
    )
    return np.sort(first)


@cache
def _hash(width: int) -> npt.NDArray[np.int64]:
    """Random odd factors, the same every time; sums of products wrap around."""
    drawn = np.random.default_rng(0x0FA).integers(-(2**62), 2**62, width, dtype=np.int64)
    return 2 * drawn + 1


def unique(population: Population) -> Population:
    """Distinct rows, in order of first appearance."""
    return population[first_of_each(population)]


class Domain:
    """What each gene of a space may choose.

    Args:
        space: any.
        constraints: all must hold.

    Attributes:
        allowed: for each gene, which of its choices are left.

    Raises:
        ConstraintError: if a constraint speaks of a gene that the space does not have, or leaves it
            no choice.
    """

    def __init__(self, space: SearchSpace, constraints: Sequence[GeneConstraint] = ()) -> None:
        self.space = space
        self.constraints = tuple(constraints)
        self.allowed = [np.ones(len(gene.choices), bool) for gene in space.genes]
        for constraint in constraints:
            self._restrict(constraint)

    def _restrict(self, constraint: GeneConstraint) -> None:
        genes = self.space.genes
        columns = [
            column for column, gene in enumerate(genes) if constraint.gene in (gene.name, gene.kind)
        ]
        if not columns:
            names = dict.fromkeys(gene.kind for gene in genes)
            raise ConstraintError(
                f"constraint {constraint.text!r}: space {self.space.name} has no choice of "
                f"{constraint.gene}; it chooses: {', '.join(names)}"
            )
        for column in columns:
            choices = genes[column].values
            self.allowed[column] &= [any(map(constraint.allows, values)) for values in choices]
            if not self.allowed[column].any():
                listed = ", ".join(f"{value:g}" for values in choices for value in values)
                raise ConstraintError(
                    f"constraint {constraint.text!r} leaves {genes[column].name} of space "
                    f"{self.space.name} no choice; its choices: {listed}"
                )

    @cached_property
    def _options(self) -> tuple[Indices, npt.NDArray[np.int64]]:
        """Allowed choices, padded to shape (genes, most), and how many each gene has."""
        counts = np.array([mask.sum() for mask in self.allowed])
        options = np.zeros((len(counts), counts.max()), np.int8)
        for column, mask in enumerate(self.allowed):
            options[column, : counts[column]] = np.flatnonzero(mask)
        return options, counts

    def _draw(self, rng: np.random.Generator, n: int) -> Population:
        options, counts = self._options
        picks = rng.integers(0, counts, size=(n, len(counts)))
        return options[np.arange(len(counts)), picks]

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        """Draw ``n`` networks, each gene uniform over what it may choose; shape (n, genes)."""
        return self.space.mask_inactive(self._draw(rng, n))

    def extremes(self) -> Population:
        """The networks of the least and of the greatest allowed choices, shape (2, genes)."""
        ends = [(np.flatnonzero(mask)[0], np.flatnonzero(mask)[-1]) for mask in self.allowed]
        return self.space.mask_inactive(np.array(ends, np.int8).T)

    def mutate(self, population: Population, rng: np.random.Generator, rate: float) -> Population:
        """Redraw each gene with probability ``rate``; genes that become active are drawn anew."""
        fresh = self._draw(rng, len(population))
        redraw = (rng.random(population.shape) < rate) | (population < 0)
        return self.space.mask_inactive(np.where(redraw, fresh, population))

    def holds(self, population: Population) -> npt.NDArray[np.bool_]:
        """Which rows keep to what is allowed, shape (n,)."""
        kept = np.ones(len(population), bool)
        for column, mask in enumerate(self.allowed):
            choices = population[:, column]
            kept &= (choices < 0) | mask[choices]
        return kept

    @cached_property
    def changes(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int8]]:
        """Every (gene, choice) that is allowed: columns and choices, each of shape (changes,)."""
        pairs = [(c, choice) for c, mask in enumerate(self.allowed) for choice in mask.nonzero()[0]]
        columns, choices = np.array(pairs).T
        return columns, choices.astype(np.int8)

    @cached_property
    def _middle(self) -> npt.NDArray[np.int8]:
        """Of each gene, the middle choice that is allowed."""
        return np.array([np.flatnonzero(m)[(m.sum() - 1) // 2] for m in self.allowed], np.int8)

    def awake(self, rows: Population) -> Population:
        """Rows whose genes may just have become active: these take their middle choice."""
        return self.space.mask_inactive(np.where(rows < 0, self._middle, rows))

    def single_changes(
        self, rows: Population, which: npt.NDArray[np.intp] | None = None
    ) -> tuple[Population, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """All networks one active gene away from some.

        Args:
            which: indices of the changes to try; all if not given.

        Returns:
            The networks; of each the index of the row that it is near to; and of its change.
        """
        columns, choices = self.changes
        tried = np.arange(len(columns)) if which is None else which
        active = rows[:, columns[tried]]
        owner, change = np.nonzero((active >= 0) & (active != choices[tried]))
        change = tried[change]
        near = rows[owner]
        near[np.arange(len(owner)), columns[change]] = choices[change]
        deep = self.space.decides[columns[change]]  # others leave all blocks as they are
        near[deep] = self.awake(near[deep])
        return near, owner, change

    def changed(self, row: Indices, which: npt.NDArray[np.intp]) -> Population:
        """A network with changes of its genes; blocks that wake up take their middle choice.

        Args:
            row: shape (genes,).
            which: indices into ``changes``, shape (n, most): those of each of ``n`` networks; a
                later one of the same gene wins.
        """
        columns, choices = self.changes
        rows = np.repeat(np.where(row < 0, self._middle, row)[None].astype(np.int8), len(which), 0)
        for each in which.T:
            rows[np.arange(len(which)), columns[each]] = choices[each]
        return self.space.mask_inactive(rows)

    def other_changes(self, row: Indices) -> npt.NDArray[np.intp]:
        """Indices of the changes that are not what a network has, inactive genes' included."""
        columns, choices = self.changes
        return np.flatnonzero(choices != np.where(row < 0, self._middle, row)[columns])

    def neighbours(self, row: Indices, distance: int = 2) -> Population:
        """All other networks up to two genes away; blocks that wake up take their middle choice."""
        columns, _ = self.changes
        others = self.other_changes(row)
        if not len(others):
            return row[None][:0]
        groups = [others[:, None]]
        if distance > 1:
            pairs = np.array([*combinations(others, 2)], int).reshape(-1, 2)
            groups.append(pairs[columns[pairs[:, 0]] != columns[pairs[:, 1]]])
        near = np.concatenate([self.changed(row, group) for group in groups])
        return unique(near[(near != row).any(axis=1)])  # what is changed may be inactive
