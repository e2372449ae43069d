"""What was taken for a bundle and is none: what it is, and what to do next."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from shlex import quote

from ofa_deploy.errors import InputError
from ofa_deploy.export.manifest import MANIFEST
from ofa_deploy.export.probe import PROBE

__all__ = ["not_a_bundle"]

_SUBNET = ".subnet.json"
_LISTED = 5  # bundles or subnets that are named
_LOOKED_AT = 200


def not_a_bundle(path: Path) -> InputError:
    """The error to raise where a folder without a manifest, a file or nothing was given."""
    if not path.exists():
        return InputError(f"{path}: no such bundle; expected a folder with {MANIFEST}")
    return InputError(f"{path}: {_folder(path) if path.is_dir() else _file(path)}")


def _file(path: Path) -> str:
    if (path.parent / MANIFEST).is_file():
        return f"a file of a bundle, not its folder; give that: {quote(str(path.parent))}"
    if path.name.endswith(_SUBNET):
        return f"a subnet, not a bundle; make one of it: {_exported(path)}"
    if path.name.endswith(".front.json"):
        return f"a Pareto front, not a bundle; look at it: ofa-deploy compare {quote(str(path))}"
    return f"a file, not a bundle; expected a folder with {MANIFEST}, as ofa-deploy export writes"


def _folder(path: Path) -> str:
    """Of a run: its bundles if it has some, else the subnets to make them of."""
    if (path / PROBE).is_file():
        return f"{MANIFEST} is missing; the bundle is incomplete, copy or export it again"
    is_run = (path / "run.json").is_file()
    what = "a run, not a bundle" if is_run else f"not a bundle: no {MANIFEST} in it"
    for pattern in (f"*/{MANIFEST}", f"bundles/*/{MANIFEST}"):
        if found := _found(path, pattern, lambda file: quote(str(file.parent))):
            return f"{what}; give one of its bundles: {', '.join(found)}"
    for pattern in (f"*{_SUBNET}", f"subnets/*{_SUBNET}"):
        if found := _found(path, pattern, _exported):
            return f"{what}; make one of a subnet in it: {found[0]}"
    if is_run:
        return f"{what}; find a subnet first: ofa-deploy search --run {quote(str(path))}"
    return f"{what}; make one with: ofa-deploy export NAME{_SUBNET} --out bundles/NAME"


def _found(folder: Path, pattern: str, said: Callable[[Path], str]) -> Sequence[str]:
    """Some files of a folder, each as it is to be told."""
    files = sorted(islice(folder.glob(pattern), _LOOKED_AT))
    more = ["…"] if len(files) > _LISTED else []
    return [*(said(file) for file in files[:_LISTED]), *more]


def _exported(subnet: Path) -> str:
    out = Path("bundles") / subnet.name.removesuffix(_SUBNET)
    return f"ofa-deploy export {quote(str(subnet))} --out {quote(str(out))}"
