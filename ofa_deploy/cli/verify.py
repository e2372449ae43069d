"""``ofa-deploy verify``: does a bundle still do what it did where it was made?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._legend import VERIFIED
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    guarded,
    next_steps,
    progress,
    quoted,
    say,
)

if TYPE_CHECKING:
    from ofa_deploy.data import Images
    from ofa_deploy.export import Manifest, Rerun
    from ofa_deploy.terminal import Progress

__all__ = ["verify"]


@guarded
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, as export writes it.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Where the images are that the subnet was made with, to compare top-1 too: "
            "glyphs, a folder, or hf:PATH."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of each inference.")] = 1,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Check a bundle's hashes, and its gate again on this machine.

    Every file must be the one that the manifest names. Each target that can run here must give the
    logits that PyTorch gave for the probe, the made-up images that travel with the bundle, as
    nearly as its precision promises; with --data, its top-1 on the test set too. What export marked
    stays marked; what cannot run here is said to be not verified here. Exit 1 if a file is not the
    one that was exported, or a target differs or fails.
    """
    from ofa_deploy.errors import GateError
    from ofa_deploy.export import Bundle

    opened = Bundle.read(bundle)
    say(f"{len(opened.manifest.files)} files are those that the manifest names", quiet=quiet)
    for name in opened.unnamed:
        say(f"{name}: not in the manifest, and not looked at", quiet=quiet)
    test = None if data is None else _test_images(opened.manifest, data, progress(quiet))
    found = opened.rerun(test, threads=threads)
    emit(_rows(opened.manifest, found), output, meanings=VERIFIED)
    wrong = {name: each for name, each in found.items() if each.verdict in ("differs", "fails")}
    for name, each in found.items():
        for reason in each.reasons:
            say(f"{name}: {each.verdict}: {reason}", quiet=quiet and name not in wrong)
        for reason in _marks(opened.manifest, name):
            say(f"{name}: marked at export: {reason}", quiet=quiet)
    if wrong:
        raise GateError(
            f"{bundle}: {', '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not do here what "
            "was checked at export; do not use them on this machine"
        )
    if all(each.verdict == "not verified here" for each in found.values()):
        say("no target can run here: hashes alone were checked", quiet=quiet)
    elif test is None:
        where = quoted(opened.manifest.data)
        say(
            "top-1 was not compared; to compare it too, name the images that it was exported with: "
            f"ofa-deploy verify {quoted(bundle)} --data {where}, or where they are now",
            quiet=quiet,
        )
    next_steps(f"ofa-deploy bench {quoted(bundle)}", quiet=quiet)


def _rows(manifest: "Manifest", found: "Mapping[str, Rerun]") -> list[dict[str, object]]:
    """A row a target, without columns that say nothing of any."""
    rows = [_row(name, each, bool(_marks(manifest, name))) for name, each in found.items()]
    told = [column for column in rows[0] if any(row[column] is not None for row in rows)]
    return [{column: row[column] for column in told} for row in rows]


def _row(name: str, found: "Rerun", marked: bool) -> dict[str, object]:
    return {
        "target": name,
        "verdict": f"{found.verdict}, marked" if marked else found.verdict,
        "probe_difference": found.max_difference,
        "probe_sqnr_db": found.sqnr_db,
        "probe_sqnr_db_export": found.sqnr_db_then,
        "limit": found.limit or None,
        "test_top1": found.top1,
        "test_top1_export": found.top1_then,
    }


def _marks(manifest: "Manifest", name: str) -> tuple[str, ...]:
    """Why export marked a target."""
    record = manifest.targets[name]
    return record.reasons if record.status == "marked" else ()


def _test_images(manifest: "Manifest", data: str, bars: "Progress") -> "Images":
    """The test set that the bundle was checked on.

    Raises:
        MismatchError: if these images are others.
    """
    from ofa_deploy.cli._workspace import run_data
    from ofa_deploy.data import full_name
    from ofa_deploy.errors import MismatchError
    from ofa_deploy.space import SearchSpace

    space = SearchSpace.from_dict(manifest.space)
    splits = run_data(full_name(data), manifest.data_options, space, bars)
    if splits.digest != manifest.data_digest:
        raise MismatchError(
            f"{data}: other images ({splits.digest}) than the bundle was checked on "
            f"({manifest.data}, {manifest.data_digest}); leave --data out, or give those"
        )
    return splits.test
