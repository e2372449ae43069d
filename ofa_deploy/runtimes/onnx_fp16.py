"""Float16 within a graph that takes and gives float32."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import InputError
from ofa_deploy.hardware.engine import one_line

__all__ = ["half"]

_GREATEST = 65_504  # of float16
# Inputs that ONNX wants in float32 whatever the rest is: operator to positions.
_KEPT = {"Resize": (1, 2), "Upsample": (1,)}


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16, but for its inputs and outputs.

    Raises:
        InputError: if a weight is too large, or an operator takes no float16.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    kept = {
        node.input[position]
        for node in graph.node
        for position in _KEPT.get(node.op_type, ())
        if position < len(node.input)
    }
    for tensor in graph.initializer:
        if tensor.name not in kept:
            _halve(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and node.output[0] not in kept:
                _halve(attribute.t)
            is_type = node.op_type == "Cast" and attribute.name == "to"
            if is_type and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    del graph.value_info[:]
    _cast_ends(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and the inference's exceptions share no base
        raise InputError(f"the graph cannot be had in float16: {one_line(error)}") from error
    return model


def _halve(tensor: onnx.TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    array = numpy_helper.to_array(tensor)
    if not (np.abs(array) <= _GREATEST).all():
        raise InputError(
            f"weights {tensor.name!r}: expected values up to {_GREATEST:,}, the greatest of "
            f"float16, found {np.abs(array).max():g}"
        )
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))


def _cast_ends(graph: onnx.GraphProto) -> None:
    """Let the graph take and give float32, and compute on float16 between."""
    floats = {
        value.name
        for value in [*graph.input, *graph.output]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    inside = {name: f"{name}.half" for name in floats}
    for node in graph.node:
        node.input[:] = [inside.get(name, name) for name in node.input]
        node.output[:] = [inside.get(name, name) for name in node.output]
    before = [
        _cast(value.name, inside[value.name], TensorProto.FLOAT16)
        for value in graph.input
        if value.name in floats
    ]
    after = [
        _cast(inside[value.name], value.name, TensorProto.FLOAT)
        for value in graph.output
        if value.name in floats
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}.cast", to=kind)
