"""Figures that stand in the documentation are those of the benchmarks' results."""

from benchmarks.reliability_summary import PAGE, markdown


def test_security_has_the_figures_of_the_last_run() -> None:
    again = "run python benchmarks/reliability_summary.py"
    assert markdown() in PAGE.read_text(encoding="utf-8"), again
