"""``ofa-deploy compare``: Pareto fronts on common axes."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._options import QuietOption
from ofa_deploy.cli._output import guarded, quoted, show_table, wrote

__all__ = ["compare"]


@guarded
def compare(
    fronts: Annotated[list[Path], typer.Argument(help="NAME.front.json files.")],
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    png: Annotated[Path | None, typer.Option(help="Picture to write.")] = None,
    csv: Annotated[Path | None, typer.Option(help="The figures behind the picture.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Name of each front, in order; default: the file's.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Compare Pareto fronts in figures, a picture and a page.

    Hypervolume, coverage, gain at equal latency. Fronts measured on different devices or under
    other conditions are refused: their latencies cannot be compared.
    """
    from ofa_deploy._files import write_text
    from ofa_deploy.errors import InputError, MismatchError
    from ofa_deploy.report import (
        Series,
        csv_text,
        front_rows,
        rich_table,
        write_html,
        write_png,
    )
    from ofa_deploy.report import compare as compare_series
    from ofa_deploy.search import FrontFile

    files = [FrontFile.load(path) for path in fronts]
    if label and len(label) != len(files):
        raise InputError(f"expected {len(files)} labels, found {len(label)}")
    first = next((file.conditions for file in files if file.conditions), None)
    for path, file in zip(fronts, files, strict=True):
        if first and file.conditions and (different := first.differences(file.conditions)):
            raise MismatchError(f"{path}: measured under other conditions: {', '.join(different)}")
    names = label or _labels(fronts, [file.kind for file in files])
    series = [Series(n, f.pareto, f.kind) for n, f in zip(names, files, strict=True)]
    budgets = sorted({budget for file in files for budget in file.budgets})
    rows = front_rows(series)
    show_table(rich_table(rows))
    if len({each.label for each in series}) > 1:
        for table in compare_series(series, budgets=budgets).tables():
            show_table(rich_table(table))
    title = "Pareto fronts"
    facts = {} if first is None else {k: str(v) for k, v in first.model_dump().items() if v}
    command = "ofa-deploy compare " + " ".join(map(quoted, fronts))
    for written in (
        write_html(out, series, title=title, budgets=budgets, facts=facts, commands=[command])
        if out
        else None,
        write_png(png, series, title=title, budgets=budgets) if png else None,
        write_text(csv, csv_text(rows)) if csv else None,
    ):
        if written:
            wrote(written, quiet=quiet)


def _labels(paths: list[Path], kinds: list[str]) -> list[str]:
    """File stems; NAME and NAME-measured are two views of one front and share its name."""
    stems = [path.name.removesuffix(".front.json") for path in paths]
    return [
        stem.removesuffix("-measured") if kind == "measured" else stem
        for stem, kind in zip(stems, kinds, strict=True)
    ]
