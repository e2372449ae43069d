"""What a subnet can be exported to, by name."""

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.export.builders import OnnxTarget, OpenVinoTarget, TensorRtTarget, TorchTarget
from ofa_deploy.export.target import Target

__all__ = ["TARGETS", "get_target"]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        OnnxTarget("onnx", "fp32"),
        OnnxTarget("onnx-fp16", "fp16", "onnx"),
        OnnxTarget("ort-int8", "int8", "onnx"),
        OpenVinoTarget("openvino", "fp32"),
        OpenVinoTarget("openvino-fp16", "fp16", "openvino"),
        OpenVinoTarget("openvino-int8", "int8", "openvino"),
        TorchTarget("torch-export", "fp32"),
        TensorRtTarget("tensorrt", "fp32"),
        TensorRtTarget("tensorrt-fp16", "fp16", "tensorrt"),
        TensorRtTarget("tensorrt-int8", "int8", "tensorrt"),
        TensorRtTarget("tensorrt-rtx", "fp32"),
        TensorRtTarget("tensorrt-rtx-fp16", "fp16", "tensorrt-rtx"),
        TensorRtTarget("tensorrt-rtx-int8", "int8", "tensorrt-rtx"),
    )
}


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UnknownNameError: listing the targets there are.
    """
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS)
    return TARGETS[name]
