"""``ofa-deploy tables list``: the latency tables at hand, their error and their age."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.cli._legend import TABLES
from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, next_steps, quoted, say

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable

__all__ = ["list_", "list_tables"]

_OLD_DAYS = 90  # drivers, runtimes and kernels are updated more often than that
# Of a table that fits a terminal; paths, which do not, are in the other formats.
_SHOWN = ("device", "space", "runtime", "precision", "date", "error_%", "stale", "from")


@guarded
def list_(output: FormatOption = OutputFormat.table) -> None:
    """List the latency tables in ./latency_tables and those that ship, with error and age.

    error: mean on whole networks that had no part in the fit, in percent; empty where no network
    was measured. stale: by age alone, maybe beyond 90 days, empty where that is not known; tables
    check asks the device. Paths and the rest of the conditions are in --format json and csv.

    Example: ofa-deploy tables list --format csv
    """
    list_tables(output)


def list_tables(output: OutputFormat) -> None:
    """The same, for ``ofa-deploy tables`` alone.

    Raises:
        FileFormatError: after all others were listed, naming those that are damaged.
    """
    from ofa_deploy.errors import FileFormatError
    from ofa_deploy.hardware import LatencyTable, table_files

    rows: list[dict[str, object]] = []
    damaged = []
    for path in table_files():
        try:
            rows.append(_row(path, LatencyTable.load(path)))
        except FileFormatError as error:
            damaged.append(error)
    if not rows:
        say("no latency tables yet; make one with: ofa-deploy profile --space NAME")
    short = [_short(row) for row in rows] if output is OutputFormat.table else rows
    emit(short, output, title="latency tables", meanings=TABLES)
    if any(row["stale"] == "maybe" for row in rows):
        say(f"stale maybe: more than {_OLD_DAYS} days old; ofa-deploy tables check asks a device")
    if rows:
        path = Path(str(rows[0]["table"]))
        if short is not rows and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        next_steps(f"ofa-deploy tables show {quoted(path)}", quiet=False)
    if damaged:
        raise FileFormatError("; ".join(map(str, damaged)))


def _row(path: Path, table: "LatencyTable") -> dict[str, object]:
    c = table.conditions
    here = path.is_relative_to(Path("latency_tables").resolve())
    age = _age_days(table)
    return {
        "table": str(path),
        "space": table.space,
        "device": c.device,
        "processor": c.processor,
        "runtime": f"{c.runtime} {c.runtime_version}",
        "precision": c.precision,
        "batch": c.batch,
        "threads": c.threads,
        "blocks": len(table.blocks),
        "networks": len(table.networks),
        "date": table.date,
        "error_%": _error(table),
        "age_days": age,
        "stale": None if age is None else "maybe" if age > _OLD_DAYS else "no",
        "from": "yours" if here else "ours",
    }


def _short(row: dict[str, object]) -> dict[str, object]:
    day = str(row["date"]).partition("T")[0]
    engine = str(row["runtime"]).partition(" ")[0]
    return {name: row[name] for name in _SHOWN} | {"date": day, "runtime": engine}


def _age_days(table: "LatencyTable") -> int | None:
    """Since it was measured; None where that is not known, as of tables that were imported."""
    if table.source:
        return None
    try:
        made = datetime.fromisoformat(table.date)
    except ValueError:
        return None
    return (datetime.now(UTC) - made.replace(tzinfo=made.tzinfo or UTC)).days


def _error(table: "LatencyTable") -> float | None:
    """Mean error on whole networks in percent; None where that is not known."""
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.hardware import table_space
    from ofa_deploy.predict import latency_model

    if table.unjudged:
        return None
    try:
        judged = latency_model(table_space(table), table).holdout
    except OfaDeployError:  # a space of the user's own: the table alone does not define it
        return None
    return None if judged is None else round(judged.mape, 2)
