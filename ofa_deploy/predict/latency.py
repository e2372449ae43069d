"""``LatencyModel``: an additive model that knows its error, with an honest interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.predict.conformal import COVERAGE, conformal_margin
from ofa_deploy.space import Arch, Population

__all__ = ["HoldoutError", "LatencyModel"]

Floats = npt.NDArray[np.float64]


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
        margin: half-width of the interval, relative to the prediction; 0 when unknown.
        coverage: share of networks, drawn at random, that the interval holds; 0 when unknown.
        holdout: its error on unseen networks, when there were any.
    """

    margin: float = 0.0
    coverage: float = 0.0
    holdout: HoldoutError | None = None

    def interval(self, archs: "Sequence[Arch] | Population") -> tuple[Floats, Floats]:
        """(low, high) in ms, each of shape (n,)."""
        return self.widen(self.predict(archs))

    def widen(self, predicted: Floats) -> tuple[Floats, Floats]:
        """(low, high) around predictions."""
        return predicted * (1 - self.margin), predicted * (1 + self.margin)

    def judge(self, archs: "Sequence[Arch] | Population", ms: Sequence[float]) -> None:
        """Set ``margin`` and ``holdout`` from networks that had no part in the fit.

        The margin is that of ``conformal_margin``, of the relative errors.
        """
        measured = np.asarray(ms, float)
        predicted = self.predict(archs)
        errors = np.abs(measured / predicted - 1)
        self.margin = min(conformal_margin(errors), 0.99)
        self.coverage = min(COVERAGE, len(errors) / (len(errors) + 1))
        self.holdout = HoldoutError.of(predicted, measured)
