"""INT8 of every engine: its images, its processors, its blocks in float32."""

import copy
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from ofa_deploy.data import ImageSet
from ofa_deploy.errors import InputError
from ofa_deploy.export import ExportOptions, TargetRecord, export_subnet
from ofa_deploy.runtimes.base import ByteMath
from ofa_deploy.runtimes.openvino import OpenVino
from ofa_deploy.supernet import Ensemble
from tests.export.times import fake_times

LOSSY = {"ort-int8", "openvino-int8"}


# -- calibration ----------------------------------------------------------------------------


def test_int8_with_preprocessing_inside(saved: Any, calibration: ImageSet, tmp_path: Path) -> None:
    options = ExportOptions(
        targets=("ort-int8", "openvino-int8", "torch-export"),
        preprocessing="resize",
        calibration_images=16,
        sensitivity=False,
        measure=False,
        batch=2,
    )
    manifest = export_subnet(
        saved.path, tmp_path / "b", saved.test, calibration=calibration, options=options
    )
    for name in sorted(LOSSY):
        record = manifest.targets[name]
        assert record.accuracy is not None and record.accuracy.sqnr_db > 5
        assert record.input.dtype == "uint8"
    assert manifest.targets["torch-export"].input.preprocessing == "none"


def test_fixed_batch_needs_as_many_calibration_images(
    saved: Any, calibration: ImageSet, tmp_path: Path
) -> None:
    options = ExportOptions(targets=("ort-int8",), batch=8)
    with pytest.raises(InputError, match="a fixed batch of 8 needs as many .* found 5"):
        export_subnet(
            saved.path,
            tmp_path / "b",
            saved.test,
            calibration=calibration.take(slice(5)),
            options=options,
        )


@pytest.mark.parametrize(
    ("images", "targets"), [(96, ("ort-int8", "openvino-int8")), (20, ("ort-int8",))]
)
def test_fixed_batch_is_measured_on_whole_batches(
    saved: Any,
    calibration: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    targets: tuple[str, ...],
) -> None:
    """A network so large that sensitivity is measured on fewer images than a batch has."""
    monkeypatch.setattr(sys.modules["ofa_deploy.export.source"], "_MACS", 1.0)
    options = ExportOptions(
        targets=targets,
        batch=16,
        calibration_images=16,
        allowed_loss=100.0,
        measure=False,
    )
    manifest = export_subnet(
        saved.path,
        tmp_path / "b",
        saved.test,
        calibration=calibration.take(slice(images)),
        options=options,
    )
    settings = manifest.targets["ort-int8"].settings
    assert settings["calibration"]["images"] == settings["sensitivity"]["images"] == 16


# -- for other processors -------------------------------------------------------------------


def elsewhere() -> str:
    """A kind of processors whose arithmetic is not this one's."""
    here = ByteMath.of("here")
    return next(name for name in ("arm", "x86", "x86-vnni") if ByteMath.of(name) != here)


def test_speed_of_int8_for_other_processors_is_not_judged_here(
    saved: Any, calibration: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[set[str]] = []

    def slow(files: Any, *args: Any, **options: Any) -> Any:
        timed.append(set(files))
        return fake_times({"ort-int8": 2.1})(files, *args, **options)

    monkeypatch.setattr(sys.modules["ofa_deploy.export.bundle"], "time_files", slow)

    def made(name: str, *targets: str, **fields: Any) -> dict[str, TargetRecord]:
        options = ExportOptions(
            targets=("onnx", "ort-int8", *targets),
            calibration_images=16,
            sensitivity=False,
            allowed_loss=100.0,
            **fields,
        )
        manifest = export_subnet(
            saved.path, tmp_path / name, saved.test, calibration=calibration, options=options
        )
        assert manifest.best in ("onnx", None)
        return manifest.targets

    targets = made("elsewhere", "openvino-int8", "tensorrt-int8", processor=elsewhere())
    assert timed.pop() == {"onnx"}
    for name in sorted(LOSSY):
        record = targets[name]
        assert record.reasons == (f"speed not verified here: built for {elsewhere()}",)
        assert (record.status, record.latency) == ("verified", None)
        assert record.accuracy is not None, "what it computes is seen here all the same"
    assert not any("speed" in reason for reason in targets["tensorrt-int8"].reasons)

    targets = made("here")
    assert timed.pop() == {"onnx", "ort-int8"}
    assert targets["ort-int8"].status == "marked"
    assert targets["ort-int8"].reasons == ("takes 2.10 times as long as its float32 twin",)

    assert made("unmeasured", processor=elsewhere(), measure=False)["ort-int8"].reasons == ()


# -- sensitive blocks in other engines ------------------------------------------------------


@pytest.mark.parametrize("helps", [True, False])
def test_tensorrt_keeps_blocks_in_float_only_if_that_helps(
    saved: Any, calibration: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    """The recipe's ONNX is the one that was measured."""
    asked: list[tuple[str, ...]] = []
    graphs = sys.modules["ofa_deploy.runtimes.trt.graphs"]
    good, bad = (graph_of(saved, noise) for noise in (0.0, 0.05))

    def quantized(model: onnx.ModelProto, calibration: Any, *, floats: Any) -> onnx.ModelProto:
        asked.append(tuple(floats))
        assert {node.name for node in model.graph.node} >= set(floats)
        return good if floats and helps else bad

    monkeypatch.setattr(graphs, "quantized", quantized)
    module = sys.modules["ofa_deploy.export.sensitivity"]
    monkeypatch.setattr(module, "_GOAL_DB", 199.0)
    monkeypatch.setattr(module, "_SHARE", 1.0)
    options = ExportOptions(targets=("tensorrt-int8",), measure=False)
    out = tmp_path / "b"
    manifest = export_subnet(saved.path, out, saved.test, calibration=calibration, options=options)
    settings = manifest.targets["tensorrt-int8"].settings
    assert asked[0] == () and asked[1]
    assert asked[2] == (asked[1] if helps else ())
    assert bool(settings["float_blocks"]) == helps
    assert (settings["sqnr_db_tried"] > settings["sqnr_db_all_int8"]) == helps
    written = (out / "tensorrt-int8.onnx").read_bytes()
    assert written == (good if helps else bad).SerializeToString()


def test_tensorrt_with_real_blocks_in_float(
    saved: Any, calibration: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names that are found in ONNX Runtime's INT8 are those of TensorRT's graph too."""
    sensitivity = sys.modules["ofa_deploy.export.sensitivity"]
    source = sys.modules["ofa_deploy.export.source"]
    monkeypatch.setattr(sensitivity, "_GOAL_DB", 199.0)
    monkeypatch.setattr(sensitivity, "_SHARE", 1.0)
    for module in (sensitivity, source):
        monkeypatch.setattr(module, "GAIN_DB", -200.0)  # whatever it buys

    def quantizers(name: str, **options: Any) -> int:
        asked = ExportOptions(targets=("tensorrt-int8",), measure=False, **options)
        out = tmp_path / name
        export_subnet(saved.path, out, saved.test, calibration=calibration, options=asked)
        nodes = onnx.load(out / "tensorrt-int8.onnx").graph.node
        return sum(node.op_type == "QuantizeLinear" for node in nodes)

    assert 0 < quantizers("mixed") < quantizers("plain", sensitivity=False)


@pytest.mark.parametrize("helps", [True, False])
def test_openvino_keeps_blocks_in_float_only_if_that_helps(
    saved: Any, calibration: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    asked: list[tuple[str, ...]] = []
    good, bad = (OpenVino().build(graph_of(saved, noise)) for noise in (0.0, 0.05))

    def quantized(
        self: OpenVino, *_: Any, floats: tuple[str, ...] = (), before: Any = None
    ) -> bytes:
        asked.append(floats)
        return good if floats and helps else bad

    monkeypatch.setattr(OpenVino, "quantized", quantized)
    module = sys.modules["ofa_deploy.export.sensitivity"]
    monkeypatch.setattr(module, "_GOAL_DB", 199.0)
    monkeypatch.setattr(module, "_SHARE", 1.0)
    options = ExportOptions(targets=("openvino-int8",), measure=False, allowed_loss=100.0)
    manifest = export_subnet(
        saved.path, tmp_path / "b", saved.test, calibration=calibration, options=options
    )
    settings = manifest.targets["openvino-int8"].settings
    assert asked[0] == () and asked[1]
    assert bool(settings["float_blocks"]) == helps
    assert (settings["sqnr_db_tried"] > settings["sqnr_db_all_int8"]) == helps


def graph_of(saved: Any, noise: float) -> onnx.ModelProto:
    """The subnet's graph, its weights disturbed."""
    subnet = copy.deepcopy(saved.subnet)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in subnet.parameters():
            weight.mul_(1 + noise * torch.randn(weight.shape, generator=generator))
    return Ensemble((subnet,), saved.record).onnx()
