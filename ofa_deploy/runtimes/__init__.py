"""Inference engines: ``build(graph, precision)``, ``load(artefact)``, ``run``."""

from importlib import import_module

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.runtimes.base import Runtime, Session

__all__ = ["RUNTIMES", "Runtime", "Session", "get_runtime"]

# name: (module, class)
RUNTIMES = {
    "onnxruntime": ("ofa_deploy.runtimes.onnx_runtime", "OnnxRuntime"),
    "onnxruntime-cuda": ("ofa_deploy.runtimes.onnx_runtime", "OnnxRuntimeCuda"),
    "onnxruntime-tensorrt": ("ofa_deploy.runtimes.onnx_runtime", "OnnxRuntimeTensorRt"),
    "openvino": ("ofa_deploy.runtimes.openvino", "OpenVino"),
    "tensorrt": ("ofa_deploy.runtimes.tensorrt", "TensorRt"),
    "tensorrt-rtx": ("ofa_deploy.runtimes.tensorrt_rtx", "TensorRtRtx"),
}


def get_runtime(name: str) -> Runtime:
    """The runtime of that name; its library is imported only now.

    Raises:
        UnknownNameError: listing the runtimes there are.
    """
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES)
    module, class_name = RUNTIMES[name]
    runtime: Runtime = getattr(import_module(module), class_name)()
    return runtime
