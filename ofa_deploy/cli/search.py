"""``ofa-deploy search``: the best subnet within a budget."""

from collections.abc import Sequence
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
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.pareto import Candidate, ParetoFront
    from ofa_deploy.predict import AccuracyModel
    from ofa_deploy.search import Constraint, GeneConstraint, Models, Verified

__all__ = ["search"]

Kind = Literal["predicted", "measured"]


@guarded
def search(
    table: Annotated[
        list[Path], typer.Option(help="Latency table; several, one a device, without --verify.")
    ],
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as 'latency <= 0.3 ms', 'latency[jetson].p99 <= 9 ms', 'macs <= 2M', "
            "'resolution in 160,192', 'kernel = 3'; may be given repeatedly."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="A finished training run, evaluated; or a folder to make of --weights."),
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(help="Or an accuracy model alone (predictors import), with --no-verify."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="Such as 'latency min', beside 'top1 max'; may be given repeatedly."),
    ] = None,
    per_device: Annotated[
        bool, typer.Option("--per-device", help="One network a device, not one for all of them.")
    ] = False,
    verify: Annotated[
        bool, typer.Option(help="Cut, recalibrate, evaluate and measure the best candidates.")
    ] = True,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify", help="Also try hard to do better by the same models, and say so."
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="Stem of the files to write.")] = "best",
    out: Annotated[
        Path, typer.Option(help="Folder for them, with --accuracy.", show_default=False)
    ] = Path(),
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
    best candidates are measured on this device, what was measured goes back into the models, and
    the search is repeated until nothing promises more; the most accurate one that was measured to
    fit is written as RUN/subnets/NAME.subnet.json, with its weights. Exit 3 if nothing fits, with
    the least and greatest value that can be reached and the network that comes nearest.

    A latency of no named device must be kept on all of them. Weights that once-for-all published
    are searched with --weights FILE --space NAME --data DIR: RUN becomes a run of them, and subnets
    are evaluated first if they never were.
    """
    from ofa_deploy.errors import InputError

    if (run is None) == (accuracy is None):
        raise InputError("expected either --run FOLDER or --accuracy FILE")
    if accuracy is not None and verify:
        raise InputError("an accuracy model alone proves nothing: add --no-verify, or give --run")
    if verify and len(table) > 1:
        raise InputError(
            "candidates are measured on this machine only: give its table alone, or --no-verify"
        )
    if run is not None and weights is None and not (run / "accuracy.onnx").exists():
        raise InputError(
            f"{run}: no accuracy model (accuracy.onnx); make it with: ofa-deploy evaluate {run}"
        )
    job = _Search(tuple(constraint or ()), tuple(objective or ()), name, seed, output, quiet)
    job.certified = certify
    tables = job.read(table)
    if accuracy is not None:
        from ofa_deploy.predict import load_accuracy_model

        job.predict(load_accuracy_model(accuracy), tables, accuracy.stem, out, per_device)
        return
    assert run is not None
    adopt_weights(weights, space, data, resolutions, run, progress(quiet))
    model = _accuracy_of(run, tables, seed, data, quiet)
    if verify:
        job.prove(model, tables[0], run, data)
    else:
        job.predict(model, tables, run.name, run / "fronts", per_device, lock=run)


def _accuracy_of(
    run: Path,
    tables: "Sequence[LatencyTable]",
    seed: int,
    data: str | None,
    quiet: bool,
) -> "AccuracyModel":
    """The run's; learned now where weights were adopted that were never evaluated."""
    from ofa_deploy.predict import load_accuracy_model
    from ofa_deploy.search import shared_space
    from ofa_deploy.train import RunFile

    path = run / "accuracy.onnx"
    if not path.exists():
        shared_space(RunFile.load(run).search_space, tables)  # before hours of evaluation
        learn_accuracy(run, seed, progress(quiet), data=data)
    return load_accuracy_model(path)


class _Search:
    """One call of the command."""

    def __init__(
        self,
        constraints: Sequence[str],
        objectives: Sequence[str],
        name: str,
        seed: int,
        output: OutputFormat,
        quiet: bool,
    ) -> None:
        from ofa_deploy.search import parse_constraint, parse_objectives

        self.asked = tuple(parse_constraint(text) for text in constraints)
        self.objectives = parse_objectives(objectives) if objectives else None
        self.name, self.seed, self.output, self.quiet = name, seed, output, quiet
        self.certified = False

    def read(self, paths: Sequence[Path]) -> "list[LatencyTable]":
        """The tables, and constraints in their terms."""
        from ofa_deploy.hardware import find_table
        from ofa_deploy.search import on_tables

        tables = [find_table(str(path)) for path in paths]
        for table in tables:
            _refuse_other_precision(table)
        self.asked = on_tables(self.asked, tables)
        return tables

    def models(self, accuracy: "AccuracyModel", tables: "Sequence[LatencyTable]") -> "Models":
        """What the search asks, said with its error."""
        from ofa_deploy.search import Constraint, models_of

        wanted = [c.metric for c in self.asked if isinstance(c, Constraint)]
        models = models_of(accuracy, tables, [*wanted, *(self.objectives or ())])
        say(str(accuracy), quiet=self.quiet)
        for table in tables:
            latency = models.latency_on(table.conditions.device)
            of = f" of {table.conditions.device}" if len(tables) > 1 else ""
            say(f"latency table{of}: {table.unjudged or latency.holdout}", quiet=self.quiet)
        if models.dropped:
            left, kept = (
                ", ".join(map(str, each)) for each in (models.dropped, models.space.resolutions)
            )
            say(
                f"searching {kept} pixels; left out, since not known to all: {left}",
                quiet=self.quiet,
            )
        return models

    def predict(
        self,
        accuracy: "AccuracyModel",
        tables: "Sequence[LatencyTable]",
        label: str,
        folder: Path,
        per_device: bool,
        lock: Path | None = None,
    ) -> None:
        """The front by the models alone; one a device if asked for."""
        from contextlib import nullcontext

        from ofa_deploy._files import exclusive

        asked = self.asked
        for group in [[table] for table in tables] if per_device else [tables]:
            device = group[0].conditions.device if per_device and len(tables) > 1 else ""
            self.asked = _on(asked, device)
            models = self.models(accuracy, group)
            front = self.front(models, self.asked)
            stem = f"{self.name}-{device}" if device else self.name
            with exclusive(lock) if lock else nullcontext():
                path = self.save("predicted", front, models, group, label, folder / stem)
            _show(front, self.output)
            wrote(path, quiet=self.quiet)

    def front(
        self, models: "Models", asked: "Sequence[Constraint | GeneConstraint]"
    ) -> "ParetoFront":
        from ofa_deploy.search import certify
        from ofa_deploy.search import search as find

        question = {
            "accuracy": models.accuracy,
            "latency": models.latency,
            "metrics": models.metrics,
            "constraints": asked,
            "objectives": self.objectives,
        }
        front = find(models.space, **question, seed=self.seed)  # type: ignore[arg-type]
        if self.certified:
            proof = certify(models.space, front.best("top1"), seed=self.seed, **question)
            for line in str(proof).splitlines():
                say(f"certificate: {line}", quiet=self.quiet)
        return front

    def prove(
        self, accuracy: "AccuracyModel", table: "LatencyTable", run: Path, data: str | None
    ) -> None:
        """The front, and the best subnet as measured here."""
        from ofa_deploy._files import exclusive
        from ofa_deploy.cli._closed_loop import as_of_now, check_here, prove
        from ofa_deploy.cli._workspace import load_evaluator
        from ofa_deploy.pareto import ParetoFront

        check_here(table, mend="profile anew, or search with --no-verify")
        bars = progress(self.quiet)
        with exclusive(run):
            models = self.models(accuracy, [table])
            now = as_of_now(table, models.whole(table), bars)
            if now is not table:
                models = self.models(accuracy, [now])
            evaluator = load_evaluator(run, bars, data=data)
            front = self.front(models, self.asked)
            found, subnet = prove(evaluator, now, models, self.asked, self.seed, self.name, bars)
            fronts = run / "fronts"
            written = self.save("predicted", front, models, [now], run.name, fronts / self.name)
            measured = ParetoFront.of(found.examined)
            stem = fronts / f"{self.name}-measured"
            also = self.save("measured", measured, models, [now], run.name, stem)
        say(_error_of_picked(found), quiet=self.quiet)
        _show(ParetoFront((found.best,)), self.output)
        for path in (written, also, subnet):
            wrote(path, quiet=self.quiet)
        next_steps(
            f"ofa-deploy export {subnet} --out bundles/{self.name}",
            f"ofa-deploy compare {written} {also} --out report.html",
            quiet=self.quiet,
        )

    def save(
        self,
        kind: Kind,
        front: "ParetoFront",
        models: "Models",
        tables: "Sequence[LatencyTable]",
        label: str,
        stem: Path,
    ) -> Path:
        from ofa_deploy.search import Constraint, FrontFile

        limits = [c for c in self.asked if isinstance(c, Constraint) and c.upper]
        file = FrontFile.build(
            label,
            kind,
            models.space,
            front,
            conditions=tables[0].conditions if len(tables) == 1 else None,
            budgets=tuple(c.limit for c in limits if c.metric == "latency"),
        )
        return file.save(stem.with_name(f"{stem.name}.front.json"))


def _on(
    asked: "Sequence[Constraint | GeneConstraint]", device: str
) -> "tuple[Constraint | GeneConstraint, ...]":
    """Those that speak of one device, or of none in particular."""
    from ofa_deploy.search import Constraint, for_device

    if not device:
        return tuple(asked)
    kept = (for_device(c, device) if isinstance(c, Constraint) else c for c in asked)
    return tuple(c for c in kept if c is not None)


def _refuse_other_precision(table: "LatencyTable") -> None:
    from ofa_deploy.errors import InputError

    if (precision := table.conditions.precision) not in ("fp32", "unknown"):
        raise InputError(
            f"the latency table is of {precision}, but the accuracy of {precision} subnets was "
            f"never measured: fp32's accuracy at {precision}'s latency would be a false promise; "
            "search with a table of fp32"
        )


def _error_of_picked(found: "Verified") -> str:
    """How far predictions were off on networks that the search picked for their predictions."""
    examined: Sequence[Candidate] = found.examined
    ratios = [c.measured["latency"] / c.predicted["latency"] - 1 for c in examined]
    mean = 100 * sum(map(abs, ratios)) / len(ratios)
    worst = 100 * max(ratios)
    end = "nothing promises more" if found.stands else "more may be found with more rounds"
    return (
        f"{len(ratios)} networks that the search picked: latency predictions off by {mean:.1f} % "
        f"in the mean, the slowest {worst:+.1f} %; {end}"
    )


def _show(front: "ParetoFront", output: OutputFormat) -> None:
    from ofa_deploy.report import Series, front_rows, rich_table

    measured = all(candidate.measured for candidate in front)
    kind: Kind = "measured" if measured else "predicted"
    rows = front_rows([Series("search", front, kind)])
    if output is OutputFormat.table:
        show_table(rich_table(rows, arch=True))
    else:
        emit([dict(row) for row in rows], output)
