"""INT8 and float16 in ONNX Runtime and OpenVINO: what they suit, and what is refused."""

import importlib
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from ofa_deploy.errors import (
    InputError,
    MismatchError,
    MissingDependencyError,
    UnknownNameError,
)
from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes import Runtime, get_runtime
from ofa_deploy.runtimes.base import PROCESSORS, ByteMath, check_calibration, check_least
from ofa_deploy.runtimes.onnx_int8 import Quantizer
from ofa_deploy.runtimes.openvino import OpenVino, pack, unpack
from ofa_deploy.space import SearchSpace

base_module: Any = importlib.import_module("ofa_deploy.runtimes.base")
openvino_module: Any = importlib.import_module("ofa_deploy.runtimes.openvino_library")

X86, VNNI, ARM = ByteMath(False, True), ByteMath(False, False), ByteMath(True, False)


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return get_runtime(request.param)


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace) -> onnx.ModelProto:
    return build_onnx(tiny_space.lower(tiny_space.largest), metadata={"space": "tiny"})


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((8, 3, 16, 16)).astype(np.float32)


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum()))


# -- float16 --------------------------------------------------------------------------------


def test_float16_is_near_and_smaller(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray
) -> None:
    whole, half = runtime.build(model), runtime.build(model, "fp16")
    expected, found = (runtime.load(a).run(images) for a in (whole, half))
    assert found.dtype == np.float32
    assert 45 < decibels(expected, found) < 90
    size = {runtime.name: len} | {"openvino": lambda artefact: len(unpack(artefact)[1])}
    assert size[runtime.name](half) < 0.75 * size[runtime.name](whole)


# -- ONNX Runtime's INT8 --------------------------------------------------------------------


def kinds(model: onnx.ModelProto) -> dict[str, str]:
    return {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}


@pytest.mark.parametrize(("math", "activation"), [(X86, "UINT8"), (VNNI, "UINT8"), (ARM, "INT8")])
def test_int8_suits_the_processor(
    model: onnx.ModelProto, images: np.ndarray, math: ByteMath, activation: str
) -> None:
    built = Quantizer(model, [images], math).build()
    onnx.checker.check_model(built, full_check=True)
    types = kinds(built)
    zeros = [node.input[2] for node in built.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros and {types[name] for name in zeros} == {activation}
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in built.graph.initializer}
    weights = [a for n, a in arrays.items() if n.endswith("weight_quantized")]
    assert {str(a.dtype) for a in weights} == {"int8"}
    most = max(int(np.abs(a.astype(int)).max()) for a in weights)
    assert (most <= 64) == math.narrow
    scales = [a for n, a in arrays.items() if n.endswith("weight_scale") and a.size > 1]
    assert len(scales) >= 5, "a scale a channel"


def test_int8_keeps_metadata_and_activations_in_one_piece(
    model: onnx.ModelProto, images: np.ndarray
) -> None:
    built = Quantizer(model, [images], X86).build()
    assert {p.key: p.value for p in built.metadata_props}["space"] == "tiny"
    assert [o.version for o in built.opset_import if not o.domain] == [17]
    before, after = (Counter(n.op_type for n in m.graph.node) for m in (model, built))
    for kind in ("HardSwish", "HardSigmoid", "Conv"):
        assert after[kind] == before[kind] > 0


def test_nodes_left_in_float_are_left_so(model: onnx.ModelProto, images: np.ndarray) -> None:
    quantizer = Quantizer(model, [images], X86)
    engine = get_runtime("onnxruntime")
    expected = engine.load(model.SerializeToString()).run(images)

    def quality(**chosen: list[str]) -> float:
        built = quantizer.build(**chosen)
        return decibels(expected, engine.load(built.SerializeToString()).run(images))

    names = [node.name for node in model.graph.node]
    stem = [name for name in names if name.startswith("0.")]
    assert quality(floats=stem) > quality() > 5
    assert quality(only=stem) > quality()
    whole = quantizer.build(floats=names)
    assert not [node for node in whole.graph.node if "Quantize" in node.op_type]
    built = quantizer.build(floats=stem)
    assert kinds(built)["0.conv.weight"] == "FLOAT"


def test_same_calibration_gives_the_same_file(model: onnx.ModelProto, images: np.ndarray) -> None:
    one, other = (
        Quantizer(model, [images[:4], images[4:]], X86).build().SerializeToString()
        for _ in range(2)
    )
    assert one == other


# -- OpenVINO's -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openvino_int8(model: onnx.ModelProto, images: np.ndarray) -> bytes:
    return OpenVino().build(model, "int8", [images])


def test_small_batches_calibrate_as_well_as_large_ones(
    model: onnx.ModelProto, images: np.ndarray, openvino_int8: bytes
) -> None:
    """NNCF's own choice averages extremes over batches, and so cuts the more, the smaller."""
    engine = OpenVino()
    singles = [images[i : i + 1] for i in range(len(images))]
    together, apart = (
        engine.load(artefact).run(images)
        for artefact in (openvino_int8, engine.build(model, "int8", singles))
    )
    np.testing.assert_allclose(apart, together, atol=1e-5 * np.abs(together).max())


def test_openvino_leaves_nodes_in_float(
    model: onnx.ModelProto, images: np.ndarray, openvino_int8: bytes
) -> None:
    engine = OpenVino()
    last = model.graph.node[-1].name.partition(".")[0]
    floats = [node.name for node in model.graph.node if not node.name.startswith(f"{last}.")]
    mixed = engine.quantized(model, [images], ByteMath.of("here"), floats=floats)
    expected = engine.load(engine.build(model)).run(images)
    qualities = [decibels(expected, engine.load(a).run(images)) for a in (mixed, openvino_int8)]
    assert qualities[0] - 3 > qualities[1] > 5


def test_precision_is_said_and_not_left_to_the_engine() -> None:
    settings = OpenVino().settings(3)
    assert settings["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings["INFERENCE_NUM_THREADS"] == 3
    assert get_runtime("onnxruntime").settings(3)["intra_op_num_threads"] == 3


def test_the_two_files_survive_packing(model: onnx.ModelProto) -> None:
    xml, weights = unpack(OpenVino().build(model))
    assert b"<net" in xml and weights
    assert unpack(pack(xml, weights)) == (xml, weights)


def test_metadata_reach_openvinos_own_form(model: onnx.ModelProto) -> None:
    xml, _ = unpack(OpenVino().build(model))
    assert b'<space value="tiny"' in xml


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 3, 12, 12), np.float32),
        np.zeros((2, 1, 16, 16), np.float32),
        np.zeros((3, 16, 16), np.float32),
        np.zeros((2, 3, 16, 16), np.float64),
        np.zeros((2, 3, 16, 16), np.uint8),
        np.zeros((0, 3, 16, 16), np.float32),
    ],
    ids=["size", "channels", "dimensions", "doubles", "pixels", "empty"],
)
def test_calibration_of_another_shape_is_refused(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray, bad: np.ndarray
) -> None:
    with pytest.raises(MismatchError, match=r"float32 \(batch, 3, 16, 16\), found") as error:
        runtime.build(model, "int8", [images, bad])
    assert str(bad.shape) in str(error.value)
    assert "\n" not in str(error.value)


def test_calibration_of_a_fixed_batch(tiny_space: SearchSpace, images: np.ndarray) -> None:
    fixed = build_onnx(tiny_space.lower(tiny_space.largest), batch=4)
    check_calibration(fixed, [images[:4], images[4:]])
    with pytest.raises(MismatchError, match=r"\(4, 3, 16, 16\), found float32 \(3, "):
        check_calibration(fixed, [images[:4], images[:3]])


@pytest.mark.parametrize("found", ["2024.6.0", "2023.1", "0.9"])
def test_old_package_is_refused(found: str) -> None:
    with pytest.raises(MissingDependencyError, match=r"expected 2025.0 or later.*\[openvino\]"):
        check_least("openvino", found, "2025.0", extra="openvino")


@pytest.mark.parametrize("found", ["2025.0.0", "2025.4.1-123", "2026.4", "2030"])
def test_new_package_is_let_be(found: str) -> None:
    check_least("openvino", found, "2025.0", extra="openvino")


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_old_openvino_and_nncf_are_refused_before_they_are_used(
    package: str, model: onnx.ModelProto, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = openvino_module.optional_import

    def old(name: str, *, extra: str) -> Any:
        module = real(name, extra=extra)
        return type("Old", (), {"__version__": "1.0"}) if name == package else module

    monkeypatch.setattr(openvino_module, "optional_import", old)
    with pytest.raises(MissingDependencyError, match=f"{package} 1.0 is too old"):
        OpenVino().build(model, "int8", [images])


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_missing_package_names_the_extra(
    package: str, model: onnx.ModelProto, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = openvino_module.optional_import

    def absent(name: str, *, extra: str) -> Any:
        return real("no_such_" + name if name == package else name, extra=extra)

    monkeypatch.setattr(openvino_module, "optional_import", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ofa-deploy\[openvino\]'"):
        OpenVino().build(model, "int8", [images])


# -- processors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processor", "expected"), [("x86", X86), ("x86-vnni", VNNI), ("arm", ARM)]
)
def test_processors(processor: str, expected: ByteMath) -> None:
    assert ByteMath.of(processor) == expected


@pytest.mark.parametrize(
    ("machine", "vnni", "expected"),
    [("x86_64", False, X86), ("x86_64", True, VNNI), ("aarch64", False, ARM), ("arm64", True, ARM)],
)
def test_this_processor(
    monkeypatch: pytest.MonkeyPatch, machine: str, vnni: bool, expected: ByteMath
) -> None:
    monkeypatch.setattr(base_module.platform, "machine", lambda: machine)
    monkeypatch.setattr("ofa_deploy.hardware.telemetry.has_vnni", lambda: vnni)
    assert ByteMath.of("here") == expected


def test_unknown_processor_lists_them() -> None:
    with pytest.raises(UnknownNameError, match="unknown processor 'x68'.*x86"):
        ByteMath.of("x68")
    assert issubclass(UnknownNameError, InputError)
    assert "here" in PROCESSORS
