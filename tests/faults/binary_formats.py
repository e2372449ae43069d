"""The formats that are no text, by name."""

from collections.abc import Callable

from tests.faults import binary_mutations
from tests.faults.agent_format import agent_format
from tests.faults.bundle_formats import (
    ensemble_format,
    forged_format,
    manifest_format,
    model_format,
    onnx_ways,
    subnet_format,
    subnet_weights_format,
)
from tests.faults.formats import Format
from tests.faults.weight_formats import (
    predictor_format,
    predictor_pth_format,
    pth_format,
    run_format,
    safetensors_format,
    state_format,
    supernet_format,
)
from tests.faults.xml_mutations import xml_text

__all__ = ["binary_formats"]


def binary_formats() -> dict[str, Callable[[], Format]]:
    """By name, made when asked for."""
    plain = {"bytes": binary_mutations.binary}
    return {
        "published .pth (zip)": lambda: pth_format("zip"),
        "published .pth (legacy)": lambda: pth_format("legacy"),
        "published .safetensors": safetensors_format,
        "predictor .pth": predictor_pth_format,
        "accuracy model": predictor_format,
        "bundle manifest.json": manifest_format,
        "bundle model.onnx": lambda: model_format("model.onnx", onnx_ways()),
        "bundle probe.safetensors": lambda: model_format(
            "probe.safetensors", {"header": binary_mutations.safetensors, **plain}
        ),
        "forged model.onnx": lambda: forged_format("model.onnx", onnx_ways()),
        "forged probe.safetensors": lambda: forged_format(
            "probe.safetensors", {"header": binary_mutations.safetensors, **plain}
        ),
        "forged openvino.xml": lambda: forged_format(
            "openvino.xml", {"tree": xml_text, "again": xml_text, **plain}, "openvino"
        ),
        "forged openvino.bin": lambda: forged_format("openvino.bin", plain, "openvino"),
        "agent messages": agent_format,
        "state.pt": state_format,
        "run.json": run_format,
        "supernet.safetensors": supernet_format,
        "subnet": subnet_format,
        "subnet weights": subnet_weights_format,
        "ensemble": ensemble_format,
    }
