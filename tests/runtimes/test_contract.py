"""What every runtime must do, whichever it is."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ofa_deploy.errors import DeviceError, InputError, UnknownNameError
from ofa_deploy.graph import INPUT, build_empty, build_onnx
from ofa_deploy.runtimes import RUNTIMES, Runtime, get_runtime
from ofa_deploy.space import SearchSpace


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    runtime = get_runtime(request.param)
    if why := runtime.why_not():
        pytest.skip(why)
    return runtime


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace) -> onnx.ModelProto:
    return build_onnx(tiny_space.lower(tiny_space.largest))


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 3, 16, 16)).astype(np.float32)


def test_it_has_the_name_it_was_asked_by(runtime: Runtime) -> None:
    assert get_runtime(runtime.name).name == runtime.name
    assert runtime.version
    assert "fp32" in runtime.precisions


def test_unknown_runtime_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="unknown runtime 'onnxruntim'.*onnxruntime"):
        get_runtime("onnxruntim")


def test_it_computes_what_the_graph_says(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray
) -> None:
    expected = np.asarray(ReferenceEvaluator(model).run(None, {INPUT: images})[0])
    found = runtime.load(runtime.build(model)).run(images)
    assert found.dtype == np.float32
    assert found.shape == (3, 4)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_batch_is_free(runtime: Runtime, model: onnx.ModelProto, images: np.ndarray) -> None:
    session = runtime.load(runtime.build(model))
    whole = session.run(images)
    single = np.concatenate([session.run(images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(single, whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())


def test_artefact_is_bytes_that_load_again(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray
) -> None:
    artefact = runtime.build(model, "fp32")
    assert isinstance(artefact, bytes)
    np.testing.assert_array_equal(
        runtime.load(artefact).run(images), runtime.load(artefact).run(images)
    )


def test_bound_call_runs_and_can_be_repeated(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray
) -> None:
    session = runtime.load(runtime.build(model))
    call = session.bound(images)
    before = session.run(images)
    for _ in range(3):
        call()
    np.testing.assert_array_equal(session.run(images), before)


def test_bound_call_takes_images_in_any_layout(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray
) -> None:
    strided = images.transpose(0, 1, 3, 2)
    assert not strided.flags.c_contiguous
    runtime.load(runtime.build(model)).bound(strided)()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_answer(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray, threads: int
) -> None:
    artefact = runtime.build(model)
    one = runtime.load(artefact, threads=1).run(images)
    other = runtime.load(artefact, threads=threads).run(images)
    np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())


def test_empty_graph_hands_on_its_number(runtime: Runtime) -> None:
    session = runtime.load(runtime.build(build_empty()))
    value = np.array([[3.5]], np.float32)
    np.testing.assert_array_equal(session.run(value), value)
    session.bound(value)()


@pytest.mark.parametrize("precision", ["fp31", "", "FP32"])
def test_unknown_precision_is_refused(
    runtime: Runtime, model: onnx.ModelProto, precision: str
) -> None:
    with pytest.raises(InputError, match="unknown precision"):
        runtime.build(model, precision)


@pytest.mark.parametrize("cut", [0, 1, 100, -100])
def test_truncated_artefact_is_refused(runtime: Runtime, model: onnx.ModelProto, cut: int) -> None:
    with pytest.raises(DeviceError, match=runtime.name) as error:
        runtime.load(runtime.build(model)[:cut])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rubbish", [b"not a model", bytes(1000), b"\xff" * 1000])
def test_rubbish_is_refused(runtime: Runtime, rubbish: bytes) -> None:
    with pytest.raises(DeviceError, match=runtime.name) as error:
        runtime.load(rubbish)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 3, 16), (1, 4, 16, 16)])
def test_images_that_do_not_fit_are_refused(
    runtime: Runtime, model: onnx.ModelProto, shape: tuple[int, ...]
) -> None:
    session = runtime.load(runtime.build(model))
    with pytest.raises(DeviceError, match=runtime.name) as error:
        session.run(np.zeros(shape, np.float32))
    assert "\n" not in str(error.value)


def relative_noise(expected: np.ndarray, found: np.ndarray) -> float:
    return float(((expected - found) ** 2).mean() / expected.var())


def test_int8_is_near_fp32_and_smaller(
    runtime: Runtime, tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    block = tiny_space.lower(tiny_space.largest)[2]
    model = build_onnx([block])
    images = rng.standard_normal((8, block.in_channels, block.size, block.size)).astype(np.float32)
    whole = runtime.load(runtime.build(model)).run(images)
    artefact = runtime.build(model, "int8", [images[:4], images[4:]])
    found = runtime.load(artefact).run(images)
    assert found.dtype == np.float32
    assert 0 < relative_noise(whole, found) < 0.02


def test_int8_needs_calibration(runtime: Runtime, model: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="needs calibration images, found none"):
        runtime.build(model, "int8")


def test_int8_leaves_the_model_as_it_was(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray
) -> None:
    before = model.SerializeToString()
    runtime.build(model, "int8", [images])
    assert model.SerializeToString() == before


def test_building_int8_says_nothing(
    runtime: Runtime, model: onnx.ModelProto, images: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime.build(model, "int8", [images])
    assert capfd.readouterr() == ("", "")
