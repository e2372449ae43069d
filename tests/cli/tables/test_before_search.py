"""A search asks a few blocks of the device whether its table still holds."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict import latency_model
from ofa_deploy.space import get_space
from tests.cli.tables.edits import SPACE, Cli, at_speed


@pytest.fixture
def asking(job: Any, tmp_path: Path) -> tuple[object, ...]:
    run = shutil.copytree(job.run, tmp_path / "mine")
    table = LatencyTable.load(job.table)
    assert table.reference is not None
    budget = ("--constraint", f"latency <= {5 * table.reference.ms} ms")
    return ("search", "--run", run, "--table", job.table, *budget, "--format", "json")


def test_search_says_that_the_table_holds(
    cli: Cli, asking: tuple[object, ...], workers: Any
) -> None:
    made = cli(*asking)
    assert made.code == 0, made.stderr
    assert "latency table: the device runs as in the table" in made.stderr
    assert "warning: latency table" not in made.stderr


def test_search_rescales_the_table_of_a_slower_device(
    cli: Cli, asking: tuple[object, ...], workers: Any
) -> None:
    at_speed(workers, "2.0")
    made = cli(*asking)
    assert made.code == 0, made.stderr
    assert "searching with all of it rescaled" in made.stderr
    (row,) = json.loads(made.stdout)
    assert row["predicted_ms"] == pytest.approx(row["measured_ms"], rel=0.1)


def test_search_warns_of_other_kernels(cli: Cli, asking: tuple[object, ...], workers: Any) -> None:
    at_speed(workers, "1 + 0.5 * (size % 2)")
    made = cli(*asking)
    assert re.search(r"warning: latency table: .*profile anew: ofa-deploy profile", made.stderr)


def least_of(table: Path) -> float:
    """The latency that is predicted for the fastest network, in ms."""
    return latency_model(get_space(SPACE).with_classes(3), LatencyTable.load(table)).bounds()[0]


@pytest.mark.parametrize("limit", ["latency <= {} ms", "latency.p99 <= {} ms", "macs <= 1k"])
def test_a_budget_that_no_speed_meets_is_refused_before_anything_is_measured(
    cli: Cli, asking: tuple[object, ...], job: Any, workers: Any, limit: str
) -> None:
    least = least_of(job.table)
    asked = limit.format(round(least / 2.5, 6))
    message = cli(*asking, "--constraint", asked).error(3)
    assert workers.started == 0
    assert asked in message and "nothing was measured: " in message and "nearest: " in message
    assert ("a factor of 2, which ofa-deploy tables check" in message) is ("macs" not in limit)


def test_a_budget_that_a_faster_machine_meets_is_asked_of_it(
    cli: Cli, asking: tuple[object, ...], job: Any, workers: Any
) -> None:
    least = least_of(job.table)
    budget = ("--constraint", f"latency <= {least / 1.5:.6f} ms")
    message = cli(*asking, *budget).error(3)
    assert workers.started > 0 and "nothing was measured" not in message
    at_speed(workers, "0.5")
    made = cli(*asking, *budget)
    assert made.code == 0, made.stderr
    assert "out of reach by the table as it is; a few blocks are measured" in made.stderr
    assert "searching with all of it rescaled" in made.stderr


def test_search_without_measuring_does_not_ask_the_device(
    cli: Cli, asking: tuple[object, ...], workers: Any
) -> None:
    assert cli(*asking, "--no-verify").code == 0
    assert workers.started == 0
