"""``ofa-deploy evaluate``: accuracy of many subnets, and a model of it."""

from pathlib import Path
from typing import Annotated

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
    wrote,
)

__all__ = ["evaluate"]


@guarded
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished training run.")],
    subnets: Annotated[int, typer.Option(min=9, help="How many random subnets.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="For drawing them.")] = 0,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Measure random subnets and fit an accuracy model.

    They are judged on the validation split. Each subnet gets BN statistics of its own first.
    Finished ones are kept, so that an interrupted evaluation goes on, and one for more subnets
    only adds the rest. Writes accuracy.onnx into the run folder, with its leave-one-out error.
    """
    from ofa_deploy._files import exclusive
    from ofa_deploy.cli._workspace import accuracy_model, load_evaluator
    from ofa_deploy.train import RunFile

    bars = progress(quiet)
    RunFile.load(run)  # before the lock, which would make the folder
    with exclusive(run):
        evaluator = load_evaluator(run, bars)
        model, archs, top1 = accuracy_model(evaluator, subnets, seed, bars)
        path = model.save(run / "accuracy.onnx")
    space = evaluator.record.search_space
    emit(
        [
            {"arch": str(arch), "macs": space.cost(arch).macs, "top1": value}
            for arch, value in zip(archs, top1, strict=True)
        ],
        output,
        title="validation top-1, percent",
    )
    say(str(model), quiet=quiet)
    wrote(path, quiet=quiet)
    next_steps(f"ofa-deploy profile --run {run}", quiet=quiet)
