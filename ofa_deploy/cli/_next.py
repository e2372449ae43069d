"""Commands that several others propose as the next."""

from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.cli._output import quoted

if TYPE_CHECKING:
    from ofa_deploy.hardware import Conditions

__all__ = ["evaluate_first", "search_command"]


def evaluate_first(run: Path | None, conditions: "Conditions") -> list[str]:
    """What a search of the run still needs before a table of these conditions serves it."""
    from ofa_deploy.export import kept_as

    kept = kept_as(conditions.runtime, conditions.precision)
    if run is None or (run / f"accuracy{kept}.onnx").exists():
        return []
    form = f" --runtime {conditions.runtime} --precision {conditions.precision}" if kept else ""
    return [f"ofa-deploy evaluate {quoted(run)} --subnets 40{form}"]


def search_command(run: Path | None, table: Path, budget_ms: float) -> str:
    """Search a run with a table under a budget."""
    asked = f"--table {quoted(table)} --constraint 'latency <= {budget_ms:.2g} ms'"
    return f"ofa-deploy search --run {quoted(run or 'RUN')} {asked}"
