"""``ofa-deploy compare``: Pareto fronts of devices, methods, precisions, budgets or runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._candidates import refuse_folder
from ofa_deploy.cli._fronts import doubts, read_fronts, read_tables
from ofa_deploy.cli._options import QuietOption
from ofa_deploy.cli._output import guarded, quoted, say, show_table, wrote
from ofa_deploy.cli._outputs import check_outputs
from ofa_deploy.cli._page import page_commands, page_facts

if TYPE_CHECKING:
    from ofa_deploy.report import Report, Series

__all__ = ["compare"]


@guarded
def compare(
    fronts: Annotated[
        list[Path] | None, typer.Argument(help="NAME.front.json files.", metavar="FRONT")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Show this device only, by its id; may be repeated. Default: all."),
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="A front of an earlier run, to tell what changed since.")
    ] = None,
    after: Annotated[Path | None, typer.Option(help="With --before: the later run.")] = None,
    points: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV file of external points: name, latency_ms, accuracy and, where several "
            "devices are shown, device; may be repeated."
        ),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            help="Latency table, for the time of each block; may be repeated. Default: the "
            "run's own, and those at hand of the same space and conditions."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Point that hypervolumes reach to: MS,PERCENT, such as 30,70. Default: the worst "
            "latency and top-1 of each device's fronts."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    png: Annotated[Path | None, typer.Option(help="Picture to write.")] = None,
    svg: Annotated[Path | None, typer.Option(help="The picture as SVG.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="The networks' figures as NAME.csv; any other name is a folder for all tables."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Every figure as JSON.")] = None,
    relative: Annotated[
        bool,
        typer.Option(
            help="Draw all devices on one axis, latencies relative to each device's fastest "
            "network (the page has both)."
        ),
    ] = False,
    label: Annotated[
        list[str] | None, typer.Option(help="Name of each front, in order; default: the file's.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Compare Pareto fronts in figures, a picture and a page.

    Fronts of one device stand on common axes: hypervolume, dominance and coverage, gains at equal
    latency and at equal accuracy with intervals, measured against predicted. Each device has a
    panel of its own; nothing is compared across devices. Two fronts that hold the same networks,
    or --before and --after, are told apart network by network, with the conditions that differ.
    """
    from ofa_deploy.errors import InputError, UnknownNameError
    from ofa_deploy.report import Report, changes, read_external

    if (before is None) != (after is None):
        raise InputError("expected --before and --after together, found one of them")
    paths = [*(fronts or []), *filter(None, (before, after))]
    if not paths:
        expected = "expected at least one, or --before and --after"
        raise typer.BadParameter(expected, param_hint="FRONT")
    table_csv = csv if csv and csv.suffix.lower() == ".csv" else None  # else a folder
    check_outputs(
        {"HTML page": out, "PNG": png, "SVG": svg, "CSV": table_csv, "JSON of figures": json}
    )
    for path in paths:
        refuse_folder(path, "fronts", "fronts", ".front.json")
    files = read_fronts(paths, label, read_tables(table or []))
    series = [each for read in files for each in read]
    if device:
        known = dict.fromkeys(each.device for each in series)
        for name in device:
            if name not in known:
                raise UnknownNameError("device of these fronts", name, known)
        series = [each for each in series if each.device in device]
    shown = [each.series for each in series]
    told = None
    if before and after:
        pairs = [(a, b) for a in files[-2] for b in files[-1] if a.device == b.device]
        if not pairs:
            raise InputError("--before and --after: expected fronts of one device, found two")
        told = [changes(a.series, b.series) for a, b in pairs]
    named = " ".join(map(quoted, paths))
    report = Report(
        shown,
        _title(shown),
        page_facts(shown) if out or json else {},
        [*(page_commands(shown) if out else []), f"ofa-deploy compare {named}"],
        _reference(reference),
        [point for path in points or [] for point in read_external(path)],
        told,
    )
    written = _write(report, out=out, png=png, svg=svg, csv=csv, json=json, relative=relative)
    _show(report, [path for path in (csv, json, out) if path], quiet=quiet)
    for doubt in doubts(shown):
        say(f"warning: {doubt}", quiet=quiet)
    for path in written:
        wrote(path, quiet=quiet)


def _title(series: "list[Series]") -> str:
    """With the device, if it is one; each of several is the title of its panel."""
    from ofa_deploy.report import panels_of

    first, *others = (panel.titled for panel in panels_of(series))
    return f"Pareto fronts on {first}" if first and not others else "Pareto fronts"


def _reference(text: str | None) -> dict[str, float] | None:
    from ofa_deploy.errors import InputError

    if text is None:
        return None
    try:
        latency, top1 = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--reference {text!r}: expected MS,PERCENT, two numbers such as 30,70"
        ) from None
    return {"latency": latency, "top1": top1}


def _show(report: "Report", every: Sequence[Path], *, quiet: bool) -> None:
    """On the terminal, with a few networks of each front.

    Args:
        every: the files that will hold all of them.
    """
    from ofa_deploy.report import MOST, few_rows, rich_table

    rows, tables = few_rows(report.rows), report.tables(MOST)
    show_table(rich_table(rows))
    for panel in report.panels:
        for name, values in panel.differences.items():
            where = f" on {panel.name}" if panel.name else ""
            say(f"{name} differs{where}: {', '.join(values)}", quiet=quiet)
    for table in tables.values():
        show_table(rich_table(table))
    if len(rows) < len(report.rows):
        where = " and ".join(map(str, every)) or "--csv FOLDER and --out FILE.html"
        is_in = "are in" if every else "go into"
        say(f"{len(rows)} of {len(report.rows):,} networks shown; all {is_in} {where}", quiet=quiet)


def _write(
    report: "Report",
    *,
    out: Path | None,
    png: Path | None,
    svg: Path | None,
    csv: Path | None,
    json: Path | None,
    relative: bool,
) -> list[Path]:
    from ofa_deploy.report import write_html, write_png, write_svg

    written = [
        write_html(out, report) if out else None,
        write_png(png, report, relative=relative, everything=True) if png else None,
        write_svg(svg, report, relative=relative, everything=True) if svg else None,
        *(report.write_csv(csv) if csv else []),
        report.write_json(json) if json else None,
    ]
    return [path for path in written if path is not None]
