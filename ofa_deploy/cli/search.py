"""``ofa-deploy search``: the most accurate subnet within a budget."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ofa_deploy.cli._output import (
    FormatOption,
    OutputFormat,
    QuietOption,
    emit,
    guarded,
    next_steps,
    progress,
    say,
    show_table,
    wrote,
)
from ofa_deploy.cli._weights import (
    DataOption,
    ResolutionsOption,
    SpaceOption,
    WeightsOption,
    adopt_weights,
    learn_accuracy,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.pareto import Candidate, ParetoFront
    from ofa_deploy.search import Constraint

__all__ = ["search"]

Kind = Literal["predicted", "measured"]


@guarded
def search(
    run: Annotated[
        Path,
        typer.Option(help="A finished training run, evaluated; or a folder to make of --weights."),
    ],
    table: Annotated[Path, typer.Option(help="Latency table of the run's space.")],
    constraint: Annotated[
        list[str],
        typer.Option(help="Such as 'latency <= 0.3 ms', 'macs <= 2M'; may be given repeatedly."),
    ],
    verify: Annotated[
        bool, typer.Option(help="Cut, recalibrate, evaluate and measure the best candidates.")
    ] = True,
    name: Annotated[str, typer.Option(help="Stem of the files to write.")] = "best",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")] = 0,
    weights: WeightsOption = None,
    space: SpaceOption = None,
    data: DataOption = None,
    resolutions: ResolutionsOption = None,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Find and prove the best subnet within a budget.

    Writes RUN/fronts/NAME.front.json: every network worth choosing, predicted. With --verify the
    best candidates are measured on this device and the most accurate one that was measured to fit
    is written as RUN/subnets/NAME.subnet.json, with its weights. Exit 3 if nothing fits, with the
    least and greatest value that can be reached.

    Weights that once-for-all published are searched with --weights FILE --space NAME --data DIR:
    RUN becomes a run of them, and subnets are evaluated first if they never were.
    """
    from ofa_deploy._files import exclusive
    from ofa_deploy.errors import InputError
    from ofa_deploy.hardware import find_table
    from ofa_deploy.pareto import ParetoFront
    from ofa_deploy.predict import latency_model, load_accuracy_model
    from ofa_deploy.search import FrontFile, parse_constraint
    from ofa_deploy.search import search as find

    if weights is None and not (run / "accuracy.onnx").exists():
        raise InputError(
            f"{run}: no accuracy model (accuracy.onnx); make it with: ofa-deploy evaluate {run}"
        )
    profiled = find_table(str(table))
    _refuse_other_precision(profiled)
    device = profiled.conditions.device
    asked = [_on_device(parse_constraint(text), device) for text in constraint]
    adopt_weights(weights, space, data, resolutions, run, progress(quiet))
    if weights is not None:
        from ofa_deploy.train import RunFile

        profiled.check_for(RunFile.load(run).search_space)
        if not (run / "accuracy.onnx").exists():
            learn_accuracy(run, seed, progress(quiet), data=data)
    accuracy = load_accuracy_model(run / "accuracy.onnx")
    if verify:
        from ofa_deploy.cli._closed_loop import as_of_now, check_here

        check_here(profiled, mend="profile anew, or search with --no-verify")
        with exclusive(run):
            profiled = as_of_now(profiled, accuracy.space, progress(quiet))
    latency = latency_model(accuracy.space, profiled)
    budgets = tuple(c.limit for c in asked if c.metric == "latency" and c.upper)
    say(str(accuracy), quiet=quiet)
    say(f"latency table: {profiled.unjudged or latency.holdout}", quiet=quiet)

    def save(kind: Kind, front: ParetoFront, stem: str) -> Path:
        file = FrontFile.build(
            run.name,
            kind,
            accuracy.space,
            front,
            conditions=profiled.conditions,
            budgets=budgets,
        )
        return file.save(run / "fronts" / f"{stem}.front.json")

    if not verify:
        front = find(
            accuracy.space, accuracy=accuracy, latency=latency, constraints=asked, seed=seed
        )
        with exclusive(run):
            written = save("predicted", front, name)
        _show(front, output)
        wrote(written, quiet=quiet)
        return
    from ofa_deploy.cli._closed_loop import prove
    from ofa_deploy.cli._workspace import load_evaluator

    with exclusive(run):
        bars = progress(quiet)
        evaluator = load_evaluator(run, bars, data=data)
        front = find(
            accuracy.space, accuracy=accuracy, latency=latency, constraints=asked, seed=seed
        )
        found, subnet = prove(evaluator, profiled, accuracy, latency, asked, seed, name, bars)
        written = save("predicted", front, name)
        also = save("measured", ParetoFront.of(found.examined), f"{name}-measured")
    say(_error_of_picked(found.examined), quiet=quiet)
    _show(ParetoFront((found.best,)), output)
    for path in (written, also, subnet):
        wrote(path, quiet=quiet)
    next_steps(
        f"ofa-deploy export {subnet} --out bundles/{name}",
        f"ofa-deploy compare {written} {also} --out report.html",
        quiet=quiet,
    )


def _refuse_other_precision(table: "LatencyTable") -> None:
    from ofa_deploy.errors import InputError

    if (precision := table.conditions.precision) != "fp32":
        raise InputError(
            f"the latency table is of {precision}, but the accuracy of {precision} subnets was "
            f"never measured: fp32's accuracy at {precision}'s latency would be a false promise; "
            "search with a table of fp32"
        )


def _error_of_picked(examined: "Sequence[Candidate]") -> str:
    """How far predictions were off on networks that the search picked for their predictions."""
    ratios = [c.measured["latency"] / c.predicted["latency"] - 1 for c in examined]
    mean = 100 * sum(map(abs, ratios)) / len(ratios)
    worst = 100 * max(ratios)
    return (
        f"{len(ratios)} networks that the search picked: latency predictions off by {mean:.1f} % "
        f"in the mean, the slowest {worst:+.1f} %"
    )


def _on_device(constraint: "Constraint", device: str) -> "Constraint":
    """``latency[device]`` is the latency of the one table there is."""
    from ofa_deploy.errors import UnknownNameError

    metric, _, named = constraint.metric.rstrip("]").partition("[")
    if named and named != device:
        raise UnknownNameError("device", named, [device], hint="the table is of another")
    return replace(constraint, metric=metric)


def _show(front: "ParetoFront", output: OutputFormat) -> None:
    from ofa_deploy.report import Series, front_rows, rich_table

    measured = all(candidate.measured for candidate in front)
    kind: Kind = "measured" if measured else "predicted"
    rows = front_rows([Series("search", front, kind)])
    if output is OutputFormat.table:
        show_table(rich_table(rows, arch=True))
    else:
        emit([dict(row) for row in rows], output)
