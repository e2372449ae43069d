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
    data: Annotated[
        str | None, typer.Option(help="Where the run's images are now, if they have moved.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each process; default: the run's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For drawing them.")] = 0,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Measure random subnets and fit an accuracy model.

    They are judged on the validation split. Each subnet gets BN statistics of its own first.
    Finished ones are kept, so that an interrupted evaluation goes on, and one for more subnets
    only adds the rest. Writes evaluations.csv into the run folder, and accuracy.onnx, a model with
    its leave-one-out error, which ofa-deploy search needs. Several processes share the work:
    torchrun --nproc-per-node 4 -m ofa_deploy -- evaluate RUN.
    """
    from contextlib import nullcontext

    from ofa_deploy._files import exclusive
    from ofa_deploy.cli._workspace import accuracy_model, load_evaluator, write_evaluations
    from ofa_deploy.train import RunFile, joined

    RunFile.load(run)  # before the lock, which would make the folder
    with joined() as ranks, exclusive(run) if ranks.first else nullcontext():
        bars = progress(quiet or not ranks.first)
        evaluator = load_evaluator(run, bars, ranks, data=data, threads=threads)
        model, archs, top1 = accuracy_model(evaluator, subnets, seed, bars)
        if not ranks.first:
            return
        path = model.save(run / "accuracy.onnx")
        table, rows = write_evaluations(run, evaluator.record.search_space, archs, top1)
    shown = [
        {"arch": str(arch), "macs": row["macs"], "top1": row["top1"]}
        for arch, row in zip(archs, rows, strict=True)
    ]
    emit(shown, output, title="validation top-1, percent")
    say(str(model), quiet=quiet)
    wrote(table, quiet=quiet)
    wrote(path, quiet=quiet)
    next_steps(f"ofa-deploy profile --run {run}", quiet=quiet)
