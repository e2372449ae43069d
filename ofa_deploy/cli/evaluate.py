"""``ofa-deploy evaluate``: accuracy of many subnets, and a model of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._few import warn_of_few
from ofa_deploy.cli._next import form_options, search_command
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    next_steps,
    progress,
    quoted,
    resumable,
    say_accuracy,
    wrote,
)

if TYPE_CHECKING:
    from ofa_deploy.space import SearchSpace

__all__ = ["evaluate"]


@resumable
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished training run.")],
    subnets: Annotated[int, typer.Option(min=9, help="How many subnets.")] = 40,
    precision: Annotated[
        str, typer.Option(help="fp32, or int8: as --runtime computes them then.")
    ] = "fp32",
    runtime: Annotated[
        str, typer.Option(help="For int8: onnxruntime or openvino.")
    ] = "onnxruntime",
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
    """Measure subnets and fit an accuracy model.

    The first subnets are spread over the space, the others are chosen where the model is least
    certain. They are judged on the validation split; each gets BN statistics of its own first.
    Finished ones are kept, so that an interrupted evaluation goes on, and one for more subnets
    adds the rest. Writes evaluations.csv into the run folder, and accuracy.onnx, a model with
    its leave-one-out error, which ofa-deploy search needs. Several processes share the work:
    torchrun --nproc-per-node 4 -m ofa_deploy -- evaluate RUN.

    With --precision int8 every subnet is quantised as export --no-sensitivity does and judged as
    the runtime computes it; search then takes INT8 latency tables of that runtime too.
    """
    from contextlib import nullcontext

    from ofa_deploy.cli._workspace import accuracy_model, load_evaluator, write_evaluations
    from ofa_deploy.export import AsShipped, accuracy_file, kept_as
    from ofa_deploy.files import exclusive
    from ofa_deploy.train import RunFile, joined

    _check(runtime, precision)
    RunFile.load(run)  # before the lock, which would make the folder
    with joined() as ranks, exclusive(run) if ranks.first else nullcontext():
        bars = progress(quiet or not ranks.first)
        evaluator = load_evaluator(run, bars, ranks, data=data, threads=threads)
        shipped = AsShipped(evaluator, runtime, precision)
        model, archs, top1 = accuracy_model(shipped, subnets, seed, bars)
        if not ranks.first:
            return
        path = model.save(accuracy_file(run, runtime, precision))
        csv = run / f"evaluations{kept_as(runtime, precision)}.csv"
        table, rows = write_evaluations(csv, evaluator.record.search_space, archs, top1)
    shown = [
        {"arch": str(arch), "macs": row["macs"], "top1": row["top1"]}
        for arch, row in zip(archs, rows, strict=True)
    ]
    emit(shown, output, title="validation top-1, percent")
    say_accuracy(model, quiet=quiet)
    warn_of_few(len(evaluator.data.validation), max(top1), quiet=quiet)
    wrote(table, quiet=quiet)
    wrote(path, quiet=quiet)
    next_steps(_following(evaluator.record.search_space, run, runtime, precision), quiet=quiet)


def _following(space: "SearchSpace", run: Path, runtime: str, precision: str) -> str:
    """Search with the table that is at hand, or make one."""
    from ofa_deploy.cli._search_tables import TablesOfDevices
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.predict import latency_model

    try:
        (path,) = TablesOfDevices(space, run, runtime, precision).find(["local"])
        middle_ms = sum(latency_model(space, LatencyTable.load(path)).bounds()) / 2
    except OfaDeployError:
        return f"ofa-deploy profile --run {quoted(run)}{form_options(runtime, precision)}"
    return search_command(run, path, middle_ms)


def _check(runtime: str, precision: str) -> None:
    """See that there is such a precision; float32 is PyTorch's, and so of every runtime."""
    from ofa_deploy.errors import UnknownNameError

    for kind, name, known in (
        ("precision", precision, ("fp32", "int8")),
        ("runtime", runtime, ("onnxruntime", "openvino")),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
