"""``ofa-deploy plan``: what a space can reach on devices, before any training."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._options import (
    ClassesOption,
    FormatOption,
    QuietOption,
    ResolutionsOption,
    SpaceOption,
    SpaceRunOption,
)
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    guarded,
    next_steps,
    progress,
    quoted,
    say,
    show_table,
)

if TYPE_CHECKING:
    from ofa_deploy.predict import LatencyModel
    from ofa_deploy.search import Plan
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.terminal import Progress

__all__ = ["plan"]

_NETWORKS = 12  # measured on a device of which there is no table


@guarded
def plan(
    space: SpaceOption = None,
    run: SpaceRunOption = None,
    classes: ClassesOption = None,
    resolutions: ResolutionsOption = None,
    table: Annotated[
        list[Path] | None, typer.Option(help="Latency table of a device; one for each.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Or measure a few networks here: ofa-deploy devices.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="With --device.")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="With --device.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="With --device.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="With --device.")] = 1,
    constraint: Annotated[
        list[str] | None, typer.Option(help="As for search; may be given repeatedly.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For drawing networks.")] = 0,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """See, before any training, whether a space can meet your budgets on your devices.

    Prints what latency, MACs, parameters and memory its networks reach, and how many of 20,000
    random ones meet each constraint. Latency comes from tables, or, with --device, from a dozen
    networks with random weights, measured here and now. Exit 3 if no network meets all constraints.

    Example: ofa-deploy plan --space ofa-mbv3-w1.2 --table note10.json
    --constraint 'latency <= 25 ms'
    """
    from ofa_deploy.cli._workspace import chosen_space
    from ofa_deploy.errors import InputError
    from ofa_deploy.hardware import find_table
    from ofa_deploy.search import check_untrained, on_tables, parse_constraint, shared_space
    from ofa_deploy.search import plan as planned

    tables = [find_table(str(path)) for path in table or ()]
    chosen = shared_space(chosen_space(space, run, classes, resolutions), tables)
    asked = tuple(parse_constraint(text) for text in constraint or ())
    check_untrained(asked)  # before anything is measured
    if device is not None:
        if tables:
            raise InputError("expected --table or --device, found both")
        conditions = {"runtime": runtime, "precision": precision}
        model = _measured(chosen, device, conditions, batch, threads, seed, progress(quiet))
        say(f"{device}: {_NETWORKS} networks measured; {model.holdout}", quiet=quiet)
        found = planned(chosen, {"latency": model}, asked, seed=seed)
    else:
        from ofa_deploy.search import Constraint, latency_metrics

        wanted = [c.metric for c in asked if isinstance(c, Constraint)]
        if not tables and any(name.startswith(("latency", "energy")) for name in wanted):
            raise InputError(
                "latency and energy are those of a device: name its table with --table FILE, or "
                "measure a few networks here with --device local"
            )
        asked = on_tables(asked, tables)
        wanted = [c.metric for c in asked if isinstance(c, Constraint)]
        found = planned(chosen, latency_metrics(chosen, tables, wanted), asked, seed=seed)
    _show(chosen, found, output, quiet)
    _checked(chosen, found, quiet)
    next_steps(_next(space, run, table or [], constraint or []), quiet=quiet)


def _measured(
    space: "SearchSpace",
    name: str,
    conditions: dict[str, str],
    batch: int,
    threads: int,
    seed: int,
    bars: "Progress",
) -> "LatencyModel":
    """A model from a dozen networks; the last third only judge it."""
    from ofa_deploy.cost import macs_model
    from ofa_deploy.hardware import load_device
    from ofa_deploy.predict import fit_latency
    from ofa_deploy.profiling import (
        choose_networks,
        conditions_here,
        measure,
        network_subject,
        reference_arch,
    )

    runtime, precision = conditions["runtime"], conditions["precision"]
    device = load_device(name)
    conditions_here(device, runtime=runtime, precision=precision, batch=batch, threads=threads)
    judges = _NETWORKS // 3
    networks = choose_networks(space, _NETWORKS - judges - 2, judges, seed)
    archs = [space.smallest, space.largest, *(arch for arch, _ in networks)]
    taken = measure(
        {str(i): network_subject(space, arch, batch=batch) for i, arch in enumerate(archs)},
        network_subject(space, reference_arch(space), batch=batch),
        **conditions,  # type: ignore[arg-type]
        threads=threads,
        device=device,
        progress=bars,
        label=f"measure {len(archs)} networks",
    )
    ms = [taken[str(i)].ms for i in range(len(archs))]
    model = fit_latency(space, archs[:-judges], ms[:-judges], priors=[macs_model(space)])
    model.judge(archs[-judges:], ms[-judges:])
    return model


def _show(space: "SearchSpace", found: "Plan", output: OutputFormat, quiet: bool) -> None:
    sizes = ", ".join(map(str, space.resolutions))
    title = f"{space.name} at {sizes} pixels: what its networks reach"
    if output is OutputFormat.table:
        from ofa_deploy.report import rich_table
        from ofa_deploy.terminal import TextTable, metric

        show_table(
            rich_table(
                TextTable(
                    title,
                    headers=("Metric", "Least", "Middle", "Greatest"),
                    numeric=(False, True, True, True),
                    rows=tuple(
                        (r.metric, *(metric(r.metric, v) for v in (r.least, r.middle, r.greatest)))
                        for r in found.reach
                    ),
                )
            )
        )
    else:
        emit([asdict(r) for r in found.reach], output, title=title)
    for text, share in found.shares.items():
        say(f"{text}: met by {share:.2%} of random networks", quiet=quiet)


def _checked(space: "SearchSpace", found: "Plan", quiet: bool) -> None:
    """Say how large a network may be.

    Raises:
        InfeasibleError: if none meets all constraints.
    """
    from ofa_deploy.errors import InfeasibleError

    if found.best is None:
        near = found.nearest
        about = f"; nearest: {near.arch}" if near else ""
        raise InfeasibleError(
            f"no network of space {space.name} meets all constraints{about}",
            {r.metric: (r.least, r.greatest) for r in found.reach},
            near,
        )
    macs = found.best.predicted["macs"] / 1e6
    say(f"the largest network that meets all of it has {macs:.1f} million MACs", quiet=quiet)


def _next(space: str | None, run: Path | None, tables: list[Path], constraints: list[str]) -> str:
    """Train the space, or search the run that was trained already."""
    if run is None:
        named = f" --space {quoted(space)}" if space else ""
        return f"ofa-deploy train{named} --data DIR"
    if not tables:
        return f"ofa-deploy profile --run {quoted(run)}"
    from_tables = [f"--table {quoted(path)}" for path in tables]
    asked = [f"--constraint {quoted(text)}" for text in constraints]
    return " ".join(["ofa-deploy search --run", quoted(run), *from_tables, *asked])
