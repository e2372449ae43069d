"""``show``: a subnet block by block on the terminal, as data, and as a drawing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ofa_deploy.hardware import LatencyTable
from ofa_deploy.supernet import SubnetFile
from ofa_deploy.terminal import metric

Cli = Callable[..., Any]


def test_rows_add_up(job: Any, cli: Cli) -> None:
    record = json.loads(job.subnet.read_text())
    made = cli("show", job.subnet, "--table", job.table, "--format", "json")
    rows = json.loads(made.stdout)
    table = LatencyTable.load(job.table)
    assert sum(row["macs"] for row in rows) == record["candidate"]["predicted"]["macs"]
    assert [row["ms"] for row in rows] == [table.blocks[row["block"]].ms for row in rows]
    shares = [int(row["share"].removesuffix("%")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=len(shares))


def test_terminal_shows_stages_kernels_and_bars(job: Any, cli: Cli) -> None:
    made = cli("show", job.subnet, "--table", job.table)
    assert made.code == 0, made.stderr
    record = SubnetFile.model_validate_json(job.subnet.read_text())
    named = record.search_space.lower_named(record.network.arch)
    table = LatencyTable.load(job.table)
    times = [table.value(block) for _, block in named]
    lines = [line for line in made.stdout.splitlines() if set("▏▎▍▌▋▊▉█") & set(line)]
    assert len(lines) == len(named)
    for line, (_, block), ms in zip(lines, named, times, strict=True):
        assert block.kind in line
        assert f"{100 * ms / sum(times):.1f} %" in line
        if block.kind == "mbconv":
            assert f"k{block.kernel}" in line
            assert f"e{block.mid_channels / block.in_channels:.3g}" in line
    bars = [line.count("█") for line in lines]
    assert bars[times.index(max(times))] == max(bars) == 16
    stages = [line.split()[0] for line in lines]
    assert stages.count("stage") == len({place.split(".")[1] for place, _ in named if "." in place})
    assert all(len(line) <= 100 for line in made.stdout.splitlines())
    assert "Share of latency" in made.stdout


def test_without_a_table_shares_are_of_macs(job: Any, cli: Cli) -> None:
    made = cli("show", job.subnet)
    assert "Share of MACs" in made.stdout
    record = SubnetFile.model_validate_json(job.subnet.read_text())
    told = {"predicted": record.network.predicted, "measured": record.network.measured}
    lines = dict(line.split(": ", 1) for line in made.stderr.splitlines())
    for how, values in told.items():
        figures = [f"{name} {metric(name, value)}" for name, value in values.items()]
        assert lines[how].split(", ") == figures
    assert re.search(r"latency 0\.\d+ ms.*macs [\d.]+ [kM]", lines["predicted"])
    assert " ms " not in made.stdout


def test_draws_an_svg(job: Any, here: Path, cli: Cli) -> None:
    made = cli("show", job.subnet, "--table", job.table, "--svg", "out/net.svg", "--quiet")
    assert (made.code, made.stderr) == (0, "")
    root = ElementTree.fromstring((here / "out" / "net.svg").read_text())
    record = SubnetFile.model_validate_json(job.subnet.read_text())
    blocks = record.search_space.lower(record.network.arch)
    assert len([e for e in root.iter() if e.tag.endswith("}polygon")]) == len(blocks)
    assert "wrote out/net.svg" in cli("show", job.subnet, "--svg", "out/net.svg").stderr
