"""In which order genes are eliminated from a sum of tables over few genes each (Dechter 1999)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from math import prod

__all__ = ["elimination_order"]

Columns = tuple[int, ...]


@lru_cache(maxsize=64)
def elimination_order(
    factors: tuple[Columns, ...], sizes: Columns
) -> tuple[tuple[tuple[Columns, ...], Columns], ...]:
    """Which factors to add, and which genes go with them, step by step.

    Each step eliminates the gene that leaves the smallest table on the way. It takes as long as
    there are factors, times the logarithm of that.

    Args:
        factors: the genes of each table.
        sizes: how many choices each gene has, by column.
    """
    waiting = _Waiting(factors, sizes)
    steps = []
    while (column := waiting.cheapest()) is not None:
        steps.append(waiting.eliminate(column))
    return tuple(steps)


class _Waiting:
    """Factors that were not added yet, and what adding them would cost; kept up to date.

    The table so far has an axis for each gene that was met and is still asked for. Eliminating a
    gene makes it larger by the choices of all genes that it shares factors with and that are no
    axes yet: its growth.
    """

    def __init__(self, factors: Sequence[Columns], sizes: Columns) -> None:
        self.sizes = sizes
        self.axes: set[int] = set()
        self.factors: dict[int, dict[Columns, None]] = defaultdict(dict)  # of each gene, in order
        self.shared: dict[int, Counter[int]] = defaultdict(Counter)  # with each other gene
        for columns in dict.fromkeys(factors):
            for column in columns:
                self.factors[column][columns] = None
                self.shared[column].update(columns)
        self.growth = {c: prod(sizes[o] for o in others) for c, others in self.shared.items()}
        self._queue = [(growth, column) for column, growth in self.growth.items()]
        heapify(self._queue)

    def cheapest(self) -> int | None:
        """The gene of least growth, of equal ones the first; None if none is left."""
        while self._queue:
            growth, column = heappop(self._queue)
            if self.factors[column] and growth == self.growth[column]:
                return column
        return None

    def eliminate(self, column: int) -> tuple[tuple[Columns, ...], Columns]:
        """The factors of a gene, and all genes that nothing more asks for when they are added."""
        taken = tuple(self.factors[column])
        scope = self.axes.union(self.shared[column])
        for columns in taken:
            self._take(columns)
        gone = {c for c in scope if not self.factors[c]}
        for new in scope - gone - self.axes:
            for other in self.shared[new]:
                self._shrink(other, new)
        self.axes = scope - gone
        return taken, tuple(sorted(gone))

    def _take(self, columns: Columns) -> None:
        for column in columns:
            del self.factors[column][columns]
            shared = self.shared[column]
            for other in columns:
                shared[other] -= 1
                if not shared[other]:
                    del shared[other]
                    if other not in self.axes:
                        self._shrink(column, other)

    def _shrink(self, column: int, other: int) -> None:
        """Eliminating a gene no longer makes the table larger by the choices of another."""
        self.growth[column] //= self.sizes[other]
        heappush(self._queue, (self.growth[column], column))
