"""Preprocessing inside the graph, against what is done outside it, in every engine that has it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from PIL import Image

from ofa_deploy.data import MEAN, STD
from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.graph import INPUT, OPSET, PIXELS, after, build_onnx, preprocessing
from ofa_deploy.runtimes import RUNTIMES, get_runtime
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import to_tensor

Run = Callable[[onnx.ModelProto, np.ndarray], np.ndarray]


def graph(kind: str, size: int, batch: int | None = None) -> onnx.ModelProto:
    return preprocessing(kind, size, mean=MEAN, std=STD, batch=batch)


def images(seed: int, count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def outside(pixels: np.ndarray, size: int) -> np.ndarray:
    """The centre square as the house prepares it."""
    height, width = pixels.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, top : top + side, left : left + side]
    return to_tensor(np.ascontiguousarray(square.transpose(0, 3, 1, 2)), size).numpy()


def in_reference(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    found: np.ndarray = ReferenceEvaluator(model).run(None, {PIXELS: pixels})[0]  # type: ignore[index]
    return found


def in_engine(name: str) -> Run:
    def run(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
        engine = get_runtime(name)
        return engine.load(engine.build(model)).run(pixels)

    return run


@pytest.fixture(params=["reference", *RUNTIMES])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "reference":
        return in_reference
    if why := get_runtime(request.param).why_not():
        pytest.skip(why)
    return in_engine(request.param)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(16, 16, 16), (40, 40, 13), (11, 11, 24), (33, 20, 12), (20, 33, 12), (21, 40, 21), (1, 9, 5)],
)
def test_resizing_is_what_is_done_outside(run: Run, height: int, width: int, size: int) -> None:
    pixels = images(height, 2, height, width)
    found = run(graph("resize", size), pixels)
    assert found.shape == (2, 3, size, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, outside(pixels, size), atol=2e-5)


def test_normalising_is_what_is_done_outside(run: Run) -> None:
    pixels = images(0, 3, 12, 12)
    np.testing.assert_allclose(
        run(graph("normalise", 12), pixels), outside(pixels, 12), rtol=1e-6, atol=1e-6
    )


@settings(max_examples=25)
@given(height=st.integers(1, 48), width=st.integers(1, 48), size=st.integers(1, 40))
def test_any_size_to_any_size(height: int, width: int, size: int) -> None:
    pixels = images(height * 50 + width, 1, height, width)
    found = in_reference(graph("resize", size), pixels)
    np.testing.assert_allclose(found, outside(pixels, size), atol=2e-5)


def test_it_resizes_as_pillow_does() -> None:
    """To the rounding of its whole numbers."""
    pixels = images(3, 1, 50, 50)
    resized = Image.fromarray(pixels[0]).resize((21, 21), Image.Resampling.BILINEAR)
    expected = outside(np.asarray(resized)[None], 21)
    found = in_reference(graph("resize", 21), pixels)
    assert np.abs(found - expected).max() <= 1.5 / 255 / min(STD)


@pytest.mark.parametrize("name", RUNTIMES)
def test_one_session_takes_images_of_many_sizes(name: str) -> None:
    engine = get_runtime(name)
    if why := engine.why_not():
        pytest.skip(why)
    session = engine.load(engine.build(graph("resize", 10)))
    for height, width in ((10, 10), (37, 20), (8, 64)):
        pixels = images(1, 1, height, width)
        np.testing.assert_allclose(session.run(pixels), outside(pixels, 10), atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "sides"), [("normalise", [9, 9]), ("resize", ["height", "width"])]
)
@pytest.mark.parametrize(("batch", "count"), [(None, "batch"), (4, 4)])
def test_its_shapes(kind: str, sides: list[Any], batch: int | None, count: Any) -> None:
    model = graph(kind, 9, batch)
    onnx.checker.check_model(model, full_check=True)
    assert [o.version for o in model.opset_import] == [OPSET]

    def dims(value: onnx.ValueInfoProto) -> list[Any]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert dims(model.graph.input[0]) == [count, *sides, 3]
    assert dims(model.graph.output[0]) == [count, 3, 9, 9]


@pytest.mark.parametrize("kind", ["normalise", "resize"])
def test_a_network_behind_it_gives_the_same(run: Run, kind: str, tiny_space: SearchSpace) -> None:
    network = build_onnx(tiny_space.lower(tiny_space.largest), metadata={"space": "tiny"})
    size = tiny_space.largest.resolution
    joined = after(graph(kind, size), network)
    onnx.checker.check_model(joined, full_check=True)
    assert {p.key: p.value for p in joined.metadata_props} == {"space": "tiny"}
    pixels = images(5, 2, size, size) if kind == "normalise" else images(5, 2, 40, 25)
    prepared = torch.from_numpy(outside(pixels, size)).contiguous().numpy()
    expected = ReferenceEvaluator(network).run(None, {INPUT: prepared})[0]  # type: ignore[index]
    np.testing.assert_allclose(
        run(joined, pixels), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


def test_joining_leaves_both_as_they_were(tiny_space: SearchSpace) -> None:
    first = graph("resize", tiny_space.largest.resolution)
    second = build_onnx(tiny_space.lower(tiny_space.largest))
    before = first.SerializeToString(), second.SerializeToString()
    after(first, second)
    assert (first.SerializeToString(), second.SerializeToString()) == before


@pytest.mark.parametrize(("size", "batch"), [(12, None), (16, 2)])
def test_graphs_that_do_not_fit_are_refused(
    tiny_space: SearchSpace, size: int, batch: int | None
) -> None:
    network = build_onnx(tiny_space.lower(tiny_space.largest))
    with pytest.raises(InputError, match="as the other takes it"):
        after(graph("resize", size, batch), network)


@pytest.mark.parametrize("kind", ["none", "crop", ""])
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown preprocessing"):
        graph(kind, 8)
