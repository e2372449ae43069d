"""Runtimes and the engines that they are parts of. On Python 3.8 too: agents carry this file."""

__all__ = ["engine_of"]


def engine_of(runtime: str) -> str:
    """The engine of a runtime, by which installed ones are named: ONNX Runtime has providers."""
    return "onnxruntime" if runtime.startswith("onnxruntime-") else runtime
