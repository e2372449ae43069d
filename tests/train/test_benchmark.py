"""What benchmarks/training.py takes for done, and how it keeps rows."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.train import DepsConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OLD = "method,seed,subnet,macs,top1,cost_macs,seconds,cpu_seconds,epochs,commit"
CONFIG = DepsConfig(epochs=8)


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("training")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "training.csv")
    return module


def row(benchmark: Any, settings: str = "", epochs: int = 8) -> Any:
    return benchmark.Row("DεpS", 1, "smallest", 10, 81.5, 20, 1.5, 0.5, epochs, "abc", settings)


def test_rows_of_before_there_were_settings_count_by_epochs(benchmark: Any) -> None:
    benchmark.RESULTS.write_text(f"{OLD}\nDεpS,1,smallest,10,81.5,20,1.5,0.5,8,abc\n")
    (found,) = benchmark.finished()
    assert found == row(benchmark)
    assert benchmark.belongs(found, "DεpS", CONFIG)
    assert not benchmark.belongs(found, "DεpS", DepsConfig(epochs=9))
    assert not benchmark.belongs(found, "BigNAS", CONFIG)


def test_rows_count_by_settings(benchmark: Any) -> None:
    found = row(benchmark, benchmark.digest_of(CONFIG))
    assert benchmark.belongs(found, "DεpS", CONFIG)
    assert benchmark.belongs(found, "DεpS", CONFIG.model_copy(update={"seed": 4, "threads": 1}))
    assert not benchmark.belongs(found, "DεpS", CONFIG.model_copy(update={"lr": 0.2}))


def test_appending_keeps_rows_of_both_kinds(benchmark: Any) -> None:
    old = "DεpS,1,smallest,10,81.5,20,1.5,0.5,8,abc"
    benchmark.RESULTS.write_text(f"{OLD}\n{old}\n")
    benchmark.append([row(benchmark, "d1")])
    with benchmark.RESULTS.open("a") as file:  # as a process of an older commit does
        file.write(f"{old}\n")
    benchmark.append([row(benchmark, "d2")])
    assert benchmark.RESULTS.read_text().splitlines() == [
        f"{OLD},settings",
        f"{old},",
        f"{old},d1",
        old,
        f"{old},d2",
    ]
    assert [each.settings for each in benchmark.finished()] == ["", "d1", "", "d2"]


def test_first_rows_come_with_a_header(benchmark: Any) -> None:
    assert benchmark.finished() == []
    benchmark.append([row(benchmark, "d1")])
    assert benchmark.finished() == [row(benchmark, "d1")]


def test_a_summary_draws_only_where_it_is_told(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["training.py", "--summary"])
    benchmark.main()
    assert "mean Pareto" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
