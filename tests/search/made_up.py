"""Accuracies and latencies that are known of every network."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.predict import LatencyModel
from ofa_deploy.space import Population, SearchSpace

Floats = npt.NDArray[np.float64]


@dataclass
class Accuracy:
    """Top-1 that grows with every gene, each by an amount of its own, and with pairs of genes.

    All amounts are multiples of 2⁻²⁰, so that sums are exact in any order.

    Attributes:
        margin: half-width of its interval; none when 0.
        rows: how many rows it was asked for.
    """

    space: SearchSpace
    margin: float = 0.0
    rows: int = field(default=0, compare=False)

    def predict(self, archs: Population) -> Floats:
        self.rows += len(archs)
        awake = (archs + 1).astype(float)
        n = archs.shape[1]
        weights = np.random.default_rng(0).integers(0.2 * 2**20, 2 * 2**20, n) / 2**20
        pairs = np.random.default_rng(1).integers(-0.15 * 2**20, 0.2 * 2**20, (n, n)) / 2**20
        return 30 + awake @ weights + np.einsum("ni,ij,nj->n", awake, pairs, awake)


class UncertainAccuracy(Accuracy):
    def interval(self, archs: Population) -> tuple[Floats, Floats]:
        return self.predict(archs) - self.margin, self.predict(archs) + self.margin


def latency_of(space: SearchSpace, *, margin: float = 0.0, power: float = 0.7) -> LatencyModel:
    """Milliseconds that grow slower than MACs, and with the kernel."""
    model = LatencyModel(
        space,
        AdditiveModel.from_blocks(
            space, lambda block: 1e-4 * block.macs**power + 0.01 * block.kernel
        ).tables,
        offset=0.2,
    )
    model.margin = margin
    return model


def budgets(latency: LatencyModel) -> list[float]:
    """Four limits from tight to loose."""
    least, greatest = latency.bounds()
    return [least + share * (greatest - least) for share in (0.02, 0.2, 0.5, 0.9)]
