"""The points of a front, and fronts of which no report can be made."""

import errno
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from ofa_deploy.data import share_interval
from ofa_deploy.errors import InputError, StorageError, UnknownNameError
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import Series, front_rows
from ofa_deploy.report.series import staircase
from tests.report.fronts import Write, arch, fast, front, measured, page, pair, picture, predicted

# points


def test_points_are_of_the_kind_asked_for_and_sorted() -> None:
    both = ParetoFront((measured(2, 2.0, 75.0), measured(1, 1.0, 70.0)))
    told = Series("x", both, "predicted").points()
    seen = Series("x", both, "measured").points()
    assert [p.x for p in told] == pytest.approx([1.1, 2.2])
    assert [p.y for p in told] == [69.0, 74.0]
    assert told[0].x_range == (1.0, 1.25)
    assert told[0].y_range == (68.0, 70.5)
    assert not told[0].measured
    assert [(p.x, p.y) for p in seen] == [(1.0, 70.0), (2.0, 75.0)]
    assert seen[0].x_range == (1.0, 1.0)
    assert all(p.measured for p in seen)


def test_a_prediction_in_a_measured_series_is_not_passed_off_as_measured() -> None:
    half = Candidate(arch(1), predicted={"latency": 2.0, "top1": 70.0}, measured={"latency": 3.0})
    (point,) = Series("x", front(half), "measured").points()
    assert (point.x, point.y, point.measured) == (3.0, 70.0, False)


def test_an_interval_that_misses_its_value_still_gives_a_bar() -> None:
    odd = predicted(1, 2.0, 70.0, intervals={"latency": (2.5, 3.0)})
    assert Series("x", front(odd), "predicted").points()[0].x_range == (2.0, 3.0)


def test_latency_of_a_named_device() -> None:
    one = Candidate(arch(1), predicted={"latency[pi]": 9.0, "latency": 1.0, "top1": 70.0})
    series = Series("x", front(one), "predicted", "latency[pi]")
    assert series.points()[0].x == 9.0
    assert front_rows([series])[0]["predicted_ms"] == 9.0
    with pytest.raises(UnknownNameError, match=r"latency\[nano\].*did you mean latency\[pi\]"):
        replace(series, latency="latency[nano]").points()


def test_staircase_keeps_what_improves() -> None:
    made = [predicted(i, x, y) for i, (x, y) in enumerate([(1, 70), (2, 69), (3, 75), (3, 74)])]
    points = Series("x", front(*made), "predicted").points()
    assert [(p.x, p.y) for p in staircase(points)] == [(1, 70), (3, 75)]


# what cannot be reported


def test_an_empty_front_is_refused() -> None:
    with pytest.raises(InputError, match="front 'mine' is empty: expected at least one candidate"):
        Series("mine", ParetoFront(()), "measured")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="kind of series 'guessed'"):
        Series("x", fast(), "guessed")  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [page, picture])
@pytest.mark.parametrize(
    ("series_list", "budgets", "message"),
    [
        ([], (), "expected at least one front"),
        ([Series("x", fast(), "measured")] * 2, (), r"two fronts are named 'x \(measured\)'"),
        ([Series("x", fast(), "measured")], (0.0,), "latency budget 0.0: expected a positive"),
        ([Series("x", fast(), "measured")], (nan,), "latency budget nan"),
        ([Series("x", front(predicted(1, nan, 70.0)), "predicted")], (), "latency of .* finite"),
    ],
)
def test_what_cannot_be_drawn_leaves_no_file(
    tmp_path: Path, write: Write, series_list: list[Series], budgets: tuple[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "out", series_list, budgets=budgets)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [page, picture])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old = tmp_path / "report"
    old.write_bytes(b"old")
    monkeypatch.setattr("ofa_deploy.files.writing.os.fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write(old, pair())
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert old.read_bytes() == b"old"


def test_measured_top1_has_the_interval_of_its_images() -> None:
    """Which gains are drawn from; predictions do not go beyond all images."""
    sure = replace(measured(1, 1.0, 90.0), measured={"latency": 1.0, "top1": 90.0})
    counted = replace(sure, measured={**sure.measured, "top1.images": 134.0})
    one, other = (Series("a", front(each), "measured").points()[0] for each in (sure, counted))
    assert one.y_range == (90.0, 90.0)
    assert other.y_range == share_interval(90.0, 134)
    high = Candidate(arch(1), {"latency": 1.0, "top1": 99.0}, {"top1": (95.0, 103.0)})
    (point,) = Series("a", front(high), "predicted").points()
    assert point.y_range == (95.0, 100.0)
