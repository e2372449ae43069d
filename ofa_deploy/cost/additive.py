"""``AdditiveModel``: a metric of a network as the sum (or maximum) over its blocks.

One table a slot, indexed by the genes that decide the slot's block; predicting a population is a
gather and a sum a table, millions of networks a second.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, Block, Population, SearchSpace

__all__ = ["AdditiveModel", "as_population", "macs_model", "params_model", "peak_memory_model"]

_CHUNK = 1 << 14  # rows a pass: the columns and indices of a chunk stay in the second-level cache

Floats = npt.NDArray[np.float64]


def as_population(space: SearchSpace, archs: "Sequence[Arch] | Population") -> Population:
    """Archs or an int8 population, as a population of ``space``.

    Raises:
        InputError: if the array has another number of columns than the space has genes.
    """
    if isinstance(archs, np.ndarray):
        if archs.ndim != 2 or archs.shape[1] != len(space.genes):
            raise InputError(
                f"expected a population of shape (n, {len(space.genes)}) for space {space.name}, "
                f"found {archs.shape}"
            )
        return archs.astype(np.int8, copy=False)
    return space.encode(archs)


class AdditiveModel:
    """Sum or maximum of block values, plus an offset.

    Args:
        space: the space whose populations it takes.
        tables: pairs of population columns and an array with one axis a column; along each axis
            index 0 is "inactive" and index 1 + c is choice c.
        offset: added to every prediction.
        reduce: ``"sum"`` or ``"max"``.
    """

    def __init__(
        self,
        space: SearchSpace,
        tables: Sequence[tuple[tuple[int, ...], Floats]],
        *,
        offset: float = 0.0,
        reduce: str = "sum",
    ) -> None:
        self.space = space
        self.offset = offset
        self.reduce = reduce
        merged: dict[tuple[int, ...], Floats] = {}
        join = np.add if reduce == "sum" else np.maximum
        for columns, table in tables:
            merged[columns] = join(merged[columns], table) if columns in merged else table
        self.tables = tuple(merged.items())

    @classmethod
    def from_blocks(
        cls,
        space: SearchSpace,
        value_of_block: Callable[[Block], float],
        *,
        offset: float = 0.0,
        reduce: str = "sum",
    ) -> "AdditiveModel":
        """Build the tables by asking for the value of every block that can occur, once a key."""
        values: dict[str, float] = {}
        tables = []
        for slot in space.slots:
            choices = [space.genes[column].choices for column in slot.genes]
            table = np.zeros([len(c) + 1 for c in choices])
            for indices in product(*(range(len(c)) for c in choices)):
                block = slot.block(*(c[i] for c, i in zip(choices, indices, strict=True)))
                if block.key not in values:
                    values[block.key] = float(value_of_block(block))
                table[tuple(i + 1 for i in indices)] = values[block.key]
            tables.append((slot.genes, table))
        return cls(space, tables, offset=offset, reduce=reduce)

    def predict(self, archs: "Sequence[Arch] | Population") -> Floats:
        """The metric of each network, shape (n,)."""
        population = as_population(self.space, archs)
        result = np.empty(len(population))
        for start in range(0, len(population), _CHUNK):
            part = slice(start, start + _CHUNK)
            result[part] = self._predict_chunk(population[part])
        return result

    def _predict_chunk(self, population: Population) -> Floats:
        shifted = np.ascontiguousarray(population.T).astype(np.intp) + 1
        total = np.zeros(len(population))
        for columns, table in self.tables:
            index = shifted[columns[0]]
            for column, size in zip(columns[1:], table.shape[1:], strict=True):
                index = index * size + shifted[column]
            gathered = table.ravel().take(index)
            if self.reduce == "sum":
                total += gathered
            else:
                np.maximum(total, gathered, out=total)
        return total + self.offset

    def bounds(self) -> tuple[float, float]:
        """The exact least and greatest value over the whole space."""
        lows, highs = [], []
        genes = self.space.genes
        shared = [c for c, gene in enumerate(genes) if gene.stage < 0]
        for values in product(*(range(1, len(genes[c].choices) + 1) for c in shared)):
            chosen = dict(zip(shared, values, strict=True))
            lows.append(self._extreme(chosen, np.min))
            highs.append(self._extreme(chosen, np.max))
        return min(lows) + self.offset, max(highs) + self.offset

    def _extreme(self, chosen: dict[int, int], best: Callable[..., np.floating]) -> float:
        """The extreme value with the shared genes fixed: blocks are then independent."""
        fixed: list[float] = []
        stages: dict[int, list[float]] = {}
        for columns, table in self.tables:
            free = table[tuple(chosen.get(c, slice(1, None)) for c in columns)]
            owner = {self.space.genes[c].stage for c in columns} - {-1}
            (stages.setdefault(owner.pop(), []) if owner else fixed).append(float(best(free)))
        accumulate = np.cumsum if self.reduce == "sum" else np.maximum.accumulate
        for stage, values in stages.items():
            by_depth = accumulate(values)
            fixed.append(float(best([by_depth[d - 1] for d in self.space.stages[stage].depths])))
        return float(np.sum(fixed) if self.reduce == "sum" else np.max(fixed))


def macs_model(space: SearchSpace) -> AdditiveModel:
    """Multiply-accumulates for one image."""
    return AdditiveModel.from_blocks(space, lambda block: block.macs)


def params_model(space: SearchSpace) -> AdditiveModel:
    """Trained parameters."""
    return AdditiveModel.from_blocks(space, lambda block: block.params)


def peak_memory_model(space: SearchSpace) -> AdditiveModel:
    """Bytes: most float32 activations alive at once, for one image."""
    return AdditiveModel.from_blocks(space, lambda block: block.activation_bytes, reduce="max")
