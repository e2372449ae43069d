"""Runtimes and the engines that they are parts of. On Python 3.8 too: agents carry this file."""

__all__ = ["PACKAGES", "engine_of", "one_line"]

# The packages that may have brought an engine; the first that is installed counts.
PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}


def engine_of(runtime: str) -> str:
    """The engine of a runtime, by which installed ones are named: ONNX Runtime has providers."""
    return "onnxruntime" if runtime.startswith("onnxruntime-") else runtime


def one_line(error: object) -> str:
    """What an engine says, on one line of bounded length."""
    return " ".join(str(error).split())[:300]
