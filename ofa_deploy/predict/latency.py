"""Latency models: a sum of blocks, corrected by whole networks, with an honest interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel, as_population, macs_model
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.space import Arch, Block, Population, SearchSpace

__all__ = ["HoldoutError", "LatencyModel", "fit_latency", "latency_model"]

Floats = npt.NDArray[np.float64]
COVERAGE = 0.9


@dataclass(frozen=True)
class HoldoutError:
    """How far predictions were off on networks that the model had never seen.

    Attributes:
        networks: how many.
        mape: mean absolute error, percent.
        within_5, within_10: share of networks within 5 and 10 %, percent.
        spearman: rank correlation.
    """

    networks: int
    mape: float
    within_5: float
    within_10: float
    spearman: float

    @classmethod
    def of(cls, predicted: Floats, measured: Floats) -> "HoldoutError":
        """Compare predictions with measurements, both in ms, shape (n,)."""
        from scipy.stats import spearmanr

        relative = np.abs(predicted / measured - 1)
        return cls(
            networks=len(measured),
            mape=100 * float(relative.mean()),
            within_5=100 * float((relative <= 0.05).mean()),
            within_10=100 * float((relative <= 0.10).mean()),
            spearman=float(spearmanr(predicted, measured).statistic),
        )

    def __str__(self) -> str:
        return (
            f"{self.networks} hold-out networks: mean error {self.mape:.1f} %, "
            f"{self.within_5:.0f} % within 5 %, {self.within_10:.0f} % within 10 %, "
            f"rank correlation {self.spearman:.3f}"
        )


class LatencyModel(AdditiveModel):
    """An additive latency model that knows its error.

    Attributes:
        margin: half-width of the 90 % interval, relative to the prediction; 0 when unknown.
        holdout: its error on unseen networks, when there were any.
    """

    margin: float = 0.0
    holdout: HoldoutError | None = None

    def interval(self, archs: "Sequence[Arch] | Population") -> tuple[Floats, Floats]:
        """(low, high) in ms, each of shape (n,)."""
        return self.widen(self.predict(archs))

    def widen(self, predicted: Floats) -> tuple[Floats, Floats]:
        """(low, high) around predictions."""
        return predicted * (1 - self.margin), predicted * (1 + self.margin)

    def judge(self, archs: "Sequence[Arch] | Population", ms: Sequence[float]) -> None:
        """Set ``margin`` and ``holdout`` from networks that had no part in the fit.

        The margin is the split-conformal quantile of the relative errors (Vovk et al. 2005), for
        90 % coverage of networks drawn like these.
        """
        measured = np.asarray(ms, float)
        predicted = self.predict(archs)
        errors = np.sort(np.abs(measured / predicted - 1))
        rank = min(len(errors), int(np.ceil((len(errors) + 1) * COVERAGE)))
        self.margin = float(min(errors[rank - 1], 0.99))
        self.holdout = HoldoutError.of(predicted, measured)


def latency_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """The calibrated model of a table: its blocks, corrected by its calibration networks.

    Raises:
        MismatchError: if the table was made for another space.
    """
    table.check_for(space)
    blocks = AdditiveModel.from_blocks(space, table.value)
    model = fit_latency(space, *table.archs("calibration"), priors=[blocks])
    archs, ms = table.archs("holdout")
    if archs:
        model.judge(archs, ms)
    return model


def fit_latency(
    space: SearchSpace,
    archs: "Sequence[Arch] | Population",
    ms: Sequence[float],
    priors: Sequence[AdditiveModel] = (),
) -> LatencyModel:
    """A latency model from a few whole networks.

    The result is a non-negative combination of the priors, a cost a block and a constant, so it
    stays additive.

    Args:
        archs: the measured networks.
        ms: their latency, shape (n,).
        priors: models of the same space, such as the sum of measured blocks or another device's
            model; MACs when none is given.

    Raises:
        InputError: if there are fewer than three networks, or a latency is not positive.
    """
    population = as_population(space, archs)
    measured = np.asarray(ms, float)
    if len(population) != len(measured) or len(population) < 3:
        raise InputError(
            f"expected at least 3 networks and as many latencies, found {len(population)} and "
            f"{len(measured)}"
        )
    if not (np.isfinite(measured) & (measured > 0)).all():
        raise InputError("latencies must be positive and finite, in ms")
    for prior in priors:
        if prior.space.fingerprint != space.fingerprint:
            raise MismatchError(f"a prior is for space {prior.space.name}, not {space.name}")
    parts = [*(priors or [macs_model(space)]), AdditiveModel.from_blocks(space, _one)]
    features = np.stack([part.predict(population) for part in parts], axis=1)
    weights, offset = _relative_nnls(features, measured)
    return _combination(space, parts, weights, offset)


def _one(block: Block) -> float:
    return 1.0


def _relative_nnls(features: Floats, measured: Floats) -> tuple[Floats, float]:
    """Non-negative weights and offset that minimise the squared relative error."""
    from scipy.optimize import nnls

    scale = np.abs(features).max(axis=0)
    design = np.column_stack([features / scale, np.ones(len(features))]) / measured[:, None]
    solution, _ = nnls(design, np.ones(len(features)))
    return solution[:-1] / scale, float(solution[-1])


def _combination(
    space: SearchSpace, parts: Sequence[AdditiveModel], weights: Floats, offset: float
) -> LatencyModel:
    tables = [
        (columns, weight * table)
        for part, weight in zip(parts, weights, strict=True)
        for columns, table in part.tables
    ]
    offset += float(sum(w * part.offset for part, w in zip(parts, weights, strict=True)))
    return LatencyModel(space, tables, offset=offset)
