"""What a subnet can be exported to, by name."""

from collections.abc import Mapping
from pathlib import Path

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.export.builders import OnnxTarget, OpenVinoTarget, TensorRtTarget, TorchTarget
from ofa_deploy.export.manifest import TargetRecord
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.export.target import Target

__all__ = [
    "TARGETS",
    "accuracy_file",
    "check_targets",
    "export_target",
    "get_target",
    "kept_as",
    "preferred",
]

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


def export_target(runtime: str, precision: str) -> str:
    """The target that exports what was measured.

    Empty for what is exported unless asked otherwise, and where no target is of that kind.
    """
    for name, target in TARGETS.items():
        if (target.runtime, target.precision) == (runtime, precision):
            return "" if name in ExportOptions().targets else name
    return ""


def kept_as(runtime: str, precision: str) -> str:
    """What a run's files of evaluations and accuracy models have in their name: of float32 none.

    Float32 is the same in every engine to rounding; INT8 is placed by each in its own way.
    """
    return "" if precision in ("fp32", "unknown") else f"-{runtime}-{precision}"


def accuracy_file(run: Path, runtime: str, precision: str) -> Path:
    """Where a run keeps its model of top-1 in that precision."""
    return run / f"accuracy{kept_as(runtime, precision)}.onnx"


def check_targets(options: ExportOptions) -> None:
    """See what can be seen of all targets before anything is built.

    Raises:
        UnknownNameError: for a target that there is not.
        InputError, MissingDependencyError, DeviceError: as ``Target.check``.
    """
    for target in [get_target(name) for name in options.targets]:
        target.check(options)


def preferred(records: Mapping[str, TargetRecord]) -> list[str]:
    """The targets of a bundle in the order in which they are offered where none is the best.

    Verified and timed ones, the fastest first; verified; marked; not verified; and last what
    nothing loads by default, such as recipes.
    """

    def place(name: str) -> tuple[int, float]:
        record = records[name]
        if name not in TARGETS or not TARGETS[name].loads(record.files):
            return 4, 0.0
        if record.status == "verified":
            return (1, 0.0) if record.latency is None else (0, record.latency.ratio)
        return (2 if record.status == "marked" else 3), 0.0

    return sorted(records, key=place)
