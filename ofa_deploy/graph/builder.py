"""Blocks to ONNX. Profiling and export both come here: what is measured is what ships.

Operators are kept to opset 17, which ONNX Runtime, OpenVINO and TensorRT from 8.5 on all read.
BN arrives folded into the convolutions.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import InputError
from ofa_deploy.space import Block

__all__ = [
    "INPUT",
    "IR_VERSION",
    "OPSET",
    "OUTPUT",
    "BlockWeights",
    "build_empty",
    "build_onnx",
    "random_weights",
    "weight_shapes",
]

OPSET = 17
IR_VERSION = 9
INPUT, OUTPUT = "images", "logits"

BlockWeights = dict[str, npt.NDArray[np.float32]]


def weight_shapes(block: Block) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the arrays that ``block`` needs."""
    mid, inputs, outputs, k = (
        block.mid_channels,
        block.in_channels,
        block.out_channels,
        block.kernel,
    )

    def conv(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}

    shapes: dict[str, tuple[int, ...]] = {}
    match block.kind:
        case "maxpool":
            pass
        case "conv":
            shapes |= conv("conv", outputs, inputs, k, k)
        case "mbconv":
            if block.expands:
                shapes |= conv("expand", mid, inputs, 1, 1)
            shapes |= conv("depthwise", mid, 1, k, k)
            if block.se:
                shapes |= conv("reduce", block.se, mid, 1, 1) | conv("excite", mid, block.se, 1, 1)
            shapes |= conv("project", outputs, mid, 1, 1)
        case "bottleneck":
            shapes |= conv("conv1", mid, inputs, 1, 1) | conv("conv2", mid, mid, k, k)
            shapes |= conv("conv3", outputs, mid, 1, 1)
            if block.projects:
                shapes |= conv("shortcut", outputs, inputs, 1, 1)
        case "classifier":
            if mid:
                shapes["features.weight"] = (mid, inputs, 1, 1)
            shapes |= conv("linear", outputs, mid or inputs)
    return shapes


def random_weights(block: Block, rng: np.random.Generator) -> BlockWeights:
    """Weights of the right shapes that keep activations near unit variance (He et al. 2015)."""
    return {
        name: (rng.standard_normal(shape) * np.sqrt(2 / max(1, int(np.prod(shape[1:]))))).astype(
            np.float32
        )
        if name.endswith("weight")
        else np.zeros(shape, np.float32)
        for name, shape in weight_shapes(block).items()
    }


def build_onnx(
    blocks: Sequence[Block],
    weights: Sequence[BlockWeights] | None = None,
    *,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Write blocks that follow one another as one float32 model.

    Args:
        blocks: a whole lowered network, or any run of its blocks.
        weights: arrays a block (``weight_shapes``); random and deterministic when not given.
        batch: a fixed batch size, or None for a dynamic one.
        metadata: written into the model's properties.

    Returns:
        A model from ``images`` (batch, channels, size, size) to ``logits``.

    Raises:
        InputError: if the blocks do not fit together or the weights do not fit the blocks.
    """
    rng = np.random.default_rng(0)
    weights = weights if weights is not None else [random_weights(b, rng) for b in blocks]
    _check(blocks, weights)
    writer = _Writer()
    tensor = INPUT
    for position, (block, arrays) in enumerate(zip(blocks, weights, strict=True)):
        tensor = writer.block(f"{position}", block, arrays, tensor)
    writer.nodes[-1].output[0] = OUTPUT
    first, last = blocks[0], blocks[-1]
    size = "batch" if batch is None else batch
    shape_out: list[str | int] = [size, last.out_channels]
    if last.kind != "classifier":
        shape_out += [last.out_size, last.out_size]
    model = _model(
        writer.nodes,
        _value(INPUT, [size, first.in_channels, first.size, first.size]),
        _value(OUTPUT, shape_out),
        writer.initializers,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def build_empty() -> onnx.ModelProto:
    """A model that hands on one number: what a call costs before any work is done."""
    node = helper.make_node("Identity", [INPUT], [OUTPUT], "nothing")
    return _model([node], _value(INPUT, ["batch", 1]), _value(OUTPUT, ["batch", 1]), [])


def _model(
    nodes: list[onnx.NodeProto],
    source: onnx.ValueInfoProto,
    target: onnx.ValueInfoProto,
    initializers: list[onnx.TensorProto],
) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(nodes, "ofa_deploy", [source], [target], initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ofa_deploy",
    )


def _value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _check(blocks: Sequence[Block], weights: Sequence[BlockWeights]) -> None:
    if not blocks:
        raise InputError("expected at least one block, found none")
    if len(blocks) != len(weights):
        raise InputError(f"expected weights for {len(blocks)} blocks, found {len(weights)}")
    for before, after in pairwise(blocks):
        if (before.out_channels, before.out_size) != (after.in_channels, after.size):
            raise InputError(f"block {after.key} cannot follow {before.key}")
    for block, arrays in zip(blocks, weights, strict=True):
        found = {name: array.shape for name, array in arrays.items()}
        if found != weight_shapes(block):
            raise InputError(
                f"block {block.key}: expected weights {weight_shapes(block)}, found {found}"
            )
        if other := {str(a.dtype) for a in arrays.values()} - {"float32"}:
            raise InputError(f"block {block.key}: expected float32 weights, found {other.pop()}")
        same = (block.in_channels, block.stride) == (block.out_channels, 1)
        if block.residual and not same:
            raise InputError(f"block {block.key}: a residual needs equal shapes in and out")


class _Writer:
    """Collects nodes and initializers; each method returns the name of the tensor it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def block(self, prefix: str, block: Block, weights: BlockWeights, x: str) -> str:
        for name, array in weights.items():
            self.initializers.append(
                numpy_helper.from_array(np.ascontiguousarray(array), f"{prefix}.{name}")
            )
        match block.kind:
            case "conv":
                y = self.conv(f"{prefix}.conv", x, kernel=block.kernel, stride=block.stride)
                y = self.activation(f"{prefix}.act", y, block.activation)
                return self.node("Add", f"{prefix}.add", [x, y]) if block.residual else y
            case "maxpool":
                return self.pool("MaxPool", f"{prefix}.pool", x, block.kernel, block)
            case "mbconv":
                return self.mbconv(prefix, block, x)
            case "bottleneck":
                return self.bottleneck(prefix, block, x)
            case "classifier":
                return self.classifier(prefix, block, x)

    def mbconv(self, prefix: str, block: Block, x: str) -> str:
        y = x
        if block.expands:
            y = self.conv(f"{prefix}.expand", y)
            y = self.activation(f"{prefix}.expand_act", y, block.activation)
        y = self.conv(
            f"{prefix}.depthwise",
            y,
            kernel=block.kernel,
            stride=block.stride,
            groups=block.mid_channels,
        )
        y = self.activation(f"{prefix}.depthwise_act", y, block.activation)
        if block.se:
            scale = self.node("GlobalAveragePool", f"{prefix}.pool", [y])
            scale = self.node("Relu", f"{prefix}.se_act", [self.conv(f"{prefix}.reduce", scale)])
            scale = self.conv(f"{prefix}.excite", scale)
            scale = self.node("HardSigmoid", f"{prefix}.gate", [scale], alpha=1 / 6, beta=0.5)
            y = self.node("Mul", f"{prefix}.scale", [y, scale])
        y = self.conv(f"{prefix}.project", y)
        return self.node("Add", f"{prefix}.add", [x, y]) if block.residual else y

    def bottleneck(self, prefix: str, block: Block, x: str) -> str:
        y = self.activation(f"{prefix}.act1", self.conv(f"{prefix}.conv1", x), block.activation)
        y = self.conv(f"{prefix}.conv2", y, kernel=block.kernel, stride=block.stride)
        y = self.activation(f"{prefix}.act2", y, block.activation)
        y = self.conv(f"{prefix}.conv3", y)
        if block.projects:
            if block.stride > 1:
                x = self.pool("AveragePool", f"{prefix}.pool", x, block.stride, block)
            x = self.conv(f"{prefix}.shortcut", x)
        y = self.node("Add", f"{prefix}.add", [x, y])
        return self.activation(f"{prefix}.act", y, block.activation)

    def pool(self, operator: str, name: str, x: str, kernel: int, block: Block) -> str:
        """Pool by the block's stride: maxima centred, averages side by side, over what is there."""
        average = operator == "AveragePool"
        overhang = {"ceil_mode": 1} if average and block.size % block.stride else {}
        return self.node(
            operator,
            name,
            [x],
            kernel_shape=[kernel, kernel],
            strides=[block.stride, block.stride],
            pads=[0 if average else kernel // 2] * 4,
            **overhang,
        )

    def classifier(self, prefix: str, block: Block, x: str) -> str:
        x = self.node("GlobalAveragePool", f"{prefix}.pool", [x])
        if block.mid_channels:
            x = self.node("Conv", f"{prefix}.features", [x, f"{prefix}.features.weight"])
            x = self.activation(f"{prefix}.features_act", x, block.activation)
        x = self.node("Flatten", f"{prefix}.flatten", [x], axis=1)
        inputs = [x, f"{prefix}.linear.weight", f"{prefix}.linear.bias"]
        return self.node("Gemm", f"{prefix}.linear", inputs, transB=1)

    def conv(self, name: str, x: str, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        return self.node(
            "Conv",
            name,
            [x, f"{name}.weight", f"{name}.bias"],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def activation(self, name: str, x: str, activation: str) -> str:
        if activation == "none":
            return x
        if activation == "relu6":
            return self.node("Clip", name, [x, self.scalar(0.0), self.scalar(6.0)])
        operators = {"relu": "Relu", "hswish": "HardSwish"}
        if activation not in operators:
            raise InputError(f"unknown activation {activation!r}")
        return self.node(operators[activation], name, [x])

    def scalar(self, value: float) -> str:
        name = f"scalar_{value:g}"
        if all(each.name != name for each in self.initializers):
            array = np.array(value, np.float32)
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"
