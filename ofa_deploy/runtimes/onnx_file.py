"""ONNX files from elsewhere."""

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

from ofa_deploy.errors import FileFormatError

__all__ = ["check_self_contained"]


def check_self_contained(data: bytes, path: str = "the ONNX") -> None:
    """See that a model brings its weights along, rather than name files that hold them.

    What is no model at all passes: whoever parses it next says that better.

    Args:
        path: what an error calls it.

    Raises:
        FileFormatError: if it names one.
    """
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    for tensor in (*_tensors(model.graph), *(t for f in model.functions for t in _tensors(f))):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
            raise FileFormatError(
                f"{path} keeps weights {tensor.name[:60]!r} in another file ({where[:100]!r}); "
                "expected one file: save it with its weights inside"
            )


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph holds, in its nodes and their graphs too."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
