"""A float32 graph to the ONNX that TensorRT takes its precision from.

Networks are strongly typed in TensorRT 11 (and here in 10), so the types in the graph are those
that the engine computes in.
"""

from collections.abc import Iterable, Sequence

import onnx

from ofa_deploy.errors import InputError
from ofa_deploy.runtimes.base import ByteMath, Floats
from ofa_deploy.runtimes.onnx_fp16 import half

__all__ = ["fixed", "quantized", "to_build", "with_precision"]

_TO_INT8 = ["Conv", "Gemm"]


def with_precision(
    model: onnx.ModelProto,
    precision: str,
    calibration: Sequence[Floats] = (),
    *,
    floats: Iterable[str] = (),
) -> onnx.ModelProto:
    """The ONNX from which TensorRT builds an engine of that precision; float32 in and out.

    Args:
        model: float32.
        precision: ``fp32``, ``fp16`` or ``int8``.
        calibration: batches of inputs, for ``int8``.
        floats: nodes to leave in float32, for ``int8``.

    Raises:
        InputError: if the graph cannot be had in that precision.
    """
    match precision:
        case "fp32":
            return model
        case "fp16":
            return half(model)
        case "int8":
            return quantized(model, calibration, floats=floats)
    raise InputError(f"precision: expected fp32, fp16 or int8, found {precision!r}")


def quantized(
    model: onnx.ModelProto, calibration: Sequence[Floats], *, floats: Iterable[str] = ()
) -> onnx.ModelProto:
    """The model with 8-bit convolutions and linear layers, the rest in float32.

    Everything is symmetric and signed, weights a scale a channel; biases stay in float32, since
    TensorRT reads no 32-bit integers there. Only what goes into those layers is quantised, not what
    comes out, so that TensorRT may fuse them with their activations.

    Raises:
        InputError: without calibration.
        MismatchError: if the batches are not what the model takes.

    Source: TensorRT developer guide, explicit quantization, Q/DQ placement.
    """
    from ofa_deploy.runtimes.onnx_int8 import Quantizer  # takes a while to import

    quantizer = Quantizer(
        model,
        calibration,
        ByteMath(signed=True, narrow=False),
        operators=_TO_INT8,
        options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _TO_INT8,
        },
    )
    return quantizer.build(floats=floats)


def fixed(model: onnx.ModelProto, batch: int | None) -> onnx.ModelProto:
    """The model for one batch alone, where its own is free; as it is for None.

    Kernels are then chosen for that batch. TensorRT for RTX would else begin with others, and go
    over to those while it runs.
    """
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    if batch is None or not first.dim_param:
        return model
    name = first.dim_param
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == name:
                size.dim_value = batch
    return model


def to_build(
    model: onnx.ModelProto, precision: str, calibration: Sequence[Floats], batch: int | None
) -> bytes:
    """The ONNX of that precision's types, for one batch alone if one is named.

    Raises:
        InputError: if the graph cannot be had in that precision.
    """
    return bytes(fixed(with_precision(model, precision, calibration), batch).SerializeToString())
