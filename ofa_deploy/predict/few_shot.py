"""A latency model from a few whole networks and what is known of other devices."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel, as_population, macs_model
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.predict.latency import LatencyModel
from ofa_deploy.space import Arch, Block, Population, SearchSpace

__all__ = ["fit_latency"]

Floats = npt.NDArray[np.float64]


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
