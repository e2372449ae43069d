"""``ofa-deploy tables``: what latency tables there are, and what stands in one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._output import FormatOption, OutputFormat, emit, guarded, say

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable

__all__ = ["tables"]


@guarded
def tables(
    file: Annotated[Path | None, typer.Argument(help="A table; all are listed without.")] = None,
    sort: Annotated[str, typer.Option(help="Column to sort by, greatest first.")] = "ms",
    output: FormatOption = OutputFormat.table,
) -> None:
    """List the latency tables at hand, or show one.

    ms is a block's latency beyond an empty graph's; gmacs_per_s says how well the device is used.
    """
    from ofa_deploy.errors import FileFormatError, UnknownNameError
    from ofa_deploy.hardware import LatencyTable, find_table, table_files

    if file is None:
        rows, damaged = [], []
        for path in table_files():
            try:
                rows.append(_summary(path, LatencyTable.load(path)))
            except FileFormatError as error:
                damaged.append(error)
        if not rows:
            say("no latency tables yet; make one with: ofa-deploy profile --space NAME")
        emit(rows, output, title="latency tables")
        if damaged:
            raise FileFormatError("; ".join(map(str, damaged)))
        return
    table = find_table(str(file))
    columns = ["block", "ms", "spread", "macs", "params", "bytes_moved", "gmacs_per_s"]
    if sort not in columns:
        raise UnknownNameError("column", sort, columns)
    frame = table.to_frame().sort_values(sort, ascending=False)
    conditions = ", ".join(f"{k} {v}" for k, v in table.conditions.model_dump().items() if v)
    say(f"{table.space}: {conditions}; measured {table.date}, other load {table.other_load:.0%}")
    records: list[dict[str, object]] = [
        {str(key): value for key, value in row.items()} for row in frame[columns].to_dict("records")
    ]
    emit(records, output, title=f"blocks by {sort}; {len(table.networks)} whole networks")


def _summary(path: Path, table: "LatencyTable") -> dict[str, object]:
    c = table.conditions
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
        "date": table.date,
    }
