"""The gate's rules: what is refused, what is marked, what is called the best."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import GateError
from ofa_deploy.export import Accuracy, Latency, TargetRecord
from ofa_deploy.export.classify import run_in_batches, top1_allowance
from ofa_deploy.export.gate import (
    Checked,
    choose_best,
    compare,
    judge,
    prepared,
    refuse_wrong,
    tolerance,
)
from ofa_deploy.export.manifest import Input
from ofa_deploy.export.sensitivity import ratio_db, sqnr_db
from ofa_deploy.export.targets import preferred
from ofa_deploy.runtimes import Session


def accuracy(**fields: Any) -> Accuracy:
    usual = {
        "images": 100,
        "top1": 80.0,
        "subnet_top1": 80.0,
        "agreement": 99.0,
        "max_difference": 1e-6,
        "tolerance": None,
        "sqnr_db": 40.0,
    }
    return Accuracy(**{**usual, **fields})


def latency(ratio: float, twin: float | None = None) -> Latency:
    return Latency(
        ms=ratio,
        ratio=ratio,
        spread=0.01,
        twin_ratio=twin,
        p50=ratio,
        p90=ratio,
        p99=ratio,
        batch=1,
        threads=1,
        processes=3,
    )


def record(precision: str, ratio: float | None, status: str = "verified") -> TargetRecord:
    return TargetRecord(
        runtime="onnxruntime",
        runtime_version="1",
        precision=precision,
        files=("a",),
        bytes=1,
        build_s=0.1,
        input=Input(
            name="images", dtype="float32", shape=(1, 3, 8, 8), layout="NCHW", preprocessing="none"
        ),
        settings={},
        status=status,
        latency=None if ratio is None else latency(ratio),
    )


# -- refusing -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_logits_beyond_the_tolerance_are_refused(precision: str) -> None:
    limit = tolerance(precision, "none")
    assert limit is not None
    refuse_wrong("x", precision, accuracy(max_difference=limit, tolerance=limit))
    with pytest.raises(GateError, match="x: its logits differ .* no bundle was written"):
        refuse_wrong("x", precision, accuracy(max_difference=1.01 * limit, tolerance=limit))


@pytest.mark.parametrize("top1", [79.9, 80.1])
def test_float32_with_another_top1_is_refused(top1: float) -> None:
    with pytest.raises(GateError, match="top-1"):
        refuse_wrong("x", "fp32", accuracy(top1=top1, images=10_000))
    refuse_wrong("x", "fp32", accuracy(top1=80.04, images=10_000))
    refuse_wrong("x", "int8", accuracy(top1=top1, images=10_000))


@given(images=st.integers(1, 100_000), data=st.data())
def test_one_image_never_sinks_a_float32_file_and_two_of_few_do(images: int, data: Any) -> None:
    """Whichever way it flips: of two classes that are as good as equal, rounding decides."""
    right = data.draw(st.integers(0, images))
    flipped = data.draw(st.integers(-right, images - right))
    seen = accuracy(
        images=images, top1=100 * (right + flipped) / images, subnet_top1=100 * right / images
    )
    if abs(flipped) <= 1 or 2000 * abs(flipped) <= images:
        refuse_wrong("x", "fp32", seen)
    else:
        with pytest.raises(GateError, match="top-1"):
            refuse_wrong("x", "fp32", seen)


def test_one_image_is_allowed_of_any_number() -> None:
    """Shares are rounded: their difference may be a little more than the share of one image."""
    for images in range(1, 300):
        shares = 100 * np.arange(images + 1) / images
        assert np.diff(shares).max() <= top1_allowance(images) < 100 / images + 0.06


def test_tolerances_grow_with_what_is_rounded() -> None:
    assert tolerance("int8", "none") is None
    exact, resized, half = (
        tolerance("fp32", "none"),
        tolerance("fp32", "resize"),
        tolerance("fp16", "none"),
    )
    assert exact is not None and resized is not None and half is not None
    assert exact < resized < half
    assert tolerance("fp32", "normalise") == exact


# -- marking --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top1", "twin", "marks"),
    [
        (79.5, 0.9, []),
        (79.0, 0.9, []),
        (78.99, 0.9, ["loses 1.01 points of top-1, more than the 1 allowed"]),
        (80.0, 1.0, ["takes 1.00 times as long as its float32 twin"]),
        (70.0, 1.5, ["loses 10.00 points", "takes 1.50 times as long"]),
        (79.5, None, []),
    ],
)
def test_marks_of_int8(top1: float, twin: float | None, marks: list[str]) -> None:
    timed = None if twin is None else latency(1.0, twin)
    status, reasons = judge("int8", accuracy(top1=top1), timed, 1.0)
    assert status == ("marked" if marks else "verified")
    assert len(reasons) == len(marks)
    for reason, mark in zip(reasons, marks, strict=True):
        assert reason.startswith(mark)


def test_float16_is_not_marked_for_its_speed() -> None:
    assert judge("fp16", accuracy(), latency(1.5, 1.5), 1.0) == ("verified", ())
    assert judge("fp16", accuracy(top1=70), latency(1.5, 1.5), 1.0)[0] == "marked"


# -- choosing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "best"),
    [
        ({"onnx": ("fp32", 1.0), "ort-int8": ("int8", 0.8)}, "ort-int8"),
        ({"onnx": ("fp32", 1.0), "ort-int8": ("int8", 0.8, "marked")}, "onnx"),
        ({"onnx": ("fp32", 1.0), "openvino-int8": ("int8", 0.99)}, "onnx"),
        ({"onnx-fp16": ("fp16", 1.0), "onnx": ("fp32", 1.01)}, "onnx"),
        ({"onnx": ("fp32", 1.0), "tensorrt": ("fp32", None, "not verified here")}, "onnx"),
        ({"onnx": ("fp32", None)}, "onnx"),
        ({"onnx": ("fp32", None), "torch-export": ("fp32", None)}, "onnx"),
        ({"onnx": ("fp32", None), "openvino": ("fp32", None)}, None),
        ({"ort-int8": ("int8", 1.2, "marked")}, None),
        ({"tensorrt": ("fp32", None, "not verified here")}, None),
    ],
)
def test_best(targets: dict[str, tuple[Any, ...]], best: str | None) -> None:
    assert choose_best({name: record(*fields) for name, fields in targets.items()}) == best


@pytest.mark.parametrize(
    "targets",
    [
        # In the order in which they shall be offered.
        {"ort-int8": ("int8", 0.8), "onnx": ("fp32", 1.0), "openvino": ("fp32", None)},
        {"openvino": ("fp32", None), "onnx-fp16": ("fp16", 0.5, "marked")},
        {"ort-int8": ("int8", 2.0, "marked"), "tensorrt-rtx": ("fp32", None, "not verified here")},
        {"tensorrt-rtx": ("fp32", None, "not verified here"), "torch-export": ("fp32", None)},
        {"onnx": ("fp32", None), "npu-int4": ("int8", 0.1)},
    ],
)
def test_what_runs_is_offered_first(targets: dict[str, tuple[Any, ...]]) -> None:
    made = {name: record(*fields) for name, fields in targets.items()}
    backwards = dict(reversed(made.items()))
    assert preferred(made) == preferred(backwards) == list(targets)


def test_recipes_are_offered_last() -> None:
    recipe = record("fp32", None, "not verified here").model_copy(
        update={"files": ("a.onnx", "a.recipe.json")}
    )
    engine = record("fp16", None, "not verified here")
    made = {"tensorrt": recipe, "tensorrt-fp16": engine, "onnx": record("fp32", None)}
    assert preferred(made) == ["onnx", "tensorrt-fp16", "tensorrt"]
    assert preferred({"tensorrt": recipe}) == ["tensorrt"]


# -- comparing ------------------------------------------------------------------------------


class Told(Session):
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray]) -> None:
        self.answer = answer
        self.asked: list[np.ndarray] = []

    def run(self, images: np.ndarray) -> np.ndarray:
        self.asked.append(images)
        return self.answer(images)

    def bound(self, images: np.ndarray) -> Callable[[], None]:
        raise NotImplementedError


@given(count=st.integers(1, 40), batch=st.integers(1, 12))
def test_fixed_batches_are_filled_and_cut(count: int, batch: int) -> None:
    session = Told(lambda images: images[:, :2].copy())
    inputs = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    np.testing.assert_array_equal(run_in_batches(session, inputs, batch), inputs[:, :2])
    assert {len(images) for images in session.asked} == {batch}
    assert len(session.asked) == -(-count // batch)


def test_free_batches_go_through_at_once() -> None:
    session = Told(lambda images: images)
    run_in_batches(session, np.zeros((7, 3), np.float32), None)
    assert [len(images) for images in session.asked] == [7]


def test_figures_are_those_of_all_batches(saved: Any) -> None:
    """600 images in batches of 250: sums over batches are those over all images."""
    test = type(saved.test)(
        np.tile(saved.test.images, (3, 1, 1, 1))[:600], np.tile(saved.test.labels, 3)[:600],
        saved.test.classes,
    )  # fmt: skip
    honest: Any = saved.subnet
    seen: list[np.ndarray] = []

    def noisy(images: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            logits: np.ndarray = honest(torch.from_numpy(images)).numpy()
        seen.append(logits)
        return np.asarray(logits + 0.1 * np.sin(100 * logits))

    files = {"x": Checked(Told(noisy), "none", None, None)}
    found = compare(files, honest, 12, test)["x"]
    logits = np.concatenate(seen)
    wrong = logits + 0.1 * np.sin(100 * logits)
    assert found.images == 600
    assert found.subnet_top1 == pytest.approx(100 * (logits.argmax(1) == test.labels).mean())
    assert found.top1 == pytest.approx(100 * (wrong.argmax(1) == test.labels).mean())
    assert found.agreement == pytest.approx(100 * (wrong.argmax(1) == logits.argmax(1)).mean())
    assert found.sqnr_db == pytest.approx(sqnr_db(logits, wrong), abs=1e-3)
    largest = np.abs(wrong - logits).max() / np.abs(logits).max()
    assert found.max_difference == pytest.approx(largest, rel=1e-3)


def test_files_that_take_rounded_pixels_are_compared_on_those(saved: Any) -> None:
    session = Told(lambda pixels: np.zeros((len(pixels), 4), np.float32))
    compare({"x": Checked(session, "normalise", None, None)}, saved.subnet, 12, saved.test)
    (first, _) = session.asked
    assert first.dtype == np.uint8
    assert first.shape[1:] == (12, 12, 3)
    np.testing.assert_array_equal(first[:3], prepared(saved.test.images[:3], "normalise", 12))
    whole = prepared(saved.test.images[:3], "resize", 12)
    assert whole.shape == (3, 16, 16, 3), "as they come"


# -- decibels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "noise", "db"),
    [(1.0, 1.0, 0.0), (100.0, 1.0, 20.0), (1.0, 0.0, 200.0), (0.0, 1.0, -200.0), (1e9, 1e-30, 200)],
)
def test_decibels(signal: float, noise: float, db: float) -> None:
    assert ratio_db(signal, noise) == pytest.approx(db)
