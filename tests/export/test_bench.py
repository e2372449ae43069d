"""What is timed of a bundle, with what beside it, and what is said of made-up times."""

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from ofa_deploy.errors import DeviceError, InputError
from ofa_deploy.export import (
    Bench,
    BenchOptions,
    Bundle,
    ExportOptions,
    Latency,
    Timed,
    bench_bundle,
    export_subnet,
)
from ofa_deploy.export.busy import busy
from ofa_deploy.export.classify import feed, read_square
from ofa_deploy.export.manifest import Preprocessing
from ofa_deploy.profiling import Protocol
from ofa_deploy.supernet import to_tensor
from tests.export.tampering import edited

bench_module: Any = importlib.import_module("ofa_deploy.export.bench")
load_module: Any = importlib.import_module("ofa_deploy.export.busy")
Times = Callable[..., dict[str, Latency]]


def latency(ratio: float, batch: int, threads: int = 1) -> Latency:
    return Latency(
        ms=ratio,
        ratio=ratio,
        spread=0.01,
        twin_ratio=None,
        p50=2 * ratio,
        p90=3 * ratio,
        p99=4 * ratio,
        batch=batch,
        threads=threads,
        processes=1,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In place of timing: what was asked for, one entry a call."""
    seen: list[dict[str, Any]] = []

    def time_files(files: Any, twins: Any, **options: Any) -> dict[str, Latency]:
        seen.append({"files": files, **options})
        assert all(file.artefact.is_file() for file in files.values())
        return {
            name: latency(1.0 + len(name) / 100, file.shape[0], options["threads"])
            for name, file in files.items()
        }

    monkeypatch.setattr(bench_module, "time_files", time_files)
    return seen


# -- what is timed --------------------------------------------------------------------------


def test_all_that_runs_here_in_every_way(whole: Any, asked: list[dict[str, Any]]) -> None:
    options = BenchOptions(batches=(1, 4), threads=(1, 2), image=(30, 40), minutes=2, processes=3)
    found = bench_bundle(Bundle.read(whole.folder), options)
    assert found.reference == "onnx"
    assert set(found.left_out) == {"torch-export", "tensorrt"}
    assert [call["threads"] for call in asked] == [1, 2]
    assert asked[0]["protocol"] == Protocol(rounds=10_000, seconds=20.0, processes=3)
    files = asked[0]["files"]
    reference = files[asked[0]["reference"]]
    assert (reference.target, reference.shape, reference.deployed) == ("onnx", (1, 3, 12, 12), None)
    names = [name for name in whole.manifest.targets if name not in found.left_out]
    expected = {
        (name, kind, batch, threads)
        for name in names
        for kind in ("alone", "deployed")
        for batch in (1, 4)
        for threads in (1, 2)
    }
    cells = [(row.target, row.kind, row.latency.batch, row.latency.threads) for row in found.rows]
    assert set(cells) == expected and len(cells) == len(expected)
    around = {file.deployed.image for file in files.values() if file.deployed}
    assert around == {(30, 40)}


def test_what_is_asked_for_beside_the_reference(whole: Any, asked: list[dict[str, Any]]) -> None:
    found = bench_bundle(Bundle.read(whole.folder), BenchOptions(targets=("openvino",)))
    assert {row.target for row in found.rows} == {"openvino"}
    assert (found.reference, dict(found.left_out)) == ("onnx", {})
    assert {file.target for file in asked[0]["files"].values()} == {"onnx", "openvino"}


def test_fixed_batch_and_no_onnx(saved: Any, tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    out = tmp_path / "b"
    options = ExportOptions(
        targets=("onnx-fp16", "openvino"), batch=2, preprocessing="resize", measure=False
    )
    export_subnet(saved.path, out, saved.test, options=options)
    found = bench_bundle(Bundle.read(out), BenchOptions())
    assert found.reference == "onnx-fp16"
    assert [row.latency.batch for row in found.rows] == [2, 2, 2, 2]
    shapes = {file.shape for file in asked[0]["files"].values()}
    assert shapes == {(2, 12, 12, 3)}


def test_nothing_that_runs_here(saved: Any, tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    out = tmp_path / "b"
    export_subnet(saved.path, out, saved.test, options=ExportOptions(targets=("tensorrt",)))
    with pytest.raises(DeviceError, match="none of the bundle's targets runs here .*recipe"):
        bench_bundle(Bundle.read(out), BenchOptions())
    assert asked == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["none", "normalise", "resize"])
def test_real_files_of_each_kind(saved: Any, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "b"
    options = ExportOptions(preprocessing=kind, measure=False)
    export_subnet(saved.path, out, saved.test, options=options)
    short = BenchOptions(batches=(2,), image=(40, 60), minutes=0.01, processes=1)
    found = bench_bundle(Bundle.read(out), short)
    alone, deployed = found.rows
    assert (alone.kind, deployed.kind) == ("alone", "deployed")
    assert deployed.latency.ratio > alone.latency.ratio, "more is done"
    assert alone.images_per_s == pytest.approx(2000 / alone.latency.p50)


# -- the fastest ----------------------------------------------------------------------------


def test_fastest_is_of_the_unmarked_at_the_smallest_batch(whole: Any) -> None:
    bundle = Bundle.read(whole.folder)
    assert bundle.record("openvino-int8").status == "marked"
    rows = [
        Timed("onnx", "alone", latency(1.0, 1)),
        Timed("openvino", "alone", latency(0.9, 1)),
        Timed("openvino-int8", "alone", latency(0.1, 1)),
        Timed("onnx", "alone", latency(0.2, 16)),
        Timed("onnx", "deployed", latency(0.3, 1)),
    ]
    assert Bench(tuple(rows), "onnx", {}, 0.0).fastest(bundle) == "openvino"
    assert Bench((rows[2],), "onnx", {}, 0.0).fastest(bundle) is None


def test_what_no_gate_has_seen_running_is_not_the_fastest(copy: Path) -> None:
    """An engine that was built elsewhere, say: it is fast, and may compute anything."""
    edited(copy, lambda value: value["targets"]["openvino"].update(status="not verified here"))
    rows = [
        Timed("onnx", "alone", latency(1.0, 1)),
        Timed("openvino", "alone", latency(0.1, 1)),
    ]
    bundle = Bundle.read(copy)
    assert Bench(tuple(rows), "onnx", {}, 0.0).fastest(bundle) == "onnx"
    assert Bench((rows[1],), "onnx", {}, 0.0).fastest(bundle) is None


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": ()}, "batches: expected distinct numbers, found none"),
        ({"batches": (1, 1)}, "found 1, 1"),
        ({"batches": (0,)}, "batches: expected 1 to 1024"),
        ({"threads": (1, 5000)}, "threads: expected 1 to 1024, found 5000"),
        ({"load": -1}, "load: expected 0 to 256"),
        ({"image": (0, 5)}, "image size"),
        ({"minutes": float("inf")}, "minutes"),
        ({"processes": 0}, "processes"),
        ({"targets": ("onnx", "onnx")}, "distinct targets"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchOptions(**options)


def test_square_images_are_let_be() -> None:
    assert BenchOptions(image=(30, 30)).image == (30, 30)


# -- the load beside ------------------------------------------------------------------------


def workers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "ofa_deploy.export.busy" in child.cmdline()
    ]


def test_load_works_and_ends() -> None:
    with busy(2):
        started = workers()
        assert len(started) == 2
        used = [sum(process.cpu_times()[:2]) for process in started]
        while not all(
            sum(process.cpu_times()[:2]) > before
            for process, before in zip(started, used, strict=True)
        ):
            os.sched_yield()
    assert workers() == []


def test_load_ends_when_measuring_fails() -> None:
    with pytest.raises(RuntimeError, match="measured badly"), busy(1):
        raise RuntimeError("measured badly")
    assert workers() == []


def test_load_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module.sys, "executable", "/bin/false")
    with pytest.raises(DeviceError, match="did not start"), busy(1):
        raise AssertionError("unreached")


def test_load_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(load_module, "module_command", lambda *_: silent)
    monkeypatch.setattr(load_module, "_START_S", 0.2)
    start = time.monotonic()
    with pytest.raises(DeviceError, match="did not start"), busy(2):
        raise AssertionError("unreached")
    assert time.monotonic() - start < 30


# -- images ---------------------------------------------------------------------------------


def wanted(size: int) -> Preprocessing:
    return Preprocessing(
        size=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), inside="none"
    )


def test_feed_is_what_the_subnet_was_checked_on(whole: Any) -> None:
    """Pillow rounds what it resizes to whole numbers, torch does not."""
    images = whole.saved.test.images[:6]
    given = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in images]
    same = feed(given, wanted(16), "none")
    np.testing.assert_allclose(same, to_tensor(images, 16).numpy(), atol=1e-5)
    assert same.dtype == np.float32 and same.flags.c_contiguous
    smaller = feed(given, wanted(12), "none")
    np.testing.assert_allclose(smaller, to_tensor(images, 12).numpy(), atol=1.6 / 255 / 0.224)


@pytest.mark.parametrize("shape", [(16, 24), (25, 16), (16, 16)])
def test_only_the_centre_is_seen(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 255, np.uint8)
    top, left = (shape[0] - 16) // 2, (shape[1] - 16) // 2
    image[top : top + 16, left : left + 16] = 7
    for inside in ("normalise", "resize"):
        (seen,) = feed([image], wanted(16), inside)
        assert seen.shape == (16, 16, 3) and (seen == 7).all()
    assert feed([image], wanted(8), "normalise").shape == (1, 8, 8, 3)
    assert feed([image], wanted(8), "resize").shape == (1, 16, 16, 3)


def test_square_of_a_turned_photograph(tmp_path: Path) -> None:
    """Its orientation tag says that it lies on its side."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 5:15] = 200  # left of the centre, as it is stored
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    seen = read_square(tmp_path / "turned.png")
    assert seen.shape == (20, 20, 3)
    assert (seen[:10] == 200).all() and (seen[10:] == 0).all()
