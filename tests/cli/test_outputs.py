"""What a user names for a result takes the place of its like only."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.cli._outputs import check_outputs
from ofa_deploy.errors import InputError

Cli = Callable[..., Any]


def test_a_run_is_not_overwritten_by_its_table(job: Any, run: Path, cli: Cli) -> None:
    before = (run / "run.json").read_bytes()
    message = cli("profile", "--run", run, "--out", run / "run.json").error(1)
    assert "run.json exists and is no latency table" in message and "another file" in message
    subnet = next(run.glob("subnets/*.subnet.json"))
    message = cli("show", subnet, "--svg", run / "run.json").error(1)
    assert "run.json: expected a name that ends in .svg for SVG, found .json" in message
    assert (run / "run.json").read_bytes() == before


KINDS = {
    "latency table": '{\n "schema": "latency-table/1"}',
    "HTML page": "<!doctype html>\n",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "SVG": '<?xml version="1.0"?>\n<svg>',
    "CSV": "a,b\n",
    "JSON of figures": '{"schema": "report/1"}',
    "ONNX model": b"\x08\x08",
}
SUFFIX = {
    "HTML page": ".html",
    "PNG": ".png",
    "SVG": ".svg",
    "JSON of figures": ".json",
    "CSV": ".csv",
    "ONNX model": ".onnx",
}


def written(folder: Path, kind: str) -> Path:
    path = folder / f"{kind.replace(' ', '-')}{SUFFIX.get(kind, '.out')}"
    content = KINDS[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_the_place_of_its_like_only(tmp_path: Path, kind: str) -> None:
    check_outputs({kind: None})
    suffix = SUFFIX.get(kind, ".json")
    check_outputs({kind: tmp_path / f"new{suffix}"})
    by_name = kind in ("CSV", "ONNX model")  # of which any content may be
    for other in KINDS:
        path = written(tmp_path, other)
        if not by_name:
            path = path.rename(tmp_path / f"there{suffix}")
        if other == kind:
            check_outputs({kind: path})
        else:
            with pytest.raises(InputError, match=f"exists and is no {kind}: it is not overwr"):
                check_outputs({kind: path})
    with pytest.raises(InputError, match="expected a file to write, found a folder"):
        check_outputs({kind: tmp_path})
    (tmp_path / f"empty{suffix}").touch()
    check_outputs({kind: tmp_path / f"empty{suffix}"})


def test_names_say_what_they_are(tmp_path: Path) -> None:
    for kind, name in (("HTML page", "x.pdf"), ("PNG", "x.jpg"), ("SVG", "x"), ("PNG", "x.png.gz")):
        with pytest.raises(InputError, match=f"expected a name that ends in .* for {kind}, found"):
            check_outputs({kind: tmp_path / name})


@pytest.mark.parametrize("schema", ["supernet-run/1", "subnet/1", "front/1", "bundle/2"])
def test_records_are_no_figures(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"schema": schema}, indent=1))
    for kind in ("latency table", "JSON of figures"):
        with pytest.raises(InputError, match="record.json exists and is no"):
            check_outputs({kind: path})


def test_nobody_waits_for_the_other_end_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="pipe.png: expected a file, found a device or a pipe"):
        check_outputs({"PNG": tmp_path / "pipe.png"})


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="expected a file for each output, found one for two"):
        check_outputs({"CSV": tmp_path / "a", "ONNX model": tmp_path / "link" / "a", "SVG": None})
    check_outputs({"PNG": tmp_path / "a.png", "SVG": tmp_path / "a.svg"})


def test_what_commands_write_they_write_again(job: Any, run: Path, cli: Cli, here: Path) -> None:
    front = next(run.glob("fronts/*.front.json"))
    outputs = ("--out", "a.html", "--png", "a.png", "--svg", "a.svg", "--json", "a.json")
    for _ in range(2):
        made = cli("compare", front, *outputs, "--csv", "a.csv")
        assert made.code == 0, made.stderr
    shutil.copyfile(front, "a.html")
    assert "a.html exists and is no HTML page" in cli("compare", front, *outputs).error(1)
    assert Path("a.html").read_bytes() == front.read_bytes()
