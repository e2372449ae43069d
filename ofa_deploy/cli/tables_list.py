"""``ofa-deploy tables list``: the latency tables at hand, their error and their age."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.cli._legend import TABLES
from ofa_deploy.cli._options import FormatOption
from ofa_deploy.cli._output import OutputFormat, emit, guarded, next_steps, quoted, say
from ofa_deploy.cli._search_tables import shorter

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from ofa_deploy.hardware import LatencyTable

__all__ = ["list_", "list_tables", "origins"]

_HERE = "here"
_OLD_DAYS = 90  # drivers, runtimes and kernels are updated more often than that
# Folders and the rest are in the other formats.
_SHOWN = ("file", "classes", "error_%", "from", "device", "date", "stale")
_SPARE = ("stale", "date", "device")


@guarded
def list_(output: FormatOption = OutputFormat.table) -> None:
    """List the latency tables in ./latency_tables and those that ship, with error and age.

    error: mean on whole networks that had no part in the fit, in percent; empty where no network
    was measured. from: measured here (on this machine), elsewhere, or imported. stale: by age
    alone, maybe beyond 90 days, empty where that is not known; tables check asks the device. Paths
    and the rest of the conditions are in --format json and csv.

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
    for path in _distinct(table_files()):
        try:
            rows.append(_row(path, LatencyTable.load(path)))
        except FileFormatError as error:
            damaged.append(error)
    if not rows:
        say("no latency tables yet; make one with: ofa-deploy profile --space NAME")
    short = [_short(row) for row in rows] if output is OutputFormat.table else rows
    emit(short, output, title="latency tables", meanings=TABLES, spare=_SPARE)
    if any(row["stale"] == "maybe" for row in rows):
        say(f"stale maybe: more than {_OLD_DAYS} days old; ofa-deploy tables check asks a device")
    if rows:
        path = Path(str(max(rows, key=_newest_here)["table"]))
        if short is not rows:
            path = shorter(path)
        next_steps(f"ofa-deploy tables show {quoted(path)}", quiet=False)
    if damaged:
        raise FileFormatError("; ".join(map(str, damaged)))


def origins() -> "Counter[str]":
    """How many tables at hand were measured here, elsewhere, imported, or are damaged."""
    from collections import Counter

    from ofa_deploy.errors import FileFormatError
    from ofa_deploy.hardware import LatencyTable, table_files

    found: Counter[str] = Counter()
    for path in _distinct(table_files()):
        try:
            found[_origin(LatencyTable.load(path))] += 1
        except FileFormatError:
            found["damaged"] += 1
    return found


def _distinct(paths: "Sequence[Path]") -> list[Path]:
    """Without shipped tables of which the user's folder, a clone's, holds the same file."""
    found: dict[tuple[str, str, bytes], Path] = {}
    for path in paths:  # the user's come first
        found.setdefault((path.parent.name, path.name, path.read_bytes()), path)
    return list(found.values())


def _newest_here(row: dict[str, object]) -> tuple[bool, bool, str]:
    """Tables of this machine before others, then by date, where that is one."""
    return row["from"] == _HERE, row["age_days"] is not None, str(row["date"])


def _row(path: Path, table: "LatencyTable") -> dict[str, object]:
    c = table.conditions
    age = _age_days(table)
    return {
        "table": str(path),
        "file": path.name,
        "space": table.space,
        "classes": table.classes,
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
        "from": _origin(table),
    }


def _short(row: dict[str, object]) -> dict[str, object]:
    day = str(row["date"]).partition("T")[0]
    return {name: row[name] for name in _SHOWN} | {"date": day}


def _origin(table: "LatencyTable") -> str:
    """Where it was measured, as far as processors tell machines apart."""
    from ofa_deploy.hardware import processor_name

    if table.source:
        return "imported"
    return _HERE if table.conditions.processor == processor_name() else "elsewhere"


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
