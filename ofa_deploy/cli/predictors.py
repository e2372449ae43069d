"""``ofa-deploy predictors``: accuracy models, those of others too."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._options import QuietOption
from ofa_deploy.cli._output import guarded, next_steps, quoted, say, wrote
from ofa_deploy.cli._outputs import check_outputs

__all__ = ["app", "predictors"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def predictors() -> None:
    """Models of accuracy: import one that others published, show what one knows.

    Try: ofa-deploy predictors show RUN/accuracy.onnx.
    """


@app.command("import")
@guarded
def import_(
    path: Annotated[Path, typer.Argument(help="The predictor's checkpoint.")],
    form: Annotated[str, typer.Option("--from", help="Form of the file: ofa-mlp.")],
    space: Annotated[str, typer.Option(help="Search space, or a file NAME.toml.")],
    out: Annotated[Path, typer.Option(help="File to write, .onnx.")],
    resolutions: Annotated[
        str | None, typer.Option(help="Input sizes to keep; all that it knows if not given.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Make an accuracy model of a predictor that others published.

    ofa-mlp: once-for-all's for MobileNetV3 of width 1.2. It knows 160, 176, 192, 208 and 224
    pixels, and is optimistic: nothing it says was measured, and its error is unknown.

    Example: ofa-deploy predictors import --from ofa-mlp predictor.pth --space ofa-mbv3-w1.2
    --out ofa-mlp.onnx
    """
    from ofa_deploy.cli._workspace import with_resolutions
    from ofa_deploy.predict import MLP_RESOLUTIONS
    from ofa_deploy.space import get_space
    from ofa_deploy.supernet import import_accuracy_model

    check_outputs({"ONNX model": out})
    whole = get_space(space)
    chosen = with_resolutions(whole, resolutions)
    if resolutions is None and form == "ofa-mlp":
        chosen = whole.with_resolutions(*MLP_RESOLUTIONS)
        if left := [r for r in whole.resolutions if r not in MLP_RESOLUTIONS]:
            listed = ", ".join(map(str, left))
            say(f"left out, since it does not know them: {listed} pixels", quiet=quiet)
    model = import_accuracy_model(form, path, space=chosen)
    say(str(model), quiet=quiet)
    wrote(model.save(out), quiet=quiet)
    next_steps(
        f"ofa-deploy search --accuracy {quoted(out)} --table TABLE --constraint 'latency <= 25 ms' "
        "--no-verify",
        quiet=quiet,
    )


@app.command("show")
@guarded
def show(path: Annotated[Path, typer.Argument(help="An accuracy model, .onnx.")]) -> None:
    """What an accuracy model knows, and how far it can be trusted."""
    from ofa_deploy.predict import load_accuracy_model

    model = load_accuracy_model(path)
    space = model.space
    sizes = ", ".join(map(str, space.resolutions))
    typer.echo(f"space {space.name} at {sizes} pixels, {space.classes} classes")
    typer.echo(str(model))
    if not model.source:
        typer.echo(f"90 % interval: ± {model.margin:.2f} points")
