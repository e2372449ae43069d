"""Inference engines: ``build(graph, precision)``, ``load(artefact)``, ``run``."""

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.runtimes.base import Runtime, Session

__all__ = ["RUNTIMES", "Runtime", "Session", "get_runtime"]

RUNTIMES = ("onnxruntime",)


def get_runtime(name: str) -> Runtime:
    """The runtime of that name; its library is imported only now.

    Raises:
        UnknownNameError: listing the runtimes there are.
    """
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES)
    from ofa_deploy.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime()
