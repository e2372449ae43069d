"""The command line. Each command is a file of its own and imports what it needs when called."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._completion import CompletingGroup
from ofa_deploy.cli._output import say_error
from ofa_deploy.cli._streams import open_streams
from ofa_deploy.cli.adapt import adapt
from ofa_deploy.cli.bench import bench
from ofa_deploy.cli.compare import compare
from ofa_deploy.cli.devices import app as devices_app
from ofa_deploy.cli.devices import devices
from ofa_deploy.cli.doctor import doctor
from ofa_deploy.cli.evaluate import evaluate
from ofa_deploy.cli.export import export
from ofa_deploy.cli.plan import plan
from ofa_deploy.cli.predictors import app as predictors_app
from ofa_deploy.cli.predictors import predictors
from ofa_deploy.cli.profile import profile
from ofa_deploy.cli.quickstart import quickstart
from ofa_deploy.cli.run import run
from ofa_deploy.cli.search import search
from ofa_deploy.cli.show import show
from ofa_deploy.cli.spaces import spaces
from ofa_deploy.cli.specialize import specialize
from ofa_deploy.cli.tables import app as tables_app
from ofa_deploy.cli.tables import tables
from ofa_deploy.cli.train import train
from ofa_deploy.cli.verify import verify
from ofa_deploy.errors import OfaDeployError

__all__ = ["COMMANDS", "app", "main"]

# In the order in which a newcomer meets them.
COMMANDS = (
    quickstart,
    train,
    adapt,
    evaluate,
    profile,
    plan,
    search,
    specialize,
    export,
    verify,
    run,
    bench,
    compare,
    show,
    spaces,
    devices,
    tables,
    predictors,
    doctor,
)
_GROUPS = {devices: devices_app, tables: tables_app, predictors: predictors_app}

app = typer.Typer(
    cls=CompletingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    if command in _GROUPS:
        app.add_typer(_GROUPS[command], name=command.__name__)
    else:
        app.command()(command)


def _print_version(asked: bool) -> None:
    if asked:
        from ofa_deploy.cli._versions import version_text

        print(version_text())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version, and those of the libraries that compute; exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Train one once-for-all network, then find, export and prove the best subnet for a device.

    Try: ofa-deploy quickstart. Data goes to stdout, progress and messages to stderr.
    Exit codes: 0 done, 1 wrong input, 2 usage, 3 nothing feasible, 4 a device or runtime failed,
    130 interrupted, 141 nobody reads the result.
    """
    try:
        Path.cwd()  # libraries that cannot tell it fail each in a way of its own
    except OSError as error:
        say_error(
            f"expected a working folder, found none ({error.strerror}): it was removed or moved; "
            "change to one that is there, and run the command again"
        )
        raise typer.Exit(1) from None


def main() -> None:
    """Run the command that was asked for, and end as it ended, or as its result did."""
    # Threads that spin at a barrier starve whatever else runs, and themselves with it. Read when
    # torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    result = open_streams()
    ends = [_exit_code(app), _exit_code(sys.stdout.flush)]
    raise SystemExit(next(filter(None, ends), result.lost))


def _exit_code(work: Callable[[], object]) -> str | int | None:
    try:
        work()
    except SystemExit as ended:
        return ended.code
    except OfaDeployError as error:  # help, or the rest of a result, that could not be written
        say_error(str(error))
        return error.exit_code
    return 0
