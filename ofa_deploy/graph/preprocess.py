"""What is done to pixels before a network sees them, as a graph that can stand before any other.

Resizing is two matrix products, with a matrix a side: operators that resize with anti-aliasing
differ between engines, or leave it out, while products are the same everywhere. Each output pixel
is a mean of those within reach, weighted by a triangle as wide as the scale, at least one pixel
(bilinear with anti-aliasing, as Pillow and torch compute it).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.graph.builder import INPUT, IR_VERSION, OPSET

__all__ = ["PIXELS", "PREPROCESSING", "after", "preprocessing"]

PIXELS = "pixels"
PREPROCESSING = ("none", "normalise", "resize")


def preprocessing(
    kind: str,
    size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch: int | None = None,
) -> onnx.ModelProto:
    """A model from ``pixels``, uint8 (batch, height, width, 3), to ``images``, as networks want.

    Args:
        kind: ``normalise`` takes pixels of ``size`` by ``size``; ``resize`` takes any, and cuts
            out the centre square first.
        size: height and width of the result.
        mean, std: a value a channel, of pixels from 0 to 1.
        batch: a fixed batch size, or None for a dynamic one.

    Raises:
        UnknownNameError: for another kind.
    """
    if kind not in PREPROCESSING[1:]:
        raise UnknownNameError("preprocessing", kind, PREPROCESSING[1:])
    writer = _Writer()
    pixels = writer.square(PIXELS) if kind == "resize" else PIXELS
    x = writer.node("Transpose", "channels", [pixels], perm=[0, 3, 1, 2])
    x = writer.node("Cast", "float", [x], to=TensorProto.FLOAT)
    if kind == "resize":
        x = writer.resize(x, size)
    deviations = np.asarray(std, np.float32)
    scale = writer.constant("scale", 1 / (np.float32(255) * deviations)[:, None, None])
    shift = writer.constant("shift", (np.asarray(mean, np.float32) / deviations)[:, None, None])
    writer.node("Mul", "scaled", [x, scale])
    writer.node("Sub", "shifted", ["preprocess.scaled", shift], output=INPUT)
    sides: list[str | int] = ["height", "width"] if kind == "resize" else [size, size]
    count = "batch" if batch is None else batch
    graph = helper.make_graph(
        writer.nodes,
        "preprocess",
        [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [count, *sides, 3])],
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [count, 3, size, size])],
        writer.constants,
    )
    opset = helper.make_opsetid("", OPSET)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return model


def after(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """``second`` with ``first`` before it, whose output its input is; its metadata stay.

    Raises:
        InputError: if the one's output is not the other's input.
    """
    given, wanted = first.graph.output[0], second.graph.input[0]
    if given != wanted:
        raise InputError(
            f"expected a graph that gives {wanted.name!r} as the other takes it, found "
            f"{given.name!r}"
        )
    joined: onnx.ModelProto = onnx.ModelProto.FromString(second.SerializeToString())
    nodes = [*first.graph.node, *second.graph.node]
    for field, values in (("node", nodes), ("input", list(first.graph.input))):
        joined.graph.ClearField(field)
        getattr(joined.graph, field).extend(values)
    joined.graph.initializer.extend(first.graph.initializer)
    return joined


class _Writer:
    """Collects nodes and constants; each method returns the name of the tensor it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(
        self, operator: str, name: str, inputs: list[str], *, output: str = "", **attributes: Any
    ) -> str:
        name = f"preprocess.{name}"
        output = output or name
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        name = f"preprocess.{name}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def square(self, pixels: str) -> str:
        """The centre square; where the border is odd, the wider part is right or below."""
        sides = self.node("Shape", "sides", [pixels], start=1, end=3)
        side = self.node("ReduceMin", "side", [sides], axes=[0])
        border = self.node("Sub", "border", [sides, side])
        two = self.constant("two", np.array([2], np.int64))
        start = self.node("Div", "start", [border, two])
        end = self.node("Add", "end", [start, side])
        axes = self.constant("axes", np.array([1, 2], np.int64))
        return self.node("Slice", "square", [pixels, start, end, axes])

    def resize(self, x: str, size: int) -> str:
        """Squares (batch, 3, side, side) to (batch, 3, size, size)."""
        matrix = self.matrix(size)
        transposed = self.node("Transpose", "columns", [matrix], perm=[1, 0])
        return self.node("MatMul", "high", [matrix, self.node("MatMul", "wide", [x, transposed])])

    def matrix(self, size: int) -> str:
        """Weights (size, side): of each pixel for each pixel of the result."""
        first = self.constant("first", np.array([0], np.int64))
        side = self.node("Squeeze", "scalar_side", ["preprocess.side", first])
        zero, one = (self.constant(f"int_{n}", np.array(n, np.int64)) for n in (0, 1))
        places = self.node("Range", "range", [zero, side, one])
        places = self.node("Cast", "places", [places], to=TensorProto.FLOAT)
        half = self.constant("half", np.float32(0.5))
        places = self.node("Add", "centres_there", [places, half])

        unit = self.constant("one", np.float32(1))
        side = self.node("Cast", "float_side", [side], to=TensorProto.FLOAT)
        scale = self.node("Div", "ratio", [side, self.constant("size", np.float32(size))])
        reach = self.node("Max", "reach", [scale, unit])
        share = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        here = self.node("Mul", "centres_here", [self.constant("share", share[:, None]), side])

        distance = self.node("Sub", "difference", [here, places])
        distance = self.node("Abs", "distance", [distance])
        distance = self.node("Div", "relative", [distance, reach])
        weight = self.node("Relu", "triangle", [self.node("Sub", "slope", [unit, distance])])
        last = self.constant("last", np.array([-1], np.int64))
        total = self.node("ReduceSum", "total", [weight, last])
        return self.node("Div", "matrix", [weight, total])
