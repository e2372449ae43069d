"""The load meter: what others did, whoever counts it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ofa_deploy.hardware import LoadMeter
from ofa_deploy.hardware.telemetry import load as module


@pytest.mark.parametrize(
    ("end", "share"),
    [
        ((110.0, 110.0, 10.0), 0.0),  # all that was done was done here
        ((110.0, 110.0, 5.0), 0.25),
        ((120.0, 100.0, 0.0), 1.0),
        ((105.0, 115.0, 10.0), 0.0),  # clocks of different grain: never below 0
        ((100.0, 100.0, 0.0), 0.0),  # no time has passed
    ],
)
def test_only_others_count(
    monkeypatch: pytest.MonkeyPatch, end: tuple[float, float, float], share: float
) -> None:
    """Readings are (busy, idle, own) seconds since boot."""
    readings = [(100.0, 100.0, 0.0), end]

    def seconds() -> tuple[float, float]:
        busy, idle, _ = readings[0]
        return busy + idle, idle

    def times() -> SimpleNamespace:
        own = readings.pop(0)[2]
        return SimpleNamespace(user=own, system=0.0, children_user=0.0, children_system=0.0)

    monkeypatch.setattr(module, "_processor_seconds", seconds)
    monkeypatch.setattr(module, "os", SimpleNamespace(times=times))
    assert LoadMeter().others() == pytest.approx(share)


def test_what_the_kernel_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 10 20 3000 400 5 6 7 99 98\ncpu0 1 1 1 1\n")
    monkeypatch.setattr(module, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(module, "os", SimpleNamespace(sysconf={"SC_CLK_TCK": 10}.__getitem__))
    assert module._processor_seconds() == pytest.approx((354.8, 340.0))  # guests are users too


def test_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Times(tuple[float, ...]):
        idle = property(lambda self: self[3])

    told = iter([Times((50.0, 0, 50, 100)), Times((60.0, 0, 50, 110))])
    monkeypatch.setattr(module, "_STAT", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(cpu_times=lambda: next(told)))
    assert LoadMeter().others() == pytest.approx(0.5, abs=0.1)


def test_this_machine() -> None:
    assert 0 <= LoadMeter().others() <= 1


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_both_ways_of_counting_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    total, idle = module._processor_seconds()
    monkeypatch.setattr(module, "_STAT", tmp_path / "none")
    other_total, other_idle = module._processor_seconds()
    assert other_total == pytest.approx(total, abs=60)
    assert other_idle == pytest.approx(idle, abs=60)
