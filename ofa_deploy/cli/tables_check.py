"""``ofa-deploy tables check``: is a table whole and plausible, and does it still hold?"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._legend import SENTINELS
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    guarded,
    next_steps,
    progress,
    quoted,
    say,
    wrote,
)
from ofa_deploy.cli._outputs import check_outputs

if TYPE_CHECKING:
    from ofa_deploy.hardware import Finding, LatencyTable
    from ofa_deploy.profiling import SentinelCheck
    from ofa_deploy.space import SearchSpace

__all__ = ["check", "profile_anew"]

_PAUSE_S = 15.0  # before sentinels are measured again beside other programs


@guarded
def check(
    file: Annotated[Path, typer.Argument(help="A latency table, as profile writes it.")],
    device: Annotated[
        str | None, typer.Option(help="Measure some blocks again, on this device.")
    ] = None,
    repair: Annotated[
        Path | None,
        typer.Option(help="With --device: write the table, rescaled to the device's speed now."),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Its space, where the table's name for it is not enough.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Or a training run, whose space it is.")] = None,
    resolutions: Annotated[
        str | None, typer.Option(help="Input sizes, such as 160,192,224, with --space.")
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            help="With --device: minutes in which to measure again while other programs are at "
            "work.",
        ),
    ] = 0,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Check a table: missing blocks, larger blocks that take less, outliers; does it still hold?

    Exit 1 if blocks are missing or wrong; what only looks odd is a warning. With --device, about
    ten blocks are measured again in seconds, in turns with the table's reference network. That
    tells a device that runs at another speed (clocks, heat; one factor repairs the table) from one
    whose blocks moved apart (driver, runtime; profile anew). Exit 1 if the table does not hold, 4
    if the device is too noisy to tell, also after --wait.

    Example: ofa-deploy tables check table.json --device local --repair repaired.json
    """
    from ofa_deploy.cli._workspace import chosen_space
    from ofa_deploy.errors import InputError
    from ofa_deploy.hardware import check_table, find_table, table_space

    if repair is not None and device is None:
        raise InputError("--repair needs --device, to know how fast the device runs now")
    check_outputs({"latency table": repair})
    table = find_table(str(file))
    given = (space, run, resolutions) != (None, None, None)
    named = (
        chosen_space(space, run, table.classes if space else None, resolutions) if given else None
    )
    of = table_space(table, named)
    findings = check_table(table, of)
    errors = [each for each in findings if each.error]
    if device is None:
        _show(findings, output)
    say(
        f"{len(table.blocks)} blocks: {len(errors)} errors, {len(findings) - len(errors)} warnings",
        quiet=quiet,
    )
    anew = profile_anew(table, of, run)
    if errors:
        mend = "import it anew" if table.source else f"profile anew: {anew}"
        raise InputError(f"{errors[0].block}: {errors[0].what}; {mend}")
    if device is None:
        named_file = quoted(file)
        again = f"check {named_file} --device {quoted(table.conditions.device)}"
        next_steps(
            f"ofa-deploy tables {f'show {named_file}' if table.source else again}", quiet=quiet
        )
        return
    _on_device(table, of, device, repair, wait, anew, output, quiet)


def _show(findings: "list[Finding]", output: OutputFormat) -> None:
    rows: list[dict[str, object]] = [
        {
            "finding": each.kind,
            "level": "error" if each.error else "warning",
            "block": each.block,
            "ms": each.ms,
            "what": each.what,
        }
        for each in findings
    ]
    emit(rows, output, title="findings" if rows else "nothing to object to")


def profile_anew(table: "LatencyTable", space: "SearchSpace", run: Path | None = None) -> str:
    """The command that measures such a table again."""
    c = table.conditions
    what = f"--run {quoted(run)}"
    if run is None:
        sizes = ",".join(map(str, space.resolutions))
        what = f"--space {quoted(table.space)} --classes {table.classes} --resolutions {sizes}"
    return (
        f"ofa-deploy profile {what} --device {quoted(c.device)} --runtime "
        f"{quoted(c.runtime)} --precision {quoted(c.precision)} --batch {c.batch} "
        f"--threads {c.threads}"
    )


def _on_device(
    table: "LatencyTable",
    space: "SearchSpace",
    device: str,
    repair: Path | None,
    wait: float,
    anew: str,
    output: OutputFormat,
    quiet: bool,
) -> None:
    from ofa_deploy.errors import MismatchError, NoisyDeviceError
    from ofa_deploy.hardware import load_device
    from ofa_deploy.profiling import changed_conditions, check_sentinels, open_target

    bars = progress(quiet)
    described = load_device(device)
    with open_target(described, progress=bars) as target:
        if changed := changed_conditions(table, device, mend="profile this one", target=target):
            now = ", ".join(changed)
            if repair is not None:
                raise MismatchError(
                    f"the table was made under other conditions (table, here): {now}; one factor "
                    f"does not repair that, and it would keep their names; profile anew: {anew}"
                )
            say(f"changed since the table was made (table, here): {now}", quiet=quiet)
        ends = time.monotonic() + 60 * wait
        while True:
            found = check_sentinels(table, space, target=target, device=described, progress=bars)
            if found.verdict != "unsure" or time.monotonic() + _PAUSE_S > ends:
                break
            say(f"{found}; measuring again in {_PAUSE_S:g} s", quiet=quiet)
            time.sleep(_PAUSE_S)
    _show_sentinels(found, output)
    if found.verdict == "unsure":
        raise NoisyDeviceError(
            f"{found}: nothing is known against the table; end what else runs, or add --wait 10 "
            "to measure again for so many minutes"
        )
    say(str(found), quiet=quiet)
    if found.verdict == "apart":
        raise MismatchError(f"the table no longer holds on {device}; profile anew: {anew}")
    if found.verdict == "rescaled" and repair is None:
        raise MismatchError(
            f"the table is off by the factor {found.scale:.4g} on {device}; run again with "
            "--repair FILE to write it rescaled, or look for what slows the device down"
        )
    if repair is not None and found.verdict == "rescaled":
        written = table.scaled(found.scale).save(repair)
        wrote(written, quiet=quiet)
        next_steps(f"ofa-deploy tables show {quoted(written)}", quiet=quiet)
    elif repair is not None:
        say("nothing to repair, nothing written", quiet=quiet)


def _show_sentinels(found: "SentinelCheck", output: OutputFormat) -> None:
    rows: list[dict[str, object]] = [
        {
            "block": each.block,
            "table_ms": each.table_ms,
            "now_ms": each.now_ms,
            "ratio": each.ratio,
            "moved": round(each.moved, 4),
            "noise": round(each.noise, 4),
            "beyond": "yes" if each.beyond_noise else "no",
        }
        for each in found.sentinels
    ]
    emit(rows, output, title=f"sentinels; ratio in common {found.scale:.4g}", meanings=SENTINELS)
