"""The main job on a tiny space, each command killed somewhere, given again, and compared.

``World`` does the job once, undisturbed, and keeps the folder before and after each command.
``World.killed`` ends a command in a copy of the folder before it, gives the same command again and
says how the outcome differs from the undisturbed one: ``EQUAL`` says what that means for each file.
"""

import fnmatch
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from tests.faults.injection import Commands, Done, Fault, left_behind

__all__ = ["COMMANDS", "EQUAL", "SPACE", "World", "differences", "make_photos", "sampled"]

SPACE = """
resolutions = [12, 16]
classes = 3
stem = { channels = 8 }
head = { channels = 16, features = 16 }

[[stages]]
channels = 8
stride = 2
depths = [1, 2]
kernels = [3, 5]
expands = [1, 2]
activation = "relu"

[[stages]]
channels = 16
stride = 2
depths = [1, 2]
kernels = [3]
expands = [1, 2]
se = true
"""
_SMALL = ("--threads", 1, "--quiet")
_SUBNET = "r/subnets/best.subnet.json"
COMMANDS: dict[str, tuple[object, ...]] = {
    "train": (
        *("train", "--data", "../photos", "--space", "tiny.toml", "--run", "r"),
        *("--epochs", 2, "--batch", 32, "--calibration", 32, *_SMALL),
    ),
    "evaluate": ("evaluate", "r", "--subnets", 10, *_SMALL),
    "profile": (
        *("profile", "--run", "r", "--out", "tables/mine.json", "--minutes", 0.1),
        *("--calibration", 8, "--holdout", 9, *_SMALL),
    ),
    "search": (
        *("search", "--run", "r", "--table", "tables/mine.json"),
        *("--constraint", "latency <= 1 ms", "--quiet"),
    ),
    # What is there already is a bundle from before: it must never be lost.
    "export": (
        *("export", _SUBNET, "--out", "bundles/best", "--target", "onnx,torch-export"),
        *("--overwrite", "--no-measure", "--quiet"),
    ),
    "specialize": (
        *("specialize", _SUBNET, "--method", "edst", "--run", "s", "--scale", 0.05),
        *("--set", "batch=16", "--set", "calibration=32", "--set", "members=2"),
        *("--corrupted-images", 4, *_SMALL),
    ),
}

Equal = Callable[[Path, Path], str]  # what differs, or nothing


def _bytes(one: Path, other: Path) -> str:
    return "" if one.read_bytes() == other.read_bytes() else "other bytes"


_VOLATILE = {"others", "telemetry", "check"}  # what else ran meanwhile, and a hash of it all


def _records(journal: Path) -> list[str]:
    return [
        json.dumps({k: v for k, v in json.loads(line).items() if k not in _VOLATILE})
        for line in journal.read_text().splitlines()
    ]


def _journal(one: Path, other: Path) -> str:
    found, wanted = _records(one), _records(other)
    if len(set(found)) < len(found):
        return "a record stands twice"
    return "" if found == wanted else "other records"


def _some_records(one: Path, other: Path) -> str:
    """Of what stands in the one, each stands in the other."""
    found, wanted = _records(one), _records(other)
    if len(set(found)) < len(found):
        return "a record stands twice"
    return "" if found and set(found) <= set(wanted) else "other records"


def _same_entries(one: Path, other: Path) -> str:
    """Of a table that was really timed: the same blocks and networks, whatever their times."""
    found, wanted = (json.loads(path.read_text()) for path in (one, other))
    for table in (found, wanted):
        table["networks"] = [(each["arch"], each["role"]) for each in table["networks"]]
        table["blocks"] = sorted(table["blocks"])
    same = all(found[key] == wanted[key] for key in ("networks", "blocks", "fingerprint"))
    return "" if same else "other entries"


def _json_but(*volatile: str) -> Equal:
    """The same but for some fields, by name."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in volatile}
        return [without(each) for each in value] if isinstance(value, list) else value

    def equal(one: Path, other: Path) -> str:
        read = [without(json.loads(path.read_text())) for path in (one, other)]
        return "" if read[0] == read[1] else "other values"

    return equal


def _present(one: Path, other: Path) -> str:
    return ""


# What 'equal' means, by path; the first that matches holds. A file that matches none, or that only
# one of the two folders has, is a difference.
EQUAL: tuple[tuple[str, Equal], ...] = (
    ("*/.lock", _present),  # the file; that nobody holds it is looked at apart
    ("*/events/*", _present),  # TensorBoard's: a file a start, later ones supersede
    ("*.jsonl", _journal),
    ("tables/mine.json", _json_but("date", "other_load", "telemetry")),  # what else ran then
    ("bundles/best/manifest.json", _json_but("date", "build_s", "files")),  # the card has the date
    ("bundles/best/README.md", _present),
    ("*", _bytes),
)
_TIMED: tuple[tuple[str, Equal], ...] = (("tables/mine.json", _same_entries),)
_MAY_BE_MORE = "*/events/*"


def differences(found: Path, wanted: Path, *, timed: bool = False, fewer: str = "") -> list[str]:
    """What in one folder is not as in the other.

    Args:
        timed: the tables were really measured, and so hold other times.
        fewer: a journal that need not have all records.
    """
    table = (*_TIMED, *EQUAL) if timed else EQUAL
    table = ((fewer, _some_records), *table) if fewer.endswith(".jsonl") else table
    there, expected = ({str(p.relative_to(f)): p for p in _files(f)} for f in (found, wanted))
    extra = [n for n in there if n not in expected and not fnmatch.fnmatch(n, _MAY_BE_MORE)]
    missing = [n for n in expected if n not in there and not fnmatch.fnmatch(n, _MAY_BE_MORE)]
    said = [f"{name}: left over" for name in extra] + [f"{name}: missing" for name in missing]
    for name in sorted(there.keys() & expected.keys()):
        equal = next(equal for pattern, equal in table if fnmatch.fnmatch(name, pattern))
        if difference := equal(there[name], expected[name]):
            said.append(f"{name}: {difference}")
    for lock in found.rglob(".lock"):
        try:
            FileLock(lock).acquire(timeout=0).lock.release()
        except Timeout:
            said.append(f"{lock}: still held")
    return said


def _files(folder: Path) -> Iterator[Path]:
    """All files below, and folders with nothing in them."""
    for path in folder.rglob("*"):
        if not path.is_dir() or path.is_symlink() or not any(path.iterdir()):
            yield path


def make_photos(folder: Path) -> Path:
    """90 noisy images of three colours that are hard to tell apart."""
    rng = np.random.default_rng(5)
    colours = {"moss": (90, 130, 90), "rust": (130, 90, 90), "slate": (95, 95, 125)}
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.array(colour) + rng.normal(0, 20, 3) + rng.normal(0, 50, (16, 16, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / name / f"{i:02}.png")
    return folder


def sampled(count: int, of: int, seed: int) -> list[int]:
    """Some points of all, the same each time."""
    return sorted(random.Random(seed).sample(range(of), min(count, of)))


@dataclass
class World:
    """The main job, done once, as far as it was asked for.

    Attributes:
        folder: that holds all: photos, the folder before and after each command.
    """

    folder: Path
    run: Commands
    _done: dict[str, Done] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        make_photos(self.folder / "photos")
        start = self.folder / "after-nothing"
        start.mkdir()
        (start / "tiny.toml").write_text(SPACE)

    def before(self, name: str) -> Path:
        """The folder that a command finds."""
        names = ["nothing", *COMMANDS]
        earlier = names[names.index(name) - 1]
        if earlier != "nothing":
            self.undisturbed(earlier)
        own = self.folder / f"before-{name}"  # with what the command is to replace
        return own if own.exists() else self.folder / f"after-{earlier}"

    def after(self, name: str) -> Path:
        """The folder that a command leaves."""
        self.undisturbed(name)
        return self.folder / f"after-{name}"

    def undisturbed(self, name: str) -> Done:
        """How a command went."""
        if name not in self._done:
            work = shutil.copytree(self.before(name), self.folder / f"after-{name}")
            done = self.run(*COMMANDS[name], cwd=work)
            assert done.code == 0, done.stderr
            if name == "export":  # again, so that there is a bundle to lose
                shutil.copytree(work, self.folder / "before-export")
                done = self.run(*COMMANDS[name], cwd=work)
            self._done[name] = done
        return self._done[name]

    def fresh(self, name: str) -> Path:
        """A copy of the folder that a command finds, to be spoiled."""
        self.undisturbed(name)
        self._count += 1
        return Path(shutil.copytree(self.before(name), self.folder / f"copy-{self._count}"))

    def killed(self, name: str, fault: Fault) -> list[str]:
        """What was lost or is left over after a kill and the same command again."""
        work = self.fresh(name)
        first = self.run(*COMMANDS[name], cwd=work, fault=fault)
        if fault.kill_at is not None and not first.killed:
            return [f"was not killed but ended with {first.code}: {first.stderr[-300:]}"]
        if not first.killed and first.code:  # at a random time it may just have ended
            return [f"failed: {first.stderr[-300:]}"]
        said = [f"outlived it: {each}" for each in left_behind(first.session)]
        if name == "export" and not (work / "bundles" / "best").exists():
            said += _rescued(work)
        exact = Fault(exact=fault.exact)
        again = self.run(*COMMANDS[name], cwd=work, fault=exact)
        if again.code:
            said.append(f"again: exit {again.code}: {again.stderr[-300:]}")
        said += differences(work, self.after(name), timed=not fault.exact)
        if not said:
            shutil.rmtree(work)
        return said


def _rescued(work: Path) -> list[str]:
    """The bundle from before must be somewhere while there is no new one."""
    kept = [path for path in (work / "bundles").rglob("manifest.json")]
    return [] if kept else ["the bundle from before is lost"]
