"""What accuracy models see of a network: each gene, what a stage's genes add up to, and its costs.

Choices stand on scales that accuracy follows nearly straight: the inverse of the kernel size, the
logarithms of expansion ratios, widths and resolutions. A second feature of each gene holds what is
bent. Costs are the logarithms of every stage's MACs and parameters, which level off as a stage gets
deeper and wider, as accuracy does.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.predict.onnx_graph import OnnxGraph, add_additive
from ofa_deploy.space import Gene, Population, SearchSpace

__all__ = ["Features", "features_of"]

Floats = npt.NDArray[np.float64]

_SAMPLE = 512  # networks by which costs are standardised


class Features:
    """The features of a space's networks.

    Attributes:
        names: of the groups; features of a group are alike, and so are their effects.
        groups: the group of each feature, shape (m,).
    """

    def __init__(self, space: SearchSpace) -> None:
        terms: dict[tuple[str, Any], list[tuple[int, Floats]]] = {}
        for column, gene in enumerate(space.genes):
            for group, which, values in _terms(space, gene) if len(gene.choices) > 1 else ():
                terms.setdefault((group, which), []).append((column, values))
        self._pairs, self._matrix = _one_hot(space, list(terms.values()))
        costs = _stage_costs(space)
        sample = space.sample(np.random.default_rng(0), _SAMPLE)
        logs = {name: np.log(cost.predict(sample)) for name, cost in costs.items()}
        kept = [name for name, values in logs.items() if values.std() > 1e-9]
        self._costs = [costs[name] for name in kept]
        self._mean = np.array([logs[name].mean() for name in kept])
        self._scale = np.array([logs[name].std() for name in kept])
        groups = [group for group, _ in [*terms, *kept]]
        self.names = tuple(dict.fromkeys(groups))
        self.groups = np.array([self.names.index(group) for group in groups], np.intp)

    def __call__(self, population: Population) -> Floats:
        """Features of each network, shape (n, m)."""
        columns, choices = self._pairs.T
        one_hot = population[:, columns] == choices
        logs = [np.log(cost.predict(population)) for cost in self._costs]
        costs = (np.stack(logs, axis=1) - self._mean) / self._scale if logs else []
        return np.concatenate([one_hot @ self._matrix, *([costs] if logs else [])], axis=1)

    def add_to(self, graph: OnnxGraph) -> str:
        """The same as nodes of a graph whose input is ``population``."""
        genes = graph.add("MatMul", self._add_one_hot(graph), graph.floats(self._matrix))
        if not self._costs:
            return genes
        logs = [graph.add("Log", add_additive(graph, cost)) for cost in self._costs]
        costs = graph.add("Concat", *logs, axis=1)
        costs = graph.add("Sub", costs, graph.floats(self._mean))
        costs = graph.add("Div", costs, graph.floats(self._scale))
        return graph.add("Concat", genes, costs, axis=1)

    def _add_one_hot(self, graph: OnnxGraph) -> str:
        """Genes of equal numbers of choices together: to pick a column for each pair is slow."""
        columns, sizes = np.unique(self._pairs[:, 0], return_counts=True)
        parts = []
        for size in np.unique(sizes):
            own = columns[sizes == size]
            picked = graph.add("Gather", "population", graph.ints(own), axis=1)
            picked = graph.add("Unsqueeze", picked, graph.ints([2]))
            same = graph.add("Equal", picked, graph.floats(np.arange(size)))
            same = graph.add("Cast", same, to=TensorProto.FLOAT)
            parts.append(graph.add("Reshape", same, graph.ints([-1, len(own) * size])))
        return graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]


@lru_cache(maxsize=8)
def features_of(space: SearchSpace) -> Features:
    """The features of a space, made once."""
    return Features(space)


def _one_hot(
    space: SearchSpace, terms: list[list[tuple[int, Floats]]]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Pairs of gene column and choice, by the gene's number of choices, shape (p, 2).

    And what each adds to each feature, shape (p, len(terms)).
    """
    genes = sorted(enumerate(space.genes), key=lambda pair: len(pair[1].choices))
    pairs = [
        (column, choice)
        for column, gene in genes
        for choice in range(len(gene.choices))
        if len(gene.choices) > 1
    ]
    row = {pair: i for i, pair in enumerate(pairs)}
    matrix = np.zeros((len(pairs), len(terms)))
    for feature, parts in enumerate(terms):
        for column, values in parts:
            for choice, value in enumerate(values):
                matrix[row[column, choice], feature] += value
    return np.array(pairs, np.int64).reshape(-1, 2), matrix


def _terms(space: SearchSpace, gene: Gene) -> Iterator[tuple[str, Any, Floats]]:
    """What a gene adds to which features: (group, feature's name, values by choice)."""
    level = _level(space, gene)
    yield gene.kind, gene.name, level
    if len(level) > 2:
        yield f"{gene.kind} bend", gene.name, _bend(level)
    if gene.block >= 0:
        yield f"{gene.kind} of stage", gene.stage, level
    if gene.kind == "depth":
        for choice in range(1, len(level)):
            yield "block", (gene.name, choice), (np.arange(len(level)) >= choice).astype(float)


def _level(space: SearchSpace, gene: Gene) -> Floats:
    """A gene's choices from -1 to 1, on a scale that accuracy follows nearly straight."""
    values = np.array(gene.choices, float)
    match gene.kind:
        case "kernel":
            values = -1 / values
        case "width":
            values = np.log(np.array(space.width_multipliers)[values.astype(int)])
        case "expand" | "resolution":
            values = np.log(values)
    least, most = values.min(), values.max()
    return np.asarray((2 * values - least - most) / (most - least))


def _bend(level: Floats) -> Floats:
    """The part of the square that no straight line through the choices explains, one in range."""
    line = np.stack([np.ones(len(level)), level], axis=1)
    rest = level**2 - line @ np.linalg.lstsq(line, level**2, rcond=None)[0]
    return np.asarray(rest / np.ptp(rest))


def _stage_costs(space: SearchSpace) -> dict[tuple[str, int], AdditiveModel]:
    """MACs and parameters of every elastic stage."""
    tables: dict[tuple[str, int], list[tuple[tuple[int, ...], Floats]]] = {}
    for slot in space.slots:
        kind, _, place = slot.name.partition(".")
        stage = int(place.partition(".")[0]) if kind == "stages" else -1
        if stage not in space.elastic_stages:
            continue
        macs, params = np.zeros((2, *(size + 1 for size in slot.sizes)))
        for indices, block in slot.blocks():
            cell = tuple(i + 1 for i in indices)
            macs[cell], params[cell] = block.macs, block.params
        tables.setdefault(("macs", stage), []).append((slot.genes, macs))
        tables.setdefault(("params", stage), []).append((slot.genes, params))
    return {name: AdditiveModel(space, parts) for name, parts in tables.items()}
