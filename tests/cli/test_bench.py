"""Timing a bundle from the command line: real files, short."""

import csv
import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.cli._legend import BENCHED

bench_module: Any = importlib.import_module("ofa_deploy.export.bench")
Cli = Callable[..., Any]
SHORT = ("--minutes", 0.01, "--processes", 1, "--image-size", "40x30")


@pytest.fixture(scope="module")
def bundle(job: Any, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "bundle"
    asked = ("--target", "onnx,onnx-fp16,tensorrt", "--no-measure")
    assert cli("export", job.subnet, "--out", folder, *asked).code == 0
    return folder


def test_every_figure_is_measured(cli: Cli, bundle: Path) -> None:
    asked = ("--target", "onnx-fp16", "--batches", "1,3", "--threads", "1,2")
    made = cli("bench", bundle, *asked, *SHORT, "--format", "json")
    assert made.code == 0, made.stderr
    rows = json.loads(made.stdout)
    cells = [(row["timed"], row["batch"], row["threads"]) for row in rows]
    assert cells == [
        (kind, batch, threads)
        for threads in (1, 2)
        for batch in (1, 3)
        for kind in ("alone", "deployed")
    ]
    for row in rows:
        assert (row["target"], row["load"]) == ("onnx-fp16", 0)
        assert 0 < row["p50"] <= row["p90"] <= row["p99"]
        assert row["ms"] > 0 and row["ratio"] > 0
        assert row["images/s"] == pytest.approx(1000 * row["batch"] / row["p50"], rel=1e-3)
    assert "in turns with onnx; deployed: from images of 40x30 pixels" in made.stderr
    assert "fastest here" in made.stderr and "--target onnx-fp16" in made.stderr


def test_all_that_runs_here_beside_a_load(cli: Cli, bundle: Path) -> None:
    asked = ("--batches", "1", "--load", 1, *SHORT)
    made = cli("bench", bundle, *asked, "--format", "csv")
    assert made.code == 0, made.stderr
    rows = list(csv.DictReader(io.StringIO(made.stdout)))
    assert [(row["target"], row["load"]) for row in rows] == [
        ("onnx", "1"),
        ("onnx", "1"),
        ("onnx-fp16", "1"),
        ("onnx-fp16", "1"),
    ]
    assert "beside 1 busy process" in made.stderr
    assert made.stderr.startswith("timing takes about 1 s (--minutes)\n")
    assert "tensorrt: not timed here: " in made.stderr


def test_table_for_people(cli: Cli, bundle: Path) -> None:
    made = cli("bench", bundle, "--target", "onnx", "--batches", "1", *SHORT, "--quiet")
    assert (made.code, made.stderr) == (0, "")
    assert "images/s" in made.stdout and "spread" not in made.stdout
    printed = " ".join(made.stdout.split())
    told = {name: meaning for name, meaning in BENCHED.items() if name != "spread"}
    assert all(f"{name}: {meaning}" in printed for name, meaning in told.items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--target", "openvino"], "unknown target 'openvino'"),
        (["--target", "onnx,onnx"], "expected distinct targets"),
        (["--target", "tensorrt"], "tensorrt is a recipe, and its engine cannot be built here"),
        (["--batches", "1,x"], "--batches: expected numbers such as 1,4,16, found '1,x'"),
        (["--batches", ""], "--batches: expected numbers"),
        (["--batches", "0"], "batches: expected 1 to 1024, found 0"),
        (["--batches", "4,4"], "batches: expected distinct numbers, found 4, 4"),
        (["--batches", "9999999"], "--batches: expected numbers"),
        (["--threads", "0"], "threads: expected 1 to 1024"),
        (["--threads", "1;2"], "--threads: expected numbers"),
        (["--load", "-1"], "load: expected 0 to 256"),
        (["--image-size", "500"], "--image-size: expected numbers such as 500x375"),
        (["--image-size", "0x5"], "image size: expected 1 to 8192, found 0"),
        (["--image-size", "99999x5"], "image size: expected 1 to 8192"),
        (["--minutes", "0"], "minutes: expected 0.01 to 10000, found 0"),
        (["--minutes", "1e5"], "minutes: expected"),
        (["--processes", "0"], "processes: expected 1 to 100"),
    ],
)
def test_wrong_options_are_one_line(
    cli: Cli, bundle: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.setattr(bench_module, "time_files", None)
    made = cli("bench", bundle, *args)
    assert message in made.error(1)
    assert made.stdout == ""


def test_no_bundle(cli: Cli) -> None:
    assert "no such bundle" in cli("bench", "nowhere").error(1)
