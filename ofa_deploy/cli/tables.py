"""``ofa-deploy tables``: what latency tables there are, what stands in one, what changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._legend import BLOCKS, MOVED
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    guarded,
    next_steps,
    quoted,
    say,
    wrote,
)
from ofa_deploy.cli._outputs import check_outputs
from ofa_deploy.cli.tables_check import check
from ofa_deploy.cli.tables_import import import_
from ofa_deploy.cli.tables_list import list_, list_tables

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable

__all__ = ["app", "tables"]

_ROWS = 25
_COLUMNS = (
    "block",
    "ms",
    "lost_ms",
    "spread",
    "macs",
    "params",
    "bytes_moved",
    "gmacs_per_s",
)

FileArgument = Annotated[Path, typer.Argument(help="A latency table, as profile writes it.")]

app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
@guarded
def tables(context: typer.Context, output: FormatOption = OutputFormat.table) -> None:
    """List the latency tables at hand; show, check, compare, import and export them.

    Try: ofa-deploy tables list, then ofa-deploy tables show FILE.
    """
    if context.invoked_subcommand is None:
        list_tables(output)


@app.command()
@guarded
def show(
    file: FileArgument,
    sort: Annotated[
        str, typer.Option(help=f"Column to sort by, greatest first: {', '.join(_COLUMNS)}.")
    ] = "lost_ms",
    top: Annotated[
        int | None, typer.Option(min=1, help="Rows; 25 as a table, all as json or csv.")
    ] = None,
    output: FormatOption = OutputFormat.table,
) -> None:
    """Show a table's blocks, latency and MACs side by side, ranked by the time that is lost.

    ms is a block's latency beyond an empty graph's, gmacs_per_s how well it uses the device, and
    lost_ms what it takes beyond what the device's best blocks would need for its MACs and bytes.

    Example: ofa-deploy tables show table.json --sort ms --top 10
    """
    from ofa_deploy.errors import UnknownNameError
    from ofa_deploy.hardware import find_table

    table = find_table(str(file))
    if sort not in _COLUMNS:
        raise UnknownNameError("column", sort, _COLUMNS)
    _say_what(table)
    frame = table.to_frame().round({"spread": 4}).sort_values(sort, ascending=False, kind="stable")
    records: list[dict[str, object]] = [
        {str(key): value for key, value in row.items()}
        for row in frame[list(_COLUMNS)].to_dict("records")
    ]
    shown = top or (_ROWS if output is OutputFormat.table else len(records))
    title = f"blocks by {sort}; {len(table.networks)} whole networks"
    if shown < len(records):
        title = f"{shown} of {len(records)} {title}"
    emit(records[:shown], output, title=title, meanings=BLOCKS)
    next_steps(f"ofa-deploy tables check {quoted(file)}", quiet=False)


def _say_what(table: "LatencyTable") -> None:
    """Where a table comes from, under which conditions, and how far it is off."""
    conditions = ", ".join(f"{k} {v}" for k, v in table.conditions.model_dump().items() if v)
    made = f"measured {table.date}, other load {table.other_load:.0%}"
    if table.source:
        made = f"imported {table.date} from {table.source}"
    say(f"{table.space}: {conditions}; {made}")
    if table.telemetry:
        say(f"meanwhile: {table.telemetry}")
    if assumed := table.protocol.get("assumed"):
        say(f"assumed, not known: {assumed}")
    if table.scale != 1:
        say(f"all times were multiplied by {table.scale:.4g} since they were measured")
    say(_error(table))


def _error(table: "LatencyTable") -> str:
    """How far the table is off on whole networks, as far as that can be told."""
    from ofa_deploy.errors import MismatchError
    from ofa_deploy.hardware import table_space
    from ofa_deploy.predict import latency_model

    if table.unjudged:
        return table.unjudged
    try:
        return str(latency_model(table_space(table), table).holdout)
    except MismatchError:  # a space of the user's own: the table alone does not define it
        return f"{len(table.networks)} whole networks were measured"


@app.command()
@guarded
def export(
    file: FileArgument,
    out: Annotated[Path | None, typer.Option(help="CSV to write; stdout if not given.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Write a table's blocks as CSV: block, ms, spread, count, and what follows from the block.

    tables import --from csv reads the same figures again; conditions go into its options.

    Example: ofa-deploy tables export table.json --out table.csv
    """
    from ofa_deploy.files import write_text
    from ofa_deploy.hardware import find_table, table_csv

    check_outputs({"CSV": out})
    table = find_table(str(file))
    text = table_csv(table)
    if out is None:
        print(text, end="")
        return
    wrote(write_text(out, text), quiet=quiet)
    c = table.conditions
    mode = f" --power-mode {quoted(c.power_mode)}" if c.power_mode else ""
    next_steps(
        f"ofa-deploy tables import --from csv {quoted(out)} --space {quoted(table.space)} "
        f"--classes {table.classes} --device {quoted(c.device)} --processor {quoted(c.processor)} "
        f"--runtime {quoted(c.runtime)} --runtime-version {quoted(c.runtime_version)} "
        f"--precision {quoted(c.precision)} --batch {c.batch} --threads {c.threads}{mode}",
        quiet=quiet,
    )


@app.command()
@guarded
def diff(
    before: Annotated[Path, typer.Argument(help="A latency table.")],
    after: Annotated[Path, typer.Argument(help="Another, of the same space or device.")],
    every: Annotated[
        bool, typer.Option("--all", help="All blocks, not only those that moved.")
    ] = False,
    output: FormatOption = OutputFormat.table,
) -> None:
    """What changed between two tables beyond the noise: runs, runtimes, driver versions.

    First the factor that all blocks have in common, then the blocks that changed otherwise, those
    that moved by most ms first.

    Example: ofa-deploy tables diff old.json new.json
    """
    from ofa_deploy.hardware import diff_tables, find_table

    a, b = find_table(str(before)), find_table(str(after))
    found = diff_tables(a, b)
    if a.fingerprint != b.fingerprint:
        say(
            f"spaces differ ({a.space}, {b.space}): compared are the {len(found.blocks)} blocks "
            f"that both have; {len(found.only_before)} are only in the first, "
            f"{len(found.only_after)} only in the second"
        )
    say(f"conditions that differ: {', '.join(found.conditions) or 'none'}")
    beyond = "beyond" if found.level_moved else "within"
    say(
        f"all blocks together: {found.ratio - 1:+.1%}, {beyond} the noise of "
        f"{found.ratio_noise:.0%}"
    )
    networks = [each for each in found.networks if each.beyond_noise]
    say(
        f"apart from that, {len(found.moved)} of {len(found.blocks)} blocks and {len(networks)} of "
        f"{len(found.networks)} networks moved"
    )
    rows: list[dict[str, object]] = [
        {
            "name": each.name,
            "before_ms": each.before,
            "after_ms": each.after,
            "ratio": each.after / each.before,
            "moved_ms": each.moved,
            "noise_ms": each.noise,
        }
        for each in ((*found.blocks, *found.networks) if every else (*found.moved, *networks))
    ]
    title = "moved, once the common factor is taken out" if rows else "no block moved of its own"
    emit(rows, output, title=title, meanings=MOVED)
    next_steps(f"ofa-deploy tables check {quoted(after)}", quiet=False)


app.command("list")(list_)
app.command("import")(import_)
app.command()(check)
