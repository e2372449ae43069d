"""Reads damaged files, one after another, in a process with little memory and a watch.

    python -m tests.faults.corrupt_worker FORMAT FIRST COUNT [FORMAT FIRST COUNT ...]

Each case is drawn from its format and number alone. Before each, a line says which; after it, how
it went: ``refused`` in one line that names the file, ``accepted`` as what the file says, or else
what is wrong.
"""

import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ofa_deploy.errors import OfaDeployError
from tests.faults.binary_formats import binary_formats
from tests.faults.engine_formats import engine_formats
from tests.faults.formats import Format
from tests.faults.table_formats import table_formats
from tests.faults.text_formats import text_formats

__all__ = ["FORMATS", "MOST_MIB", "MOST_S", "all_formats", "damage", "verdict"]

MOST_MIB = 1024  # beyond what reading the valid file takes
MOST_S = 10.0
_SHARE_OF_PLACES = 0.05
_LONGEST = 64 * 2**20  # readers refuse far less


class Hung(BaseException):
    """A case took too long; no reader may catch it."""


def all_formats() -> dict[str, Callable[[], Format]]:
    return {**binary_formats(), **engine_formats(), **table_formats(), **text_formats()}


FORMATS = tuple(all_formats())


def _put(folder: Path, form: Format) -> None:
    for name, data in form.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _misplace(path: Path, draw: random.Random) -> str:
    """Something in the file's place that is none."""
    data = path.read_bytes()
    path.unlink()
    kind = draw.choice(("link", "loop", "link to folder", "zeros", "folder", "pipe", "nothing"))
    match kind:
        case "link":
            beside = path.parent.parent / f"elsewhere-{path.name}"
            beside.write_bytes(data)
            path.symlink_to(beside)
        case "loop":
            path.symlink_to(path.name)
        case "link to folder":
            path.symlink_to(path.parent)
        case "zeros":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    return kind


def damage(form: Format, number: int, folder: Path) -> str:
    """Put a damaged example into a folder; says in which way."""
    draw = random.Random(f"{form.name}/{number}")
    _put(folder, form)
    if form.is_file and draw.random() < _SHARE_OF_PLACES:
        return _misplace(folder / form.file, draw)
    way = draw.choice(sorted(form.ways))
    try:
        damaged = form.ways[way](form.files[form.file], draw)[:_LONGEST]
    except MemoryError:  # damage to damage may grow without end
        damaged = b"{" * _LONGEST
    (folder / form.file).write_bytes(damaged)
    return way


def verdict(form: Format, folder: Path, way: str) -> str:
    """``refused``, ``accepted``, or what is wrong."""
    try:
        value = form.read(folder)
    except Hung:
        return f"not read within {MOST_S:g} s"
    except OfaDeployError as error:
        text = str(error)
        if "\n" in text or len(text) > 4100 or not text.isprintable():
            return f"not one plain line: {text!r:.200}"
        if not any(name in text for name in (*map(_base, form.files), *form.names)):
            return f"does not name the file: {text!r:.200}"
        if _out_of_memory(error):
            return f"took more than {MOST_MIB} MiB: {text!r:.200}"
        return "refused"
    except BaseException as error:
        return _told(error)
    if way == "link" and not form.link:
        return "a link was followed"
    try:
        wrong = form.agrees(folder, value)
    except BaseException as error:
        return f"accepted, and not to be read otherwise: {_told(error)}"
    return wrong or "accepted"


def _base(name: str) -> str:
    return Path(name).name


def _told(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} in {place}: {error!s:.200}"


def _out_of_memory(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        said = str(seen).lower()
        if isinstance(seen, MemoryError) or "bad alloc" in said or "bad_alloc" in said:
            return True
        if "can't allocate memory" in said or "cannot allocate memory" in said:
            return True
        seen = seen.__context__
    return False


def _ring(*_: Any) -> None:
    raise Hung


def _own_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def _bounded() -> None:
    """From here on, this process may take so much more memory and no more."""
    limit = int((_own_mib("VmSize") + MOST_MIB) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _tell(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def run(name: str, first: int, count: int) -> None:
    """All cases of a format."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    form = all_formats()[name]()
    root = Path(tempfile.mkdtemp(prefix="ofa-deploy-faults-"))
    try:
        folder = root / "valid"
        _put(folder, form)
        value = form.read(folder)
        assert (wrong := form.agrees(folder, value)) is None, f"the valid file: {wrong}"
        _bounded()
        for number in range(first, first + count):
            _tell(format=name, case=number)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            way = damage(form, number, folder)
            began = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, MOST_S)
            faulthandler.dump_traceback_later(3 * MOST_S, exit=True)  # where no alarm wakes it
            try:
                found = verdict(form, folder, way)
            except Hung:
                found = f"not read within {MOST_S:g} s"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
            seconds = round(time.monotonic() - began, 3)
            _tell(format=name, case=number, way=way, found=found, seconds=seconds)
        _tell(format=name, peak_mib=round(_own_mib("VmHWM")))
    finally:
        with suppress(OSError):
            shutil.rmtree(root)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _ring)
    arguments = sys.argv[1:]
    for at in range(0, len(arguments), 3):
        run(arguments[at], int(arguments[at + 1]), int(arguments[at + 2]))


if __name__ == "__main__":
    main()
