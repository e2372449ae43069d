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
from ofa_deploy.graph.ensemble import PROBABILITIES, ensemble_onnx
from ofa_deploy.graph.preprocess import PIXELS, PREPROCESSING, after, preprocessing

__all__ = [
    "INPUT",
    "OPSET",
    "OUTPUT",
    "PIXELS",
    "PREPROCESSING",
    "PROBABILITIES",
    "BlockWeights",
    "after",
    "build_empty",
    "build_onnx",
    "ensemble_onnx",
    "preprocessing",
    "random_weights",
    "weight_shapes",
]
