"""Commands that several others propose as the next."""

from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.cli._output import quoted

if TYPE_CHECKING:
    from ofa_deploy.hardware import Conditions

__all__ = ["evaluate_first", "form_options", "search_command"]


def form_options(runtime: str, precision: str) -> str:
    """Options for what a precision needs; none for float32, which is the same in every engine."""
    from ofa_deploy.export import kept_as

    if not kept_as(runtime, precision):
        return ""
    return f" --runtime {quoted(runtime)} --precision {quoted(precision)}"


def evaluate_first(run: Path | None, conditions: "Conditions") -> list[str]:
    """What a search of the run still needs before a table of these conditions serves it."""
    from ofa_deploy.export import accuracy_file

    form = conditions.runtime, conditions.precision
    if run is None or accuracy_file(run, *form).exists():
        return []
    return [f"ofa-deploy evaluate {quoted(run)} --subnets 40{form_options(*form)}"]


def search_command(run: Path | None, table: Path, budget_ms: float) -> str:
    """Search a run with a table under a budget."""
    from ofa_deploy.terminal import milliseconds

    asked = f"--table {quoted(table)} --constraint 'latency <= {milliseconds(budget_ms)} ms'"
    return f"ofa-deploy search --run {quoted(run or 'RUN')} {asked}"
