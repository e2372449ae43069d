"""Accuracy models: top-1 of any subnet from a few measured ones.

A Gaussian process (scikit-learn) over one-hot genes and the logarithm of MACs and parameters: a
linear part for what each gene does alone, a smooth part for what they do together. Once fitted it
is written as one ONNX graph from population rows to percent, and that graph is the model: what
predicts in the process that fitted it is what is saved and loaded elsewhere.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy._files import read_bytes, write_bytes
from ofa_deploy.cost import AdditiveModel, as_population, macs_model, params_model
from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.space import Arch, Population, SearchSpace

__all__ = ["AccuracyModel", "fit_accuracy", "load_accuracy_model"]

Floats = npt.NDArray[np.float64]
_SCHEMA = "accuracy-model/1"
_COVERAGE = 0.9
_LIMIT = 64 * 2**20


class AccuracyModel:
    """Predicts top-1 in percent.

    Attributes:
        margin: half-width of the 90 % interval, in points, from leave-one-out errors.
        rmse: leave-one-out root mean squared error, in points.
        kendall: leave-one-out rank correlation.
        networks: how many measured subnets it was fitted on.
    """

    def __init__(self, model: onnx.ModelProto, space: SearchSpace) -> None:
        import onnxruntime as ort

        self.space = space
        facts = _facts(model)
        if facts["fingerprint"] != space.fingerprint:
            raise MismatchError(
                f"the accuracy model was fitted for space {facts['space']} "
                f"({facts['fingerprint']}), not for {space.name} ({space.fingerprint})"
            )
        self.margin = float(facts["margin"])
        self.rmse = float(facts["rmse"])
        self.kendall = float(facts["kendall"])
        self.networks = int(facts["networks"])
        self._bytes = model.SerializeToString()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # the same answer at any number of threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            self._bytes, options, providers=["CPUExecutionProvider"]
        )

    def predict(self, archs: "Sequence[Arch] | Population") -> Floats:
        """Top-1 of each network in percent, shape (n,)."""
        population = as_population(self.space, archs)
        if not len(population):
            return np.empty(0)
        rows = population.astype(np.float32)
        return np.asarray(self._session.run(None, {"population": rows})[0], np.float64)

    def interval(self, archs: "Sequence[Arch] | Population") -> tuple[Floats, Floats]:
        """(low, high) in percent, each of shape (n,)."""
        predicted = self.predict(archs)
        return predicted - self.margin, predicted + self.margin

    def save(self, path: Path | str) -> Path:
        """Write the model as ONNX."""
        return write_bytes(path, self._bytes)

    def __str__(self) -> str:
        return (
            f"accuracy model from {self.networks} subnets: leave-one-out error {self.rmse:.2f} "
            f"points, rank correlation {self.kendall:.3f}"
        )


def load_accuracy_model(path: Path | str, space: SearchSpace | None = None) -> AccuracyModel:
    """Read what ``AccuracyModel.save`` wrote.

    Args:
        space: checked against the one in the file; taken from the file when not given.

    Raises:
        FileFormatError: if the file is damaged or not an accuracy model.
        MismatchError: if it was fitted for another space.
    """
    from google.protobuf.message import DecodeError

    data = read_bytes(path, limit=_LIMIT)
    try:
        model = onnx.load_model_from_string(data)
        facts = _facts(model)
        found = SearchSpace.from_dict(json.loads(facts["space_definition"]))
        return AccuracyModel(model, found if space is None else space)
    except MismatchError:
        raise
    except (DecodeError, KeyError, ValueError, FileFormatError) as error:
        raise FileFormatError(f"{path}: not an accuracy model ({error})") from None
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise FileFormatError(f"{path}: damaged accuracy model ({type(error).__name__})") from None


def _facts(model: onnx.ModelProto) -> dict[str, str]:
    facts = {entry.key: entry.value for entry in model.metadata_props}
    if facts.get("schema") != _SCHEMA:
        raise FileFormatError(f"expected schema {_SCHEMA!r}, found {facts.get('schema')!r}")
    return facts


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
    facts = {
        "schema": _SCHEMA,
        "space": space.name,
        "space_definition": json.dumps(space.to_dict()),
        "fingerprint": space.fingerprint,
        "networks": str(len(measured)),
        **_errors(left_out, measured),
    }
    model = _to_onnx(features, process)
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return AccuracyModel(model, space)


def _errors(left_out: Floats, measured: Floats) -> dict[str, str]:
    from scipy.stats import kendalltau

    errors = np.sort(np.abs(left_out - measured))
    rank = min(len(errors), math.ceil((len(errors) + 1) * _COVERAGE))
    kendall = float(kendalltau(left_out, measured).statistic)
    return {
        "margin": repr(float(errors[rank - 1])),
        "rmse": repr(float(np.sqrt((errors**2).mean()))),
        "kendall": repr(kendall if math.isfinite(kendall) else 0.0),
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
    graph = _Graph()
    one_hot = graph.add(
        "Equal",
        graph.add("Gather", "population", graph.ints(features.columns), axis=1),
        graph.floats(features.choices),
    )
    logs = [graph.add("Log", _additive(graph, cost)) for cost in features.costs]
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
    graph.nodes[-1].output[0] = "top1"
    return graph.model()


def _additive(graph: "_Graph", cost: AdditiveModel) -> str:
    """An additive model as a gather: one flat table, one index a row and table; shape (n, 1)."""
    strides = np.zeros((len(cost.space.genes), len(cost.tables)))
    offsets: list[float] = []
    flat: list[Floats] = []
    for position, (columns, table) in enumerate(cost.tables):
        sizes = table.shape
        for axis, column in enumerate(columns):
            strides[column, position] = int(np.prod(sizes[axis + 1 :]))
        # index 0 of every axis means inactive, which a row writes as -1
        offsets.append(sum(map(len, flat)) + float(strides[:, position].sum()))
        flat.append(table.ravel())
    index = graph.add("MatMul", "population", graph.floats(strides))
    index = graph.add("Cast", graph.add("Add", index, graph.floats(offsets)), to=TensorProto.INT64)
    gathered = graph.add("Gather", graph.floats(np.concatenate(flat)), index)
    return graph.add("ReduceSum", gathered, graph.ints([1]), keepdims=1)


class _Graph:
    """Nodes and constants of a small ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def _constant(self, array: npt.NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, values: npt.ArrayLike) -> str:
        return self._constant(np.asarray(values, np.float32))

    def ints(self, values: npt.ArrayLike) -> str:
        return self._constant(np.asarray(values, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def model(self) -> onnx.ModelProto:
        source = helper.make_tensor_value_info("population", TensorProto.FLOAT, ["n", None])
        target = helper.make_tensor_value_info("top1", TensorProto.FLOAT, ["n"])
        graph = helper.make_graph(self.nodes, "accuracy", [source], [target], self.constants)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
            producer_name="ofa_deploy",
        )
