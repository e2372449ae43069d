"""Published weights in place of a training run: shared by the commands that take them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.errors import InputError, MismatchError

if TYPE_CHECKING:
    from ofa_deploy.predict import AccuracyModel
    from ofa_deploy.terminal import Progress

__all__ = [
    "DataOption",
    "ResolutionsOption",
    "SpaceOption",
    "WeightsOption",
    "adopt_weights",
    "learn_accuracy",
]

_SUBNETS = 40

WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Published weights (.pth, .safetensors), in place of a training run."),
]
SpaceOption = Annotated[str | None, typer.Option(help="With --weights: the space they are of.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="With --weights: images by class, to calibrate and judge on. Else: where the images "
        "are now, if they have moved."
    ),
]

ResolutionsOption = Annotated[
    str | None, typer.Option(help="With --weights: input sizes, such as 160,192,224.")
]


def adopt_weights(
    weights: Path | None,
    space: str | None,
    data: str | None,
    resolutions: str | None,
    run: Path,
    progress: "Progress",
) -> None:
    """Make ``run`` from published weights, if any are given, or see that it was made from them.

    Raises:
        InputError: if it is not said which space they belong to, or what to judge them on.
        MismatchError: if ``run`` is another run.
    """
    if weights is None:
        made = (run / "run.json").exists()  # then --data says where its images are now
        if (space, resolutions) != (None, None) or (data is not None and not made):
            raise InputError("--space, --data and --resolutions go with --weights")
        return
    if (run / "run.json").exists():
        _check_run(weights, space, data, resolutions, run)
        return
    if space is None or data is None:
        raise InputError("--weights needs --space and --data the first time")
    from ofa_deploy.cli._workspace import run_data, with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.space import get_space
    from ofa_deploy.train import adopt

    chosen = with_resolutions(get_space(space), resolutions)
    splits = run_data(full_name(data), {}, chosen, progress)
    adopt(weights, chosen.with_classes(len(splits.classes)), splits, run, data_options={})


def _check_run(
    weights: Path, space: str | None, data: str | None, resolutions: str | None, run: Path
) -> None:
    """See that what is said of the weights is what the run was made of."""
    from ofa_deploy.cli._workspace import with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.files import sha256_file
    from ofa_deploy.space import get_space
    from ofa_deploy.train import ImportConfig, RunFile

    record = RunFile.load(run)
    if not isinstance(record.config, ImportConfig):
        raise MismatchError(f"{run}: was trained, not made from weights; leave out --weights")
    own = record.search_space
    different = []
    if record.config.init_sha256 != sha256_file(weights):
        different.append(f"other weights than {weights}")
    if space is not None and get_space(space).name != own.name:
        different.append(f"space {own.name}")
    if resolutions is not None and with_resolutions(own, resolutions) != own:
        different.append(f"resolutions {','.join(map(str, own.resolutions))}")
    if data is not None and full_name(data) != record.data:
        different.append(f"data {record.data}")
    if different:
        raise MismatchError(f"{run}: was made with {' and '.join(different)}; name another folder")


def learn_accuracy(
    run: Path, seed: int, progress: "Progress", *, subnets: int = _SUBNETS, data: str | None = None
) -> "AccuracyModel":
    """Evaluate subnets of a run and keep them and an accuracy model there.

    Args:
        data: where the run's images are now, if not where they were.
    """
    from ofa_deploy.cli._workspace import accuracy_model, load_evaluator, write_evaluations
    from ofa_deploy.files import exclusive

    with exclusive(run):
        evaluator = load_evaluator(run, progress, data=data)
        model, archs, top1 = accuracy_model(evaluator, subnets, seed, progress)
        csv = run / "evaluations.csv"
        write_evaluations(csv, evaluator.record.search_space, archs, top1)
        model.save(run / "accuracy.onnx")
    return model
