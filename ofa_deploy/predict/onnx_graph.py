"""Small ONNX graphs from population rows to a metric: how models of metrics are kept."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.cost import AdditiveModel

__all__ = ["OnnxGraph", "add_additive"]

Floats = npt.NDArray[np.float64]


class OnnxGraph:
    """Nodes and constants of a small ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def _constant(self, array: npt.NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, values: npt.ArrayLike) -> str:
        """A float32 constant's name."""
        return self._constant(np.asarray(values, np.float32))

    def ints(self, values: npt.ArrayLike) -> str:
        """An int64 constant's name."""
        return self._constant(np.asarray(values, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; returns its name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def model(self, name: str, source: str, target: str) -> onnx.ModelProto:
        """The whole: ``source`` float32 (n, genes) to ``target``, the last node's, float32 (n,)."""
        self.nodes[-1].output[0] = target
        inputs = [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["n", None])]
        outputs = [helper.make_tensor_value_info(target, TensorProto.FLOAT, ["n"])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.constants)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
            producer_name="ofa_deploy",
        )


def add_additive(graph: OnnxGraph, cost: AdditiveModel) -> str:
    """A sum as a gather: one flat table, one index a row and table; shape (n, 1)."""
    assert cost.reduce == "sum", "a maximum is no gather and sum"
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
    total = graph.add("ReduceSum", gathered, graph.ints([1]), keepdims=1)
    return graph.add("Add", total, graph.floats([cost.offset])) if cost.offset else total
