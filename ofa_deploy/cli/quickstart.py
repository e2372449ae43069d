"""``ofa-deploy quickstart``: the main job from end to end, on the embedded default."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._few import warn_of_few
from ofa_deploy.cli._options import QuietOption
from ofa_deploy.cli._output import (
    next_steps,
    progress,
    quoted,
    resumable,
    say,
    say_accuracy,
    say_top1,
    show_table,
    wrote,
)

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.pareto import Candidate
    from ofa_deploy.predict import AccuracyModel, LatencyModel
    from ofa_deploy.terminal import Progress
    from ofa_deploy.train import Evaluator

__all__ = ["quickstart"]

SPACE = "mbv3-nano-32"
SUBNETS = 40  # measured for the accuracy model
SHARES = (0.2, 0.4, 0.6, 0.8)  # of the way from the least to the greatest latency


@resumable
def quickstart(
    run: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path(
        "runs/quickstart"
    ),
    epochs: Annotated[int, typer.Option(min=3, help="Training epochs.")] = 8,
    images: Annotated[int, typer.Option(min=500, help="Training images.")] = 8_000,
    threads: Annotated[int, typer.Option(help="Threads for training.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="For everything that is drawn.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Run the whole job here, from training to the report.

    Trains a supernet, profiles this CPU, searches four latency budgets, verifies by measuring,
    exports and reports. Takes about five minutes on two cores. Data: glyphs, rendered here.
    Nothing is downloaded. Interrupt it whenever you like: the same command goes on where it
    stopped and ends the same.
    """
    from ofa_deploy.files import exclusive

    with exclusive(run):
        _Quickstart(run, epochs, images, threads, seed, quiet).go()


@dataclass
class _Quickstart:
    run: Path
    epochs: int
    images: int
    threads: int
    seed: int
    quiet: bool
    bars: "Progress" = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bars = progress(self.quiet)

    def go(self) -> None:
        """All steps, in order."""
        resumed = (self.run / "run.json").exists()
        with self.step("train", "a supernet on glyphs with DεpS"):
            evaluator = self.train()
        with self.step("profile", "this CPU through ONNX Runtime"):
            table, latency = self.profile(evaluator)
        with self.step("evaluate", f"{SUBNETS} subnets, to predict the accuracy of all"):
            accuracy = self.evaluate(evaluator)
        with self.step("search", f"and verify under {len(SHARES)} latency budgets"):
            subnets, examined, budgets = self.search(evaluator, table, accuracy, latency)
        with self.step("export", "to ONNX, checked against PyTorch on the test set"):
            best = self.export(evaluator, subnets)
        with self.step("report", "the Pareto front"):
            self.report(evaluator, table, accuracy, latency, best, examined, budgets)
        call = "this call, without what was done before it" if resumed else "all"
        say(
            ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
            + f"; {sum(self.seconds.values()):.0f} s in {call}",
            quiet=self.quiet,
        )
        next_steps(
            f"xdg-open {quoted(self.run / 'report.html')}",
            f"ofa-deploy show {quoted(self.subnet(self.names()[0]))}",
            "ofa-deploy train --data YOUR_IMAGES --run runs/mine",
            quiet=self.quiet,
        )

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Announce a step and keep its time."""
        say(f"[{len(self.seconds) + 1}/6] {name} {what}", quiet=self.quiet)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started

    @staticmethod
    def names() -> list[str]:
        """Stems of the subnets, one a budget."""
        return [f"budget-{share:.0%}".replace("%", "") for share in SHARES]

    def subnet(self, name: str) -> Path:
        """The file of one of them."""
        return self.run / "subnets" / f"{name}.subnet.json"

    def train(self) -> "Evaluator":
        from ofa_deploy.cli._workspace import run_data
        from ofa_deploy.space import get_space
        from ofa_deploy.train import DepsConfig, Evaluator, here, train

        space = get_space(SPACE)
        validation, test = min(1_500, self.images // 4), min(2_000, self.images // 4)
        warn_of_few(validation, quiet=self.quiet)
        options = {
            "seed": self.seed,
            "train": self.images,
            "validation": validation,
            "test": test,
        }
        data = run_data("glyphs", options, space)
        config = DepsConfig.build(
            epochs=self.epochs, calibration=1_000, threads=self.threads, seed=self.seed
        )
        ranks = here()
        record = train(
            config, space, data, self.run, data_options=options, ranks=ranks, progress=self.bars
        )
        say_top1(record.validation_top1, quiet=self.quiet)
        return Evaluator.load(self.run, data, ranks)

    def profile(self, evaluator: "Evaluator") -> "tuple[LatencyTable, LatencyModel]":
        from ofa_deploy.cli._closed_loop import check_here
        from ofa_deploy.cli._workspace import load_warning
        from ofa_deploy.hardware import LatencyTable, load_device
        from ofa_deploy.predict import latency_model
        from ofa_deploy.profiling import profile_space

        space = evaluator.record.search_space
        path = self.run / "latency_table.json"
        if path.exists():
            table = LatencyTable.load(path)
            check_here(table, mend=f"delete {path} to profile anew")
        else:
            table = profile_space(
                space,
                load_device("local"),
                seed=self.seed,
                journal=self.run / "measurements",
                progress=self.bars,
            )
            table.save(path)
        model = latency_model(space, table)
        say(f"{len(table.blocks)} blocks; {model.holdout}", quiet=self.quiet)
        if warning := load_warning(table):
            say(warning, quiet=self.quiet)
        return table, model

    def evaluate(self, evaluator: "Evaluator") -> "AccuracyModel":
        from ofa_deploy.cli._workspace import accuracy_model

        model, _, _ = accuracy_model(evaluator, SUBNETS, self.seed, self.bars)
        model.save(self.run / "accuracy.onnx")
        say_accuracy(model, quiet=self.quiet)
        return model

    def search(
        self,
        evaluator: "Evaluator",
        table: "LatencyTable",
        accuracy: "AccuracyModel",
        latency: "LatencyModel",
    ) -> "tuple[list[Path], list[Candidate], list[float]]":
        import numpy as np

        from ofa_deploy.cli._closed_loop import keep, prove
        from ofa_deploy.search import models_of, parse_constraint

        models = models_of(accuracy, [table])
        _, (least, greatest) = latency.widen(np.array(latency.bounds()))
        budgets = [round(float(least + share * (greatest - least)), 3) for share in SHARES]
        subnets: list[Path] = []
        examined: list[Candidate] = []
        for name, budget in zip(self.names(), budgets, strict=True):
            asked = [parse_constraint(f"latency <= {budget} ms")]
            found = prove(evaluator, table, models, asked, self.seed, self.bars, learn=False)
            subnets.append(keep(evaluator, found.best, name))
            examined += found.examined
        return subnets, examined, budgets

    def export(self, evaluator: "Evaluator", subnets: list[Path]) -> "list[Candidate]":
        from ofa_deploy.export import ExportOptions, export_subnet
        from ofa_deploy.pareto import Candidate

        best = []
        untimed = ExportOptions(measure=False)  # the search has just measured these networks
        with self.bars.task("export", len(subnets)) as task:
            for path, name in zip(subnets, self.names(), strict=True):
                out = self.run / "bundles" / name
                manifest = export_subnet(
                    path, out, evaluator.data.test, options=untimed, overwrite=True
                )
                best.append(Candidate.from_dict(manifest.subnet))
                task.advance()
        return best

    def report(
        self,
        evaluator: "Evaluator",
        table: "LatencyTable",
        accuracy: "AccuracyModel",
        latency: "LatencyModel",
        best: "list[Candidate]",
        examined: "list[Candidate]",
        budgets: list[float],
    ) -> None:
        from ofa_deploy.cli._page import page_commands
        from ofa_deploy.pareto import ParetoFront
        from ofa_deploy.report import (
            Context,
            Report,
            Series,
            front_rows,
            rich_table,
            write_html,
            write_png,
        )
        from ofa_deploy.search import FrontFile, search

        space = evaluator.record.search_space
        whole = search(space, accuracy=accuracy, latency=latency, seed=self.seed)
        proven = ParetoFront.of(examined)
        for name, kind, front in (
            ("predicted", "predicted", whole),
            ("measured", "measured", proven),
        ):
            FrontFile.build(
                self.run.name,
                kind,  # type: ignore[arg-type]
                space,
                front,
                conditions=table.conditions,
                budgets=tuple(budgets),
            ).save(self.run / "fronts" / f"{name}.front.json")
        images = len(evaluator.data.test)
        reported = [_on_test(candidate, images) for candidate in best]
        rows = front_rows([Series("test set", ParetoFront(tuple(reported)), "measured")])
        kept = zip(reported, self.names(), strict=True)
        context = Context(
            table.conditions,
            space=space,
            table=table,
            run=str(self.run),
            subnets={each.arch: str(self.subnet(name)) for each, name in kept},
            budgets=tuple(budgets),
        )
        series = [
            Series("whole space", whole, "predicted", context=context),
            Series("candidates, validation set", proven, "measured", context=context),
            Series("chosen, test set", ParetoFront(tuple(reported)), "measured", context=context),
        ]
        title = f"{space.name} on {table.conditions.processor}, {context.form}"
        facts = {
            **{k: str(v) for k, v in table.conditions.model_dump().items() if v},
            "latency model": str(latency.holdout),
            "accuracy model": str(accuracy),
            "supernet SHA-256": str(evaluator.record.weights_sha256),
        }
        shows = [f"ofa-deploy show {quoted(self.subnet(name))}" for name in self.names()]
        commands = list(dict.fromkeys([*page_commands(series), *shows]))
        report = Report(series, title, facts, commands, before_after=())
        written = (
            write_png(self.run / "report.png", report),
            write_html(self.run / "report.html", report),
        )
        show_table(rich_table(rows, title="One subnet a budget; top-1 on the test set"))
        for path in written:
            wrote(path, quiet=self.quiet)


def _on_test(candidate: "Candidate", images: int) -> "Candidate":
    """The candidate with its test accuracy in place of the one it was chosen by."""
    measured = dict(candidate.measured)
    measured |= {"top1": measured.pop("test_top1"), "top1.images": float(images)}
    return replace(candidate, measured=measured)
