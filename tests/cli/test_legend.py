"""Columns whose names do not say it all are explained below the table that has them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.cli import _legend
from ofa_deploy.cli._legend import BLOCKS, EXPORTED, TABLES, VERIFIED, legend
from ofa_deploy.cli._output import OutputFormat, emit

Cli = Callable[..., Any]


def test_only_columns_that_are_there_are_explained() -> None:
    meanings = {"ms": "time", "lost_ms": "lost time"}
    assert legend(["block", "lost_ms", "ms"], meanings) == "lost ms: lost time; ms: time"
    assert legend(["block"], meanings) == ""


@pytest.mark.parametrize("name", [name for name in _legend.__all__ if name.isupper()])
def test_meanings_are_short_and_do_not_break_the_line(name: str) -> None:
    for meaning in getattr(_legend, name).values():
        assert ";" not in meaning and "\n" not in meaning and 0 < len(meaning) < 80


def test_a_legend_stands_below_a_table_and_in_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"target": "[bold]onnx", "probe_sqnr_db": 21.0}]
    for how in OutputFormat:
        emit(rows, how, meanings=VERIFIED)
        said = " ".join(capsys.readouterr().out.split())
        assert ("probe sqnr db: signal to noise" in said) is (how is OutputFormat.table)
        assert "top1:" not in said


def test_commands_explain_columns_that_they_have(job: Any, cli: Cli, photos: Path) -> None:
    commands: dict[tuple[object, ...], Mapping[str, str]] = {
        ("verify", job.bundle, "--data", photos): VERIFIED,
        ("tables", "show", job.table): BLOCKS,
        ("tables", "list"): TABLES,
    }
    for command, meanings in commands.items():
        (first, *_) = json.loads(cli(*command, "--format", "json").stdout)
        assert set(meanings) <= set(first)
        printed = " ".join(cli(*command).stdout.split())
        for name, meaning in meanings.items():
            assert f"{name.replace('_', ' ')}: {meaning}" in printed


def test_an_export_explains_its_gate(job: Any) -> None:
    printed = " ".join(job.said["export"].stdout.split())
    for name, meaning in EXPORTED.items():
        assert f"{name.replace('_', ' ')}: {meaning}" in printed


def test_a_front_explains_its_figures(job: Any, cli: Cli) -> None:
    both = " ".join(cli("compare", *job.fronts).stdout.split())
    assert "in brackets: the prediction's interval" in both
    assert "predicted top-1 ±: half of the model's 90 % interval" in both
    assert "measured top-1 ±: half of what its number of images leaves open" in both
    (predicted, _) = job.fronts
    alone = " ".join(cli("compare", predicted).stdout.split())
    assert "predicted top-1 ±" in alone and "measured top-1 ±" not in alone
