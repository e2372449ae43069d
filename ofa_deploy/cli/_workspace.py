"""What several commands need: the data of a run, the space that is meant, where tables go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, SearchSpace, get_space
from ofa_deploy.terminal import SILENT, Portions, Progress

if TYPE_CHECKING:
    from ofa_deploy.data import DataSplits
    from ofa_deploy.export import AsShipped
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.predict import AccuracyModel
    from ofa_deploy.train import Evaluator, Ranks

_BUSY = 0.15
_LARGEST = 4096
_FIRST, _STEP = 15, 10  # subnets evaluated before the first accuracy model, and between two

__all__ = [
    "accuracy_model",
    "chosen_space",
    "data_options",
    "load_evaluator",
    "load_warning",
    "run_data",
    "subnets_data",
    "table_path",
    "with_resolutions",
    "write_evaluations",
]


def chosen_space(
    name: str | None,
    run: Path | None,
    classes: int | None = None,
    resolutions: str | None = None,
) -> SearchSpace:
    """The space of a training run, or one of the catalogue or of a TOML file.

    Raises:
        InputError: if neither or both are given, or classes or resolutions beside a run.
    """
    if (name is None) == (run is None):
        raise InputError("expected either --space NAME or --run FOLDER, to know the space")
    if run is not None:
        from ofa_deploy.train import RunFile

        if (classes, resolutions) != (None, None):
            raise InputError(
                "--classes and --resolutions go with --space: a run has its own; leave them out"
            )
        return RunFile.load(run).search_space
    assert name is not None
    space = with_resolutions(get_space(name), resolutions)
    return space if classes is None else space.with_classes(classes)


def with_resolutions(space: SearchSpace, text: str | None) -> SearchSpace:
    """The space with resolutions such as ``160,192,224``, or its own."""
    if text is None:
        return space
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"resolutions: expected numbers such as 160,192,224, found {text!r}"
        ) from None
    if not all(1 <= size <= _LARGEST for size in sizes):
        raise InputError(f"resolutions: expected 1 to {_LARGEST} pixels, found {text}")
    return space.with_resolutions(*sizes)


def run_data(
    data: str, options: Mapping[str, int | None], space: SearchSpace, progress: Progress = SILENT
) -> "DataSplits":
    """The data that a run or subnet file names."""
    from ofa_deploy.data import load_data

    settings = {name: value for name, value in options.items() if value is not None}
    skip_bad = bool(settings.pop("skip_bad", False))
    size = space.resolutions[-1]
    return load_data(data, size=size, skip_bad=skip_bad, progress=progress, **settings)


def subnets_data(
    subnets: Sequence[Path], data: str | None, progress: Progress = SILENT
) -> "DataSplits":
    """The data that all of some subnets, or ensembles, were made with.

    Args:
        data: where it is now, if not where it was.

    Raises:
        MismatchError: if the images there are others.
    """
    from ofa_deploy.data import full_name
    from ofa_deploy.errors import InputError, MismatchError
    from ofa_deploy.supernet import load_members

    records = [load_members(path).record for path in subnets]
    first = records[0]
    name = first.data if data is None else full_name(data)
    try:
        images = run_data(name, first.data_options, first.search_space, progress)
    except InputError as error:
        moved = data is None and Path(name).is_absolute() and not Path(name).exists()
        hint = "; if they have moved, name where they are now with --data" if moved else ""
        raise InputError(f"{error}{hint}") from None
    for path, record in zip(subnets, records, strict=True):
        if record.data_digest != images.digest:
            raise MismatchError(
                f"{path}: made with {record.data} as it was ({record.data_digest}); the images of "
                f"{name} are others ({images.digest})"
            )
    return images


def data_options(
    seed: int | None,
    train: int | None,
    validation: int | None,
    test: int | None,
    skip_bad: bool,
) -> dict[str, int | None]:
    """What ``load_data`` is told, as a run keeps it."""
    return {
        "seed": seed,
        "train": train,
        "validation": validation,
        "test": test,
        "skip_bad": int(skip_bad) or None,
    }


def load_evaluator(
    run: Path,
    progress: Progress,
    ranks: "Ranks | None" = None,
    *,
    data: str | None = None,
    threads: int | None = None,
) -> "Evaluator":
    """A finished training run with its data.

    Args:
        ranks: this process alone, on this machine's GPU if it has one, when not given.
        data: where the run's images are now, if not where they were.
        threads: those of the run when not given.
    """
    from ofa_deploy.data import full_name
    from ofa_deploy.train import Evaluator, RunFile, here

    record = RunFile.load(run)
    name = record.data if data is None else full_name(data)
    images = run_data(name, record.data_options, record.search_space, progress)
    return Evaluator.load(run, images, ranks or here(), threads=threads)


def load_warning(table: "LatencyTable") -> str:
    """What to say when other programs were busy while a table was measured, else nothing."""
    if table.other_load < _BUSY:
        return ""
    return (
        f"warning: other programs used {table.other_load:.0%} of this machine meanwhile; "
        "latencies may be too high, profile again when it is idle"
    )


def table_path(table: "LatencyTable", out: Path | None) -> Path:
    """Where a table is written: ``./latency_tables/DEVICE/…`` unless told otherwise."""
    return out or Path("latency_tables") / table.conditions.device / table.file_name


def accuracy_model(
    evaluator: "Evaluator | AsShipped", subnets: int, seed: int, progress: Progress
) -> "tuple[AccuracyModel, list[Arch], list[float]]":
    """Fit an accuracy model on so many subnets of a run, evaluating those not known yet.

    The first are chosen from the space alone; the others, some at a time, where the model that has
    learned from those before is least certain. Several processes choose all from the space, so that
    they cannot disagree.

    Returns:
        The model, the subnets it learned from, and their top-1 in percent.
    """
    import numpy as np

    from ofa_deploy.predict import choose_subnets, fit_accuracy

    space = evaluator.record.search_space
    at_once = subnets if evaluator.ranks.count > 1 else min(subnets, _FIRST)
    archs = choose_subnets(space, at_once, rng=np.random.default_rng([seed, 0xACC]))
    with progress.task("evaluate subnets", subnets) as task:
        bar = Portions(task, progress)
        top1 = evaluator.validate(archs, progress=bar)
        model = fit_accuracy(space, archs, top1)
        while len(archs) < subnets:
            rng = np.random.default_rng([seed, 0xACC, len(archs)])
            chosen = choose_subnets(model, min(_STEP, subnets - len(archs)), rng=rng)
            archs += chosen
            top1 += evaluator.validate(chosen, progress=bar)
            model = fit_accuracy(space, archs, top1)
    return model, archs, top1


def write_evaluations(
    path: Path, space: SearchSpace, archs: Sequence[Arch], top1: Sequence[float]
) -> tuple[Path, list[dict[str, object]]]:
    """Write a CSV with a row a subnet: what it is, what it costs, how good it is."""
    from ofa_deploy.cli._output import csv_text
    from ofa_deploy.files import write_text

    rows: list[dict[str, object]] = []
    for arch, value in zip(archs, top1, strict=True):
        cost = space.cost(arch)
        lists = {
            name: " ".join(f"{v:g}" for v in getattr(arch, name))
            for name in ("depths", "kernels", "expands", "widths")
        }
        costs = {"macs": cost.macs, "params": cost.params, "top1": value}
        rows.append({"resolution": arch.resolution, **lists, **costs})
    return write_text(path, csv_text(rows)), rows
