"""Rows and tables: each network once, with all that is known of it, in units for people."""

import csv
import io

import pytest
from rich.console import Console
from scipy.stats import binomtest

from ofa_deploy.pareto import Candidate
from ofa_deploy.report import Row, Series, csv_text, front_rows, front_table, rich_table
from ofa_deploy.terminal import count, interval, metric, milliseconds, percent_within, size
from tests.report.fronts import arch, fast, front, measured, pair, predicted


def test_rows_hold_each_network_once_with_all_that_is_known() -> None:
    told = front(predicted(1, 1.2, 69.0, intervals={"latency": (1.0, 1.3)}, budget="macs <= 2M"))
    seen = front(Candidate(arch(1), measured={"latency": 1.1, "top1": 68.0}))
    rows = front_rows([Series("x", told, "predicted"), Series("x", seen, "measured")])
    assert rows == [
        Row(
            series="x",
            device="",
            budget="macs <= 2M",
            predicted_ms=1.2,
            low_ms=1.0,
            high_ms=1.3,
            measured_ms=1.1,
            measured_spread=None,
            top1_predicted=69.0,
            top1_predicted_low=None,
            top1_predicted_high=None,
            top1=68.0,
            top1_low=None,
            top1_high=None,
            macs=None,
            params=None,
            arch=str(arch(1)),
            best=True,
        )
    ]


def test_a_measurement_of_nothing_is_not_a_gap() -> None:
    first = front(Candidate(arch(1), measured={"latency": 1.0, "top1": 5.0}))
    second = front(Candidate(arch(1), measured={"latency": 1.0, "top1": 0.0}))
    rows = front_rows([Series("x", first, "predicted"), Series("x", second, "measured")])
    assert [row["top1"] for row in rows] == [0.0]


def test_rows_keep_labels_together_and_the_same_network_of_two_labels_apart() -> None:
    shared = front(measured(1, 1.0, 70.0))
    rows = front_rows(
        [
            Series("a", fast(), "predicted"),
            Series("b", shared, "predicted"),
            Series("a", fast(), "measured"),
        ]
    )
    assert [row["series"] for row in rows] == ["a", "a", "a", "b"]


def test_csv_reads_back_at_full_precision() -> None:
    third = Candidate(arch(1), predicted={"latency": 1 / 3, "top1": 70.0})
    text = csv_text(front_rows([Series('a, "b"', front(third), "predicted")]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["series"] == 'a, "b"'
    assert float(row["predicted_ms"]) == 1 / 3
    assert row["measured_ms"] == ""


def test_text_table_leaves_out_what_nothing_is_known_of() -> None:
    table = front_table(front_rows([Series("x", front(predicted(1, 2.0, 70.0)), "predicted")]))
    assert table.headers == ("Predicted ms", "Predicted top-1 %", "Architecture")
    assert table.rows == (("2.00", "70.00", str(arch(1))),)
    assert front_table(front_rows(pair())).headers[:3] == ("Front", "Budget", "Predicted ms")


def shown(renderable: object, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_terminal_table_fits_80_columns_and_shows_brackets() -> None:
    one = Candidate(
        arch(1),
        predicted={"latency[cpu]": 1.0, "top1": 70.0, "macs": 2.5e6, "params": 312_400},
        intervals={"latency[cpu]": (0.9, 1.125)},
        measured={"latency[cpu]": 1.06, "top1": 70.5},
        budget="latency[cpu] <= 1 ms",
    )
    rows = front_rows([Series("x", front(one), "measured", "latency[cpu]")])
    text = shown(rich_table(rows, title="[bold]Title"), 80)
    for cell in (
        "[bold]Title",
        "latency[cpu]",
        "1.00 (0.900–1.12)",
        "1.06",
        "70.50",
        "2.50 M",
        "312 k",
    ):
        assert cell in text
    assert str(arch(1)) not in text
    assert str(arch(1)) in shown(rich_table(rows, arch=True), 140)


@pytest.mark.parametrize(("top1", "images"), [(80.5, 2000), (0.0, 40), (100.0, 9), (50.0, 2)])
def test_measured_top1_has_the_interval_of_its_images(top1: float, images: int) -> None:
    judged = {"latency": 1.0, "top1": top1, "top1.images": float(images)}
    told = {"latency": 1.0, "top1": 81.25}
    ends = {"top1": (79.75, 82.75)}
    one = Candidate(arch(1), predicted=told, intervals=ends, measured=judged)
    (row,) = front_rows([Series("x", front(one), "measured")])
    expected = binomtest(round(top1 / 100 * images), images).proportion_ci(0.9, method="wilson")
    assert row["top1_low"] is not None and row["top1_high"] is not None
    assert row["top1_low"] / 100 == pytest.approx(expected.low, abs=1e-4)
    assert row["top1_high"] / 100 == pytest.approx(expected.high, abs=1e-4)
    assert (row["top1_predicted_low"], row["top1_predicted_high"]) == ends["top1"]
    text = shown(rich_table([row]), 100)
    assert f"{top1:.2f} ±{(row['top1_high'] - row['top1_low']) / 2:.1f}" in text
    assert "81.25 ±1.5" in text


def test_full_table_of_intervals_fits_100_columns() -> None:
    one = Candidate(
        arch(1),
        predicted={"latency": 0.0975, "top1": 81.36, "macs": 1.31e6, "params": 101_000},
        intervals={"latency": (0.0949, 0.1), "top1": (79.9, 82.8)},
        measured={"latency": 0.0881, "latency.spread": 0.026, "top1": 80.5, "top1.images": 2000},
        budget="latency <= 0.102 ms",
    )
    lines = shown(rich_table(front_rows([Series("x", front(one), "measured")])), 400).splitlines()
    assert any("0.0881 ±1.3 %" in line and "80.50 ±1.5" in line for line in lines)
    assert max(len(line.rstrip()) for line in lines) <= 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent_within(80.5, (79.0, 81.94)), "80.50 ±1.5"),
        (percent_within(76.123, (76.1, 76.14)), "76.12 ±0.02"),
        (percent_within(80.5, (None, None)), "80.50"),
        (milliseconds(0.012345), "0.0123"),
        (milliseconds(1234.5), "1234"),
        (milliseconds(9.996), "10.0"),
        (milliseconds(0.0), "0"),
        (milliseconds(None), "–"),
        (interval(1, 2, 3), "2.00 (1.00–3.00)"),
        (interval(None, 2, None), "2.00"),
        (count(950), "950"),
        (count(999_700), "1.00 M"),
        (count(3.2e9), "3.20 G"),
        (size(1.5 * 2**20), "1.50 MiB"),
        (metric("latency[pi].p99", 2.0), "2.00 ms"),
        (metric("latency.p99", 2.0), "2.00 ms"),
        (metric("top1", 70.123), "70.12 %"),
        (metric("peak_memory", 2048.0), "2.00 KiB"),
        (metric("other", 0.25), "0.25"),
    ],
)
def test_units(text: str, expected: str) -> None:
    assert text == expected
