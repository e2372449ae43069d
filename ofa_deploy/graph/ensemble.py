"""Several networks as one ONNX graph that gives the mean of their probabilities."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import InputError
from ofa_deploy.graph.builder import INPUT, OUTPUT, BlockWeights, build_onnx
from ofa_deploy.space import Block

__all__ = ["PROBABILITIES", "ensemble_onnx"]

PROBABILITIES = "probabilities"


def ensemble_onnx(
    blocks: Sequence[Block],
    members: Sequence[Sequence[BlockWeights]],
    *,
    stacked: bool = False,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Write networks of one arch as one float32 model.

    Each member's part is what ``graph.build_onnx`` writes for it.

    Args:
        blocks: the lowered arch.
        members: of each network the arrays a block.
        stacked: whether members go through each layer together, as groups of one convolution, and
            not one after another. The outcome is the same, the time is not.
        batch: a fixed batch size, or None for a dynamic one.
        metadata: written into the model's properties.

    Returns:
        A model from ``images`` (batch, channels, size, size) to ``probabilities`` (batch, classes),
        the mean of the members' softmax.

    Raises:
        InputError: if there is no member, or the weights do not fit the blocks.
    """
    if not members:
        raise InputError("expected at least one member, found none")
    if blocks[-1].kind != "classifier":
        raise InputError("expected whole networks, which end with a classifier")
    models = [build_onnx(blocks, weights, batch=batch) for weights in members]
    nodes, initializers = _stacked(models) if stacked else _side_by_side(models)
    size = "batch" if batch is None else batch
    output = helper.make_tensor_value_info(
        PROBABILITIES, TensorProto.FLOAT, [size, blocks[-1].out_channels]
    )
    first = models[0]
    graph = helper.make_graph(nodes, "ofa_deploy", first.graph.input, [output], initializers)
    model = helper.make_model(
        graph,
        opset_imports=first.opset_import,
        ir_version=first.ir_version,
        producer_name=first.producer_name,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


Parts = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def _side_by_side(models: Sequence[onnx.ModelProto]) -> Parts:
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    outputs = []
    for position, model in enumerate(models):

        def own(name: str, prefix: str = f"m{position}.") -> str:
            return name if name == INPUT else prefix + name

        for node in model.graph.node:
            node.name = own(node.name)
            node.input[:] = [own(name) for name in node.input]
            node.output[:] = [own(name) for name in node.output]
            nodes.append(node)
        for tensor in model.graph.initializer:
            tensor.name = own(tensor.name)
            initializers.append(tensor)
        outputs.append(f"m{position}.{PROBABILITIES}")
        nodes.append(
            helper.make_node(
                "Softmax", [own(OUTPUT)], [outputs[-1]], f"m{position}.softmax", axis=1
            )
        )
    nodes.append(helper.make_node("Mean", outputs, [PROBABILITIES], "mean"))
    return nodes, initializers


def _stacked(models: Sequence[onnx.ModelProto]) -> Parts:
    """Convolutions of all members as groups; the first reads the images, which all share."""
    count = len(models)
    arrays = [
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in models
    ]
    joined: dict[str, np.ndarray] = {}
    nodes = []
    flattened: dict[str, str] = {}
    for node in models[0].graph.node:
        if node.op_type == "Flatten":  # a 1x1 convolution takes the linear layer's place
            flattened[node.output[0]] = node.input[0]
            continue
        if node.op_type in ("Conv", "Gemm"):
            for name in node.input[1:]:
                joined[name] = np.concatenate([each[name] for each in arrays])
        if node.op_type == "Conv" and node.input[0] != INPUT:
            node = _grouped(node, count)
        if node.op_type == "Gemm":
            x, weight, bias = node.input
            joined[weight] = joined[weight][:, :, None, None]
            node = helper.make_node(
                "Conv", [flattened[x], weight, bias], ["stacked.out"], node.name, group=count
            )
        nodes.append(node)
    scalars = {name: array for name, array in arrays[0].items() if name not in joined}
    classes = len(joined[nodes[-1].input[2]]) // count
    joined["stacked.shape"] = np.array([0, count, classes], np.int64)
    nodes += [
        helper.make_node("Reshape", ["stacked.out", "stacked.shape"], ["stacked.logits"], "split"),
        helper.make_node("Softmax", ["stacked.logits"], ["stacked.soft"], "softmax", axis=2),
        helper.make_node(
            "ReduceMean", ["stacked.soft"], [PROBABILITIES], "mean", axes=[1], keepdims=0
        ),
    ]
    everything = {**joined, **scalars}.items()
    return nodes, [numpy_helper.from_array(array, name) for name, array in everything]


def _grouped(node: onnx.NodeProto, count: int) -> onnx.NodeProto:
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    groups = attributes.pop("group", 1) * count
    return helper.make_node("Conv", node.input, node.output, node.name, group=groups, **attributes)
