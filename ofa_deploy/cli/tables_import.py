"""``ofa-deploy tables import``: latency tables that others measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._options import QuietOption
from ofa_deploy.cli._output import guarded, next_steps, quoted, say, wrote
from ofa_deploy.cli._outputs import check_outputs

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable

__all__ = ["import_"]

_UNKNOWN = "unknown"


@guarded
def import_(
    path: Annotated[Path, typer.Argument(help="A file, or a folder of YAML files.")],
    form: Annotated[str, typer.Option("--from", help="Form of the files: ofa-yaml or csv.")],
    device: Annotated[str, typer.Option(help="What it was measured on, such as samsung-note10.")],
    space: Annotated[str | None, typer.Option(help="Search space, or a file NAME.toml.")] = None,
    run: Annotated[Path | None, typer.Option(help="Or a training run, whose space it is.")] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Classes, with --space.")] = None,
    resolutions: Annotated[
        str | None,
        typer.Option(help="Input sizes to keep, such as 160,192; all that the files hold if not."),
    ] = None,
    unit: Annotated[str, typer.Option(help="Of the files' figures: ms, us or s.")] = "ms",
    processor: Annotated[str, typer.Option(help="Model name of the processor.")] = _UNKNOWN,
    runtime: Annotated[str, typer.Option(help="Inference engine.")] = _UNKNOWN,
    runtime_version: Annotated[str, typer.Option(help="Its version.")] = _UNKNOWN,
    precision: Annotated[str, typer.Option(help="Such as fp32.")] = _UNKNOWN,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images an inference; 1 is assumed if not given.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads an inference; 1 is assumed if not given.")
    ] = None,
    power_mode: Annotated[str, typer.Option(help="Where the device has several.")] = "",
    out: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Make a latency table of measurements by others.

    ofa-yaml: the lookup tables that once-for-all publishes, a folder with one file a resolution.
    csv: columns block (or kind, in_channels, mid_channels, out_channels, kernel, stride, se,
    activation, residual, size), ms, and if known spread (relative) and count.

    Such a table has no whole networks: its error is unknown, and nothing measured here can be
    compared with it.

    Example: ofa-deploy tables import --from ofa-yaml note10_lookup_tables
    --space ofa-mbv3-w1.2 --device samsung-note10 --out note10.json
    """
    from ofa_deploy.cli._workspace import chosen_space, table_path, with_resolutions
    from ofa_deploy.cost import AdditiveModel
    from ofa_deploy.hardware import import_tables, table_space

    check_outputs({"latency table": out})
    chosen = with_resolutions(chosen_space(space, run, classes), resolutions)
    table = import_tables(
        form,
        path,
        space=chosen,
        device=device,
        resolutions=chosen.resolutions if resolutions else None,
        unit=unit,
        processor=processor,
        runtime=runtime,
        runtime_version=runtime_version,
        precision=precision,
        batch=batch,
        threads=threads,
        power_mode=power_mode,
    )
    of = table_space(table, chosen)
    least, greatest = AdditiveModel.from_blocks(of, table.value).bounds()
    _say_what(table, ", ".join(map(str, of.resolutions)), quiet)
    say(
        f"as sums of blocks, networks take {least:.3f} to {greatest:.3f} ms; {table.unjudged}",
        quiet=quiet,
    )
    target = table.save(table_path(table, out))
    wrote(target, quiet=quiet)
    written = quoted(target)
    next_steps(
        f"ofa-deploy tables check {written}"
        + (f" --space {quoted(space)}" if space and space != table.space else "")
        + (f" --run {quoted(run)}" if run else ""),
        f"ofa-deploy tables show {written}",
        quiet=quiet,
    )


def _say_what(table: "LatencyTable", resolutions: str, quiet: bool) -> None:
    facts = table.protocol
    say(f"{table.source}: {len(table.blocks)} blocks at {resolutions} pixels", quiet=quiet)
    if repeated := facts["repeated"]:
        differ = float(facts["repeated_differ"])
        say(
            f"{repeated} figures stand in several files and differ by at most {differ:.1%}; "
            "their runs were pooled",
            quiet=quiet,
        )
    if unused := facts["unused"]:
        say(f"{unused} of {facts['figures']} figures belong to no block of it", quiet=quiet)
    if assumed := facts.get("assumed"):
        say(f"assumed, since not given: {assumed}", quiet=quiet)
