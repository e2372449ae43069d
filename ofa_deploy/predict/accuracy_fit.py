"""Accuracy models from a few measured subnets, by a Gaussian process (scikit-learn)."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from ofa_deploy.cost import as_population
from ofa_deploy.errors import InputError
from ofa_deploy.predict.accuracy import AccuracyModel, accuracy_facts
from ofa_deploy.predict.conformal import conformal_margin
from ofa_deploy.predict.features import Features, features_of
from ofa_deploy.predict.gaussian_process import Process, fit_process, leave_one_out
from ofa_deploy.predict.onnx_graph import OnnxGraph
from ofa_deploy.space import Arch, Population, SearchSpace
from ofa_deploy.system import one_blas_thread

__all__ = ["fit_accuracy", "refit_accuracy"]

Floats = npt.NDArray[np.float64]

_FEWEST = 9  # of nine errors the largest is what 90 % stay below
_MOST = 5_000  # time grows with the cube


@one_blas_thread
def fit_accuracy(
    space: SearchSpace, archs: "Sequence[Arch] | Population", top1: "Sequence[float] | Floats"
) -> AccuracyModel:
    """Fit an accuracy model.

    Args:
        archs: measured subnets, each with BN statistics of its own.
        top1: their accuracy in percent, shape (n,).

    Raises:
        InputError: if there are fewer than nine or more than 5,000, or an accuracy is not between 0
            and 100.
    """
    population = as_population(space, archs)
    measured = np.asarray(top1, float)
    if measured.shape != (len(population),) or not _FEWEST <= len(population) <= _MOST:
        raise InputError(
            f"expected at least {_FEWEST} networks, at most {_MOST:,}, and as many accuracies, "
            f"found {len(population)} and {measured.size}"
        )
    if not ((measured >= 0) & (measured <= 100)).all():
        raise InputError("accuracies must be percent, between 0 and 100")
    features = features_of(space)
    if not features.names:
        raise InputError(f"space {space.name} holds a single network: there is nothing to learn")
    seen = features(population)
    process = fit_process(seen, features.groups, measured)
    margin, rmse, kendall = _errors(leave_one_out(process, seen, measured), measured)
    facts = accuracy_facts(
        space,
        networks=len(measured),
        margin=margin,
        rmse=rmse,
        kendall=kendall,
        measured=(population, measured),
    )
    return AccuracyModel.of(_to_onnx(features, process), space, facts)


@one_blas_thread
def refit_accuracy(
    model: AccuracyModel, archs: "Sequence[Arch] | Population", top1: "Sequence[float] | Floats"
) -> AccuracyModel:
    """A model fitted anew, to what ``model`` was fitted on and to more.

    A network that the model was fitted on already keeps its accuracy. A model from elsewhere, whose
    measurements are not known, is returned as it is.

    Raises:
        InputError: as ``fit_accuracy``.
    """
    rows, known = model.measured
    if not len(rows):
        return model
    space, values = model.fitted_space, np.asarray(top1, float)
    more = space.encode(model.space.decode(as_population(model.space, archs)))
    if values.shape != (len(more),):
        raise InputError(
            f"expected one accuracy a network, found {len(more)} networks and {values.size} "
            "accuracies"
        )
    population = np.concatenate([rows, more])
    _, first = np.unique(population, axis=0, return_index=True)
    kept = np.sort(first)
    fitted = fit_accuracy(space, population[kept], np.concatenate([known, values])[kept])
    return fitted if space.fingerprint == model.space.fingerprint else fitted.onto(model.space)


def _errors(left_out: Floats, measured: Floats) -> tuple[float, float, float]:
    """Margin, root mean squared error, rank correlation."""
    from scipy.stats import kendalltau

    errors = np.abs(left_out - measured)
    kendall = float(kendalltau(left_out, measured).statistic)
    return (
        conformal_margin(errors),
        float(np.sqrt((errors**2).mean())),
        kendall if math.isfinite(kendall) else 0.0,
    )


def _to_onnx(features: Features, process: Process) -> onnx.ModelProto:
    """``population`` float32 (n, genes) to ``top1`` float32 (n,)."""
    numbers, warp = process.numbers, process.warp
    pairs, local, near, _ = numbers.others
    support = process.regressor.X_train_
    dual = process.regressor.alpha_
    graph = OnnxGraph()
    x = graph.add("Mul", features.add_to(graph), graph.floats(numbers.scaled(np.ones(1))))
    # The effects of features and of their pairs are sums over networks that need no network.
    slope = graph.add("MatMul", x, graph.floats(pairs * (support.T * dual) @ support))
    slope = graph.add("Add", slope, graph.floats(support.T @ dual))
    effects = graph.add("ReduceSum", graph.add("Mul", slope, x), graph.ints([1]), keepdims=0)
    # |x - s|² = |x|² - 2 x·s + |s|²
    cross = graph.add("MatMul", x, graph.floats(near * support.T))
    norm = graph.add("ReduceSumSquare", x, axes=[1], keepdims=1)
    norm = graph.add("Mul", norm, graph.floats(-near / 2))
    cross = graph.add("Add", cross, graph.floats(-near / 2 * (support**2).sum(1)))
    shared = graph.add("Exp", graph.add("Add", cross, norm))
    shared = graph.add("MatMul", shared, graph.floats(local * dual))
    seen = graph.add("Add", effects, shared)
    # ceiling - exp(-(mean + spread · (seen + bias)))
    seen = graph.add("Mul", seen, graph.floats(-warp.spread))
    seen = graph.add("Add", seen, graph.floats(-warp.mean - warp.spread * dual.sum()))
    below = graph.add("Exp", seen)
    top1 = graph.add("Sub", graph.floats(warp.ceiling), below)
    graph.add("Clip", top1, graph.floats(0.0), graph.floats(100.0))
    return graph.model("accuracy", "population", "top1")
