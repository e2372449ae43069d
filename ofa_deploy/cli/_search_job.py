"""One call of ``ofa-deploy search``: what is asked, found, proven, shown and written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    next_steps,
    progress,
    say,
    show_table,
    wrote,
)

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.pareto import Candidate, ParetoFront
    from ofa_deploy.predict import AccuracyModel
    from ofa_deploy.search import Constraint, GeneConstraint, Models, Verified
    from ofa_deploy.train import Evaluator

    Known = tuple[AccuracyModel, LatencyTable]

__all__ = ["SearchJob"]

Kind = Literal["predicted", "measured"]


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
        """The tables, and constraints in their terms."""
        from ofa_deploy.hardware import find_table
        from ofa_deploy.search import on_tables

        tables = [find_table(str(path)) for path in paths]
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
        known: "Sequence[Known]",
        label: str,
        folder: Path,
        per_device: bool,
        lock: Path | None = None,
    ) -> None:
        """The front by the models alone; one a device or a form of the network if asked for."""
        from contextlib import nullcontext

        from ofa_deploy._files import exclusive

        asked = self.asked
        forms = len({table.conditions.device for _, table in known}) < len(known)
        groups = [[each] for each in known] if per_device or forms else [list(known)]
        for group in groups:
            tables = [table for _, table in group]
            device = tables[0].conditions.device if per_device and len(known) > 1 else ""
            self.asked = _on(asked, device)
            models = self.models(_one_accuracy(group), tables)
            front = self.front(models, self.asked)
            stem = "-".join(filter(None, [self.name, device, _form(tables[0]) if forms else ""]))
            with exclusive(lock) if lock else nullcontext():
                path = self.save("predicted", front, models, tables, label, folder / stem)
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

    def prove(self, known: "Sequence[Known]", run: Path, data: str | None) -> None:
        """The best subnet as measured here, in the best of the forms that there are tables of."""
        from ofa_deploy._files import exclusive
        from ofa_deploy.cli._closed_loop import check_here, keep
        from ofa_deploy.cli._workspace import load_evaluator
        from ofa_deploy.errors import InfeasibleError
        from ofa_deploy.search import best_of

        for _, table in known:
            check_here(table, mend="profile anew, or search with --no-verify")
        found: list[Verified] = []
        written: list[Path] = []
        failed: InfeasibleError | None = None
        with exclusive(run):
            evaluator = load_evaluator(run, progress(self.quiet), data=data)
            for accuracy, table in known:
                form = f"-{_form(table)}" if len(known) > 1 else ""
                try:
                    one = self._prove_one(accuracy, table, evaluator, form, written)
                except InfeasibleError as error:
                    failed = error
                    say(f"{_form(table)}: {error}", quiet=self.quiet or len(known) == 1)
                else:
                    found.append(one)
            if not found:
                assert failed is not None
                raise failed
            best = best_of(found)
            subnet = keep(evaluator, best, self.name)
        self._tell(found, best, [*written, subnet])

    def _prove_one(
        self,
        accuracy: "AccuracyModel",
        table: "LatencyTable",
        evaluator: "Evaluator",
        form: str,
        written: list[Path],
    ) -> "Verified":
        """In one runtime and precision; adds the files of its fronts."""
        from ofa_deploy.cli._closed_loop import as_of_now, prove
        from ofa_deploy.pareto import ParetoFront

        bars = progress(self.quiet)
        models = self.models(accuracy, [table])
        now = as_of_now(table, models.whole(table), bars)
        if now is not table:
            models = self.models(accuracy, [now])
        front = self.front(models, self.asked)
        found = prove(evaluator, now, models, self.asked, self.seed, bars)
        say(_error_of_picked(found), quiet=self.quiet)
        run = evaluator.run
        stem = run / "fronts" / f"{self.name}{form}"
        written.append(self.save("predicted", front, models, [now], run.name, stem))
        measured = ParetoFront.of(found.examined)
        also = stem.with_name(f"{stem.name}-measured")
        written.append(self.save("measured", measured, models, [now], run.name, also))
        return found

    def _tell(
        self, found: "Sequence[Verified]", best: "Candidate", written: Sequence[Path]
    ) -> None:
        from ofa_deploy.pareto import ParetoFront

        _show(ParetoFront(tuple(each.best for each in found)), self.output)
        if len(found) > 1:
            form = best.target or "onnx"
            say(f"the most accurate that fits: {best.arch} as {form}", quiet=self.quiet)
        for path in written:
            wrote(path, quiet=self.quiet)
        target = f" --target {best.target}" if best.target else ""
        target += " --no-sensitivity" if best.target.endswith("int8") else ""
        predicted, measured, subnet = written[-3:]
        next_steps(
            f"ofa-deploy export {subnet} --out bundles/{self.name}{target}",
            f"ofa-deploy compare {predicted} {measured} --out report.html",
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


def _form(table: "LatencyTable") -> str:
    """How a table's networks are run."""
    return f"{table.conditions.runtime}-{table.conditions.precision}"


def _one_accuracy(known: "Sequence[Known]") -> "AccuracyModel":
    """Of one network for all devices, which has one accuracy only in one precision."""
    from ofa_deploy.errors import InputError
    from ofa_deploy.export import kept_as

    conditions = [table.conditions for _, table in known]
    if len({kept_as(each.runtime, each.precision) for each in conditions}) > 1:
        forms = ", ".join(sorted({_form(table) for _, table in known}))
        raise InputError(
            f"one network for several devices: expected tables of one precision, found {forms}; "
            "ask for one network a device with --per-device"
        )
    return known[0][0]


def _on(
    asked: "Sequence[Constraint | GeneConstraint]", device: str
) -> "tuple[Constraint | GeneConstraint, ...]":
    """Those that speak of one device, or of none in particular."""
    from ofa_deploy.search import Constraint, for_device

    if not device:
        return tuple(asked)
    kept = (for_device(c, device) if isinstance(c, Constraint) else c for c in asked)
    return tuple(c for c in kept if c is not None)


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
