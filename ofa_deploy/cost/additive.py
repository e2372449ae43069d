"""``AdditiveModel``: a metric of a network as the sum (or maximum) over its blocks.

One table a slot, indexed by the genes that decide the slot's block; predicting a population is a
gather and a sum a table, millions of networks a second.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, Block, Population, SearchSpace, choices_within

__all__ = [
    "AdditiveModel",
    "as_population",
    "macs_model",
    "model_size_model",
    "params_model",
    "peak_memory_model",
]

_KEPT = 32  # models of costs
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
        reduce: ``"sum"``, or ``"max"`` of values that are not negative (0 is an inactive block).
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
        if reduce == "max" and any((table < 0).any() for _, table in tables):
            raise InputError("the maximum over blocks needs values that are not negative")
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
            table = np.zeros([size + 1 for size in slot.sizes])
            for indices, block in slot.blocks():
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
        shifted = np.add(population.T, 1, dtype=np.intp, order="C")
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

    def bounds(self, allowed: Sequence[npt.NDArray[np.bool_]] | None = None) -> tuple[float, float]:
        """The exact least and greatest value over the whole space.

        Args:
            allowed: for each gene, which of its choices may be taken; all if not given.
        """
        if allowed is None:
            allowed = [np.ones(len(gene.choices), bool) for gene in self.space.genes]
        return self._extreme(np.min, np.inf, allowed), self._extreme(np.max, -np.inf, allowed)

    def onto(self, space: SearchSpace) -> Self:
        """The same model for a space with fewer resolutions.

        Raises:
            MismatchError: if that space has choices that this model does not know.
        """
        axes = [np.r_[0, 1 + choices] for choices in choices_within(space, self.space)]
        other = copy(self)
        other.space = space
        other.tables = tuple(
            (columns, table[np.ix_(*(axes[column] for column in columns))])
            for columns, table in self.tables
        )
        return other

    def _extreme(
        self,
        best: Callable[..., Floats],
        impossible: float,
        allowed: Sequence[npt.NDArray[np.bool_]],
    ) -> float:
        """Eliminate one gene after the other (Dechter 1999): each meets only few others."""
        genes = self.space.genes
        join = np.add if self.reduce == "sum" else np.maximum
        factors = [_Factor(columns, table) for columns, table in self.tables]
        # A block's genes meet their stage's depth and widths; those meet the neighbouring stage's.
        for column in sorted(range(len(genes)), key=lambda c: (genes[c].block < 0, -c)):
            touched = [factor for factor in factors if column in factor.columns]
            factors = [factor for factor in factors if column not in factor.columns]
            activity = _activity(self.space, column, impossible)
            choices = np.where(np.r_[True, allowed[column]], 0.0, impossible)
            possible = _joined(
                [_joined(touched, join), activity, _Factor((column,), choices)], np.add
            )
            factors.append(possible.without(column, best))
        total = _joined(factors, join).table
        return float(total) + self.offset


@dataclass(frozen=True)
class _Factor:
    """Values by the choices of some genes: axes as in ``AdditiveModel``'s tables."""

    columns: tuple[int, ...]
    table: Floats

    def without(self, column: int, best: Callable[..., Floats]) -> "_Factor":
        """The best over one gene."""
        axis = self.columns.index(column)
        left = self.columns[:axis] + self.columns[axis + 1 :]
        return _Factor(left, best(self.table, axis=axis))

    def spread(self, columns: tuple[int, ...]) -> Floats:
        """The table with an axis for each of ``columns``, of length 1 where it has none."""
        order = np.argsort([columns.index(c) for c in self.columns])
        shape = dict(zip(self.columns, self.table.shape, strict=True))
        return self.table.transpose(order).reshape([shape.get(c, 1) for c in columns])


def _joined(factors: Sequence[_Factor], join: np.ufunc) -> _Factor:
    columns = tuple(dict.fromkeys(column for factor in factors for column in factor.columns))
    table = reduce(join, (factor.spread(columns) for factor in factors))
    return _Factor(columns, table)


def _activity(space: SearchSpace, column: int, impossible: float) -> _Factor:
    """What rules out rows that do not exist: added, it makes them infinite.

    A gene is inactive exactly where its block is.
    """
    gene = space.genes[column]
    depth = space.columns.get(f"depth[{gene.stage}]")
    if gene.block < 0 or depth is None:
        allowed = np.zeros(len(gene.choices) + 1)
        allowed[0] = impossible
        return _Factor((column,), allowed)
    depths = np.array(space.genes[depth].choices)
    active = space.stages[gene.stage].base_depth + depths > gene.block
    table = np.full((len(depths) + 1, len(gene.choices) + 1), impossible)
    table[1:, 0][~active] = 0
    table[1:, 1:][active] = 0
    return _Factor((depth, column), table)


_BY_BLOCK: dict[str, tuple[Callable[[Block], float], str]] = {
    "macs": (lambda block: block.macs, "sum"),
    "params": (lambda block: block.params, "sum"),
    "model_size": (lambda block: block.weight_bytes, "sum"),
    "peak_memory": (lambda block: block.activation_bytes, "max"),
}
_made: dict[tuple[str, str], AdditiveModel] = {}


def _made_once(space: SearchSpace, name: str) -> AdditiveModel:
    """Every search asks for all of them, and making one takes a while."""
    key = (space.fingerprint, name)
    if key not in _made:
        if len(_made) >= _KEPT:
            _made.clear()
        value, reduce = _BY_BLOCK[name]
        _made[key] = AdditiveModel.from_blocks(space, value, reduce=reduce)
    return _made[key] if _made[key].space == space else _made[key].onto(space)


def macs_model(space: SearchSpace) -> AdditiveModel:
    """Multiply-accumulates for one image."""
    return _made_once(space, "macs")


def params_model(space: SearchSpace) -> AdditiveModel:
    """Trained parameters."""
    return _made_once(space, "params")


def model_size_model(space: SearchSpace) -> AdditiveModel:
    """Bytes of float32 weights, BN folded: an exported file less its graph, a few hundred kB."""
    return _made_once(space, "model_size")


def peak_memory_model(space: SearchSpace) -> AdditiveModel:
    """Bytes: most float32 activations alive at once, for one image."""
    return _made_once(space, "peak_memory")
