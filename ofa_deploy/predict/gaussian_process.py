"""Accuracy models from a few measured subnets, by a Gaussian process (scikit-learn).

Over one-hot genes and the logarithm of MACs and parameters: a linear part for what each gene does
alone, a smooth part for what they do together.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from ofa_deploy.cost import as_population, macs_model, params_model
from ofa_deploy.errors import InputError
from ofa_deploy.predict.accuracy import COVERAGE, AccuracyModel, accuracy_facts
from ofa_deploy.predict.onnx_graph import OnnxGraph, add_additive
from ofa_deploy.space import Arch, Population, SearchSpace

__all__ = ["fit_accuracy", "refit_accuracy"]

Floats = npt.NDArray[np.float64]


def fit_accuracy(
    space: SearchSpace, archs: "Sequence[Arch] | Population", top1: Sequence[float]
) -> AccuracyModel:
    """Fit an accuracy model.

    Args:
        archs: measured subnets, each with BN statistics of its own.
        top1: their accuracy in percent, shape (n,).

    Raises:
        InputError: if there are fewer than nine, or an accuracy is not between 0 and 100.
    """
    population = as_population(space, archs)
    measured = np.asarray(top1, float)
    if len(population) != len(measured) or len(population) < 9:
        raise InputError(
            f"expected at least 9 networks and as many accuracies, found {len(population)} and "
            f"{len(measured)}"
        )
    if not ((measured >= 0) & (measured <= 100)).all():
        raise InputError("accuracies must be percent, between 0 and 100")
    features = _Features(space, population)
    process, left_out = _gaussian_process(features(population), measured)
    errors = _errors(left_out, measured)
    facts = accuracy_facts(
        space,
        networks=len(measured),
        margin=errors["margin"],
        rmse=errors["rmse"],
        kendall=errors["kendall"],
        measured=(population, measured),
    )
    return AccuracyModel.of(_to_onnx(features, process), space, facts)


def refit_accuracy(
    model: AccuracyModel, archs: "Sequence[Arch] | Population", top1: Sequence[float]
) -> AccuracyModel:
    """A model fitted anew, to what ``model`` was fitted on and to more.

    One from elsewhere, whose measurements are not known, is returned as it is.
    """
    rows, known = model.measured
    if not len(rows):
        return model
    population = np.concatenate([rows, as_population(model.space, archs)])
    _, first = np.unique(population, axis=0, return_index=True)
    kept = np.sort(first)
    values = np.concatenate([known, np.asarray(top1, float)])
    return fit_accuracy(model.space, population[kept], values[kept].tolist())


def _errors(left_out: Floats, measured: Floats) -> dict[str, float]:
    from scipy.stats import kendalltau

    errors = np.sort(np.abs(left_out - measured))
    rank = min(len(errors), math.ceil((len(errors) + 1) * COVERAGE))
    kendall = float(kendalltau(left_out, measured).statistic)
    return {
        "margin": float(errors[rank - 1]),
        "rmse": float(np.sqrt((errors**2).mean())),
        "kendall": kendall if math.isfinite(kendall) else 0.0,
    }


class _Features:
    """Population rows to features: one-hot genes, then standardised log MACs and log params."""

    def __init__(self, space: SearchSpace, population: Population) -> None:
        pairs = [
            (column, choice)
            for column, gene in enumerate(space.genes)
            for choice in range(len(gene.choices))
            if len(gene.choices) > 1
        ]
        self.columns = np.array([column for column, _ in pairs], np.int64)
        self.choices = np.array([choice for _, choice in pairs], np.int64)
        self.costs = [macs_model(space), params_model(space)]
        raw = self._log_costs(population)
        self.mean, self.scale = raw.mean(0), np.maximum(raw.std(0), 1e-6)

    def _log_costs(self, population: Population) -> Floats:
        return np.log(np.stack([cost.predict(population) for cost in self.costs], axis=1))

    def __call__(self, population: Population) -> Floats:
        one_hot = population[:, self.columns] == self.choices
        costs = (self._log_costs(population) - self.mean) / self.scale
        return np.concatenate([one_hot, costs], axis=1)


def _gaussian_process(features: Floats, measured: Floats) -> tuple[dict[str, Any], Floats]:
    """The fitted process as arrays, and its leave-one-out predictions."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

    kernel = (
        ConstantKernel(0.1, (1e-4, 1e2)) * DotProduct(1.0, (1e-3, 1e2))
        + ConstantKernel(0.5, (1e-4, 1e2)) * RBF(3.0, (0.5, 50))
        + WhiteKernel(0.05, (1e-4, 1.0))
    )
    with warnings.catch_warnings():
        # A hyper-parameter at its bound says that its part of the kernel is not needed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        process.fit(features, measured)
    linear, smooth = process.kernel_.k1.k1, process.kernel_.k1.k2
    shift, spread = float(process._y_train_mean), float(process._y_train_std)
    inverse = np.linalg.inv(process.kernel_(features))
    targets = (measured - shift) / spread
    # Rasmussen & Williams 2006, eq. 5.12
    left_out = targets - (inverse @ targets) / np.diag(inverse)
    dual = process.alpha_ * spread
    fitted = {
        "support": features,
        "dual": dual * smooth.k1.constant_value,
        "length": smooth.k2.length_scale,
        "weights": linear.k1.constant_value * (features.T @ dual),
        "bias": shift + linear.k1.constant_value * linear.k2.sigma_0**2 * float(dual.sum()),
    }
    return fitted, left_out * spread + shift


def _to_onnx(features: _Features, process: dict[str, Any]) -> onnx.ModelProto:
    """``population`` float32 (n, genes) to ``top1`` float32 (n,)."""
    graph = OnnxGraph()
    one_hot = graph.add(
        "Equal",
        graph.add("Gather", "population", graph.ints(features.columns), axis=1),
        graph.floats(features.choices),
    )
    logs = [graph.add("Log", add_additive(graph, cost)) for cost in features.costs]
    costs = graph.add("Concat", *logs, axis=1)
    costs = graph.add("Sub", costs, graph.floats(features.mean))
    costs = graph.add("Div", costs, graph.floats(features.scale))
    x = graph.add("Concat", graph.add("Cast", one_hot, to=TensorProto.FLOAT), costs, axis=1)
    support, length = process["support"], process["length"]
    # |x - s|² = |x|² - 2 x·s + |s|²
    cross = graph.add("MatMul", x, graph.floats(-2 * support.T))
    squared = graph.add("ReduceSumSquare", x, axes=[1], keepdims=1)
    distance = graph.add("Add", graph.add("Add", cross, squared), graph.floats((support**2).sum(1)))
    near = graph.add("Exp", graph.add("Mul", distance, graph.floats(-0.5 / length**2)))
    smooth = graph.add("MatMul", near, graph.floats(process["dual"]))
    linear = graph.add("MatMul", x, graph.floats(process["weights"]))
    graph.add("Add", graph.add("Add", smooth, linear), graph.floats(process["bias"]))
    return graph.model("accuracy", "population", "top1")
