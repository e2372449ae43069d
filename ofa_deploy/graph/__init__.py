"""The one ONNX graph builder."""

from ofa_deploy.graph.builder import (
    INPUT,
    OPSET,
    OUTPUT,
    BlockWeights,
    build_empty,
    build_onnx,
    random_weights,
    weight_shapes,
)

__all__ = [
    "INPUT",
    "OPSET",
    "OUTPUT",
    "BlockWeights",
    "build_empty",
    "build_onnx",
    "random_weights",
    "weight_shapes",
]
