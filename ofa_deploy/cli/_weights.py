"""Published weights in place of a training run: shared by the commands that take them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.errors import InputError, MismatchError

if TYPE_CHECKING:
    from ofa_deploy._progress import Progress

__all__ = ["DataOption", "SpaceOption", "WeightsOption", "adopt_weights", "learn_accuracy"]

_SUBNETS = 40

WeightsOption = Annotated[
    Path | None,
    typer.Option(help="Published weights (.pth, .safetensors), in place of a training run."),
]
SpaceOption = Annotated[str | None, typer.Option(help="With --weights: the space they are of.")]
DataOption = Annotated[
    str | None, typer.Option(help="With --weights: images by class, to calibrate and judge on.")
]


def adopt_weights(
    weights: Path | None, space: str | None, data: str | None, run: Path, progress: "Progress"
) -> None:
    """Make ``run`` from published weights, if any are given.

    Raises:
        InputError: if it is not said which space they belong to, or what to judge them on.
    """
    if weights is None:
        if space is not None or data is not None:
            raise InputError("--space and --data go with --weights; a run knows its own")
        return
    if (run / "run.json").exists() and space is None and data is None:
        _check_weights(weights, run)
        return
    if space is None or data is None:
        raise InputError("--weights needs --space and --data the first time")
    from ofa_deploy.cli._workspace import run_data
    from ofa_deploy.space import get_space
    from ofa_deploy.train import adopt

    chosen = get_space(space)
    name = data if data == "glyphs" else str(Path(data).resolve())
    splits = run_data(name, {}, chosen, progress)
    adopt(weights, chosen.with_classes(len(splits.classes)), splits, run, data_options={})


def _check_weights(weights: Path, run: Path) -> None:
    from ofa_deploy._files import sha256_file
    from ofa_deploy.train import RunFile

    if RunFile.load(run).config.init_sha256 != sha256_file(weights):
        raise MismatchError(f"{run}: was made from other weights than {weights}; name another")


def learn_accuracy(run: Path, seed: int, progress: "Progress") -> None:
    """Evaluate random subnets of a run and keep an accuracy model there."""
    from ofa_deploy._files import exclusive
    from ofa_deploy.cli._workspace import accuracy_model, load_evaluator

    with exclusive(run):
        evaluator = load_evaluator(run, progress)
        model, _, _ = accuracy_model(evaluator, _SUBNETS, seed, progress)
        model.save(run / "accuracy.onnx")
