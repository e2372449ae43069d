"""What to give where a folder was given for a file: those of its kind that are in it."""

from itertools import islice
from pathlib import Path

from ofa_deploy.cli._output import quoted
from ofa_deploy.errors import InputError

__all__ = ["refuse_folder"]

_LISTED, _LOOKED_AT = 5, 200


def refuse_folder(path: Path, what: str, within: str, *kinds: str) -> None:
    """See that a file was named, not a folder such as a run.

    Args:
        what: the files are, such as ``fronts``.
        within: the folder of a run that they lie in.
        kinds: how their names end.

    Raises:
        InputError: naming the files of these kinds in it.
    """
    if not path.is_dir():
        return
    patterns = [f"{folder}*{kind}" for kind in kinds for folder in ("", f"{within}/")]
    found = sorted(file for pattern in patterns for file in islice(path.glob(pattern), _LOOKED_AT))
    if not found:
        raise InputError(f"{path}: a folder without {what}; expected a file, NAME{kinds[0]}")
    more = ", …" if len(found) > _LISTED else ""
    listed = ", ".join(map(quoted, found[:_LISTED])) + more
    raise InputError(f"{path}: a folder; give one of its {what}: {listed}")
