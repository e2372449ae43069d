"""One call of ``ofa-deploy search``: what is asked, found, proven, shown and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ofa_deploy.cli._few import warn_of_few
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    next_steps,
    progress,
    quoted,
    say,
    say_accuracy,
    show_table,
    wrote,
)
from ofa_deploy.cli._search_terms import (
    constraints_on,
    form_of,
    goals_on,
    in_a_name,
    renamed,
)
from ofa_deploy.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.pareto import Candidate, ParetoFront
    from ofa_deploy.predict import AccuracyModel
    from ofa_deploy.search import Constraint, GeneConstraint, Models, Verified
    from ofa_deploy.train import Evaluator

    Known = tuple[AccuracyModel, LatencyTable]

__all__ = ["SearchJob"]

_MOVED = 2.0  # further from its table than clocks and heat take a device now and then

Kind = Literal["predicted", "measured"]


@dataclass(frozen=True)
class _Proof:
    """What the closed loop gave in one form of the networks, and the files of its fronts."""

    found: "Verified"
    predicted: Path
    measured: Path


class SearchJob:
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
        """The tables, and constraints and objectives in their terms."""
        from ofa_deploy.hardware import find_table
        from ofa_deploy.search import metric_on_tables, on_tables

        tables = [find_table(str(path)) for path in paths]
        self.asked = on_tables(self.asked, tables)
        self.objectives = renamed(self.objectives, lambda name: metric_on_tables(name, tables))
        return tables

    def models(self, accuracy: "AccuracyModel", tables: "Sequence[LatencyTable]") -> "Models":
        """What the search asks, said with its error."""
        from ofa_deploy.search import Constraint, models_of

        wanted = [c.metric for c in self.asked if isinstance(c, Constraint)]
        models = models_of(accuracy, tables, [*wanted, *(self.objectives or ())])
        say_accuracy(accuracy, quiet=self.quiet)
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
        known: "Sequence[Known]",
        label: str,
        folder: Path,
        per_device: bool,
        lock: Path | None = None,
    ) -> None:
        """The front by the models alone; one a device or a form of the network if asked for."""
        from contextlib import nullcontext

        from ofa_deploy.files import exclusive

        asked, objectives = self.asked, self.objectives
        forms = len({table.conditions.device for _, table in known}) < len(known)
        groups = [[each] for each in known] if per_device or forms else [list(known)]
        for group in groups:
            tables = [table for _, table in group]
            device = tables[0].conditions.device if per_device and len(known) > 1 else ""
            self.asked = constraints_on(asked, device)
            self.objectives = goals_on(objectives, device)
            models = self.models(_one_accuracy(group), tables)
            front = self.front(models, self.asked)
            parts = [device, form_of(tables[0]) if forms else ""]
            stem = "-".join([self.name, *(in_a_name(part) for part in parts if part)])
            with exclusive(lock) if lock else nullcontext():
                path = self.save("predicted", front, models, tables, label, folder / stem)
            _show(front, self.output, path, quiet=self.quiet)
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

    def prove(self, known: "Sequence[Known]", run: Path, data: str | None) -> None:
        """The best subnet as measured here, in the best of the forms that there are tables of."""
        from ofa_deploy.cli._closed_loop import check_here, keep
        from ofa_deploy.cli._workspace import load_evaluator
        from ofa_deploy.export.examiner import measurable
        from ofa_deploy.files import exclusive
        from ofa_deploy.search import best_of, check_provable

        for _, table in known:
            check_here(table, mend="profile anew, or search with --no-verify")
            check_provable(self.asked, measurable(table))
        proofs: list[_Proof] = []
        hopeful, failed = self._hopeful(known)
        with exclusive(run):
            evaluator = load_evaluator(run, progress(self.quiet), data=data)
            for accuracy, table, models in hopeful:
                form = f"-{in_a_name(form_of(table))}" if len(known) > 1 else ""
                try:
                    proofs.append(self._prove_one(accuracy, table, models, evaluator, form))
                except InfeasibleError as error:
                    failed[form_of(table)] = error
            if not proofs:
                raise _none_fits(failed)
            for name, why in failed.items():
                say(f"{name}: {why}", quiet=self.quiet)
            best = best_of([each.found for each in proofs])
            subnet = keep(evaluator, best, self.name)
        self._tell(proofs, best, subnet)

    def _hopeful(
        self, known: "Sequence[Known]"
    ) -> "tuple[list[tuple[AccuracyModel, LatencyTable, Models]], dict[str, InfeasibleError]]":
        """Those whose table may meet the budget, with their models; of the others, why not.

        Raises:
            InfeasibleError: if none does, before anything is loaded or measured.
        """
        hopeful = []
        failed: dict[str, InfeasibleError] = {}
        for accuracy, table in known:
            models = self.models(accuracy, [table])
            try:
                self._refuse_hopeless(models)
            except InfeasibleError as error:
                failed[form_of(table)] = error
            else:
                hopeful.append((accuracy, table, models))
        if not hopeful:
            raise _none_fits(failed)
        return hopeful, failed

    def _refuse_hopeless(self, models: "Models") -> None:
        """See that the budget is not far beyond what the table reaches.

        Raises:
            InfeasibleError: if it is, with what can be reached and the nearest network.
        """
        from ofa_deploy.search import Problem

        problem = Problem.build(
            models.space,
            accuracy=models.accuracy,
            latency=models.latency,
            metrics=models.metrics,
            constraints=self.asked,
        )
        if far := problem.out_of_reach(_MOVED):
            try:
                self.front(models, self.asked)
            except InfeasibleError as error:
                raise _measured_nothing(error, far) from None
        if near := problem.out_of_reach():
            beyond = ", ".join(map(str, near))
            say(
                f"{beyond}: out of reach by the table as it is; a few blocks are measured, in case "
                "this machine now runs at another speed",
                quiet=self.quiet,
            )

    def _prove_one(
        self,
        accuracy: "AccuracyModel",
        table: "LatencyTable",
        models: "Models",
        evaluator: "Evaluator",
        form: str,
    ) -> _Proof:
        """In one runtime and precision; writes its fronts."""
        from ofa_deploy.cli._closed_loop import as_of_now, prove
        from ofa_deploy.pareto import ParetoFront

        bars = progress(self.quiet)
        now = as_of_now(table, models.whole(table), bars)
        if now is not table:
            models = self.models(accuracy, [now])
        front = self.front(models, self.asked)
        found = prove(evaluator, now, models, self.asked, self.seed, bars)
        say(_error_of_picked(found), quiet=self.quiet)
        run = evaluator.run
        stem = run / "fronts" / f"{self.name}{form}"
        predicted = self.save("predicted", front, models, [now], run.name, stem)
        proven = ParetoFront.of(found.examined)
        also = stem.with_name(f"{stem.name}-measured")
        measured = self.save("measured", proven, models, [now], run.name, also)
        return _Proof(found, predicted, measured)

    def _tell(self, proofs: Sequence[_Proof], best: "Candidate", subnet: Path) -> None:
        from ofa_deploy.pareto import ParetoFront

        _show(ParetoFront(tuple(each.found.best for each in proofs)), self.output)
        if images := _images(best):
            warn_of_few(images, best.measured["top1"], quiet=self.quiet)
        if len(proofs) > 1:
            form = best.target or "onnx"
            say(f"the most accurate that fits: {best.arch} as {form}", quiet=self.quiet)
        for path in [*(file for p in proofs for file in (p.predicted, p.measured)), subnet]:
            wrote(path, quiet=self.quiet)
        target = f" --target {best.target}" if best.target else ""
        target += " --no-sensitivity" if best.target.endswith("int8") else ""
        fronts = next(each for each in proofs if each.found.best is best)
        next_steps(
            f"ofa-deploy export {quoted(subnet)} --out {quoted(f'bundles/{self.name}')}{target}",
            f"ofa-deploy compare {quoted(fronts.predicted)} {quoted(fronts.measured)} "
            "--out report.html",
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


def _measured_nothing(error: InfeasibleError, far: "Sequence[Constraint]") -> InfeasibleError:
    """The error, with why no measurement would help."""
    why = "no measurement changes that"
    if all(each.metric.startswith(("latency", "energy")) for each in far):
        why = (
            f"this machine would have to differ from its table by more than a factor of {_MOVED:g},"
            " which ofa-deploy tables check FILE --device local finds out"
        )
    return InfeasibleError(f"{error}; nothing was measured: {why}", error.reachable, error.nearest)


def _none_fits(failed: "Mapping[str, InfeasibleError]") -> InfeasibleError:
    """What every form said, as one error."""
    errors = list(failed.values())
    if len(errors) == 1:
        return errors[0]
    reachable: dict[str, tuple[float, float]] = {}
    for error in errors:
        for metric, (least, greatest) in error.reachable.items():
            known = reachable.get(metric, (least, greatest))
            reachable[metric] = min(known[0], least), max(known[1], greatest)
    said = "; ".join(f"{form}: {error}" for form, error in failed.items())
    nearest = next((error.nearest for error in errors if error.nearest), None)
    return InfeasibleError(said, reachable, nearest)


def _one_accuracy(known: "Sequence[Known]") -> "AccuracyModel":
    """Of one network for all devices, which has one accuracy only in one precision."""
    from ofa_deploy.export import kept_as

    conditions = [table.conditions for _, table in known]
    if len({kept_as(each.runtime, each.precision) for each in conditions}) > 1:
        forms = ", ".join(sorted({form_of(table) for _, table in known}))
        raise InputError(
            f"one network for several devices: expected tables of one precision, found {forms}; "
            "ask for one network a device with --per-device"
        )
    return known[0][0]


def _error_of_picked(found: "Verified") -> str:
    """How far predictions were off on networks that the search picked for their predictions."""
    examined: Sequence[Candidate] = found.examined
    ratios = [c.measured["latency"] / c.predicted["latency"] - 1 for c in examined]
    mean = 100 * sum(map(abs, ratios)) / len(ratios)
    worst = 100 * max(ratios)
    end = "nothing promises more" if found.stands else "searched again from here, it may find more"
    if images := _images(found.best):
        end += f"; top-1 by {images:,} validation images"
    return (
        f"{len(ratios)} networks that the search picked: latency predictions off by {mean:.1f} % "
        f"in the mean, the slowest {worst:+.1f} %; {end}"
    )


def _images(measured: "Candidate") -> int:
    """How many its top-1 was measured on; 0 where nothing says so."""
    return int(measured.measured.get("top1.images", 0))


def _show(
    front: "ParetoFront", output: OutputFormat, file: Path | None = None, *, quiet: bool = False
) -> None:
    """The front, as a table a few of its networks.

    Args:
        file: which holds all of them.
    """
    from ofa_deploy.report import Series, few_rows, front_rows, front_table, rich_table

    measured = all(candidate.measured for candidate in front)
    kind: Kind = "measured" if measured else "predicted"
    rows = front_rows([Series("search", front, kind)])
    if output is not OutputFormat.table:
        emit([dict(row) for row in rows], output)
        return
    few = few_rows(rows) if file else rows
    table = front_table(few)
    note = "; ".join(filter(None, (table.note, "top-1: on the validation split")))
    show_table(rich_table(replace(table, note=note)))
    if len(few) < len(rows):
        say(
            f"{len(few)} of {len(rows):,} networks shown; all are in {file}, and with --format csv",
            quiet=quiet,
        )
