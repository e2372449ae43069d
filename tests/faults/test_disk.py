"""Full and read-only disks, files that vanish, clocks that go back, links, a second process.

Each gives one line, or no trouble at all; after the mend the same command works, and ends as if
nothing had happened.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ofa_deploy.files import Journal, exclusive
from tests.faults.disks import FILE_BYTES, VANISH, Outcome, clock_back, full_disk, vanished
from tests.faults.injection import Commands, Done
from tests.faults.killing import COMMANDS, World, differences, sampled

Amount = Callable[[int], int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    with Commands() as commands:
        yield World(tmp_path_factory.mktemp("world"), commands)


def mended(world: World, name: str, work: Path) -> None:
    """The same command works now, and nothing was lost."""
    done = world.run(*COMMANDS[name], cwd=work)
    assert done.code == 0, done.stderr
    assert differences(work, world.after(name)) == []


# -- full disks -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file_bytes"), [("evaluate", 1_000)])
def test_full_disk_is_said_and_survived(world: World, name: str, file_bytes: int) -> None:
    assert full_disk(world, name, file_bytes) == Outcome(True, [])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", COMMANDS)
def test_disk_that_is_full_at_any_size(world: World, name: str) -> None:
    found = {size: full_disk(world, name, size) for size in FILE_BYTES}
    assert {size: each.problems for size, each in found.items() if each.problems} == {}
    assert found[0].refused and found[300].refused


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A small disk of its own in a folder; yields a way to change its options."""
    folder.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("needs root and mount")

    def mount(*args: str) -> None:
        command = ["mount", *args]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()}")

    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield lambda options: mount("-o", f"remount,{options}", str(folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(world: World, tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder beside the photos that is a disk of 32 MiB."""
    folder = world.folder / f"disk-{tmp_path.name}"
    with mounted(folder, "32m") as remount:
        yield folder, remount


Disk = tuple[Path, Callable[[str], None]]


def filled(disk: Path, left: int) -> Path:
    """A file that leaves so many bytes of a disk."""
    free = shutil.disk_usage(disk).free
    filler = disk / ".filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - left, 1))
    return filler


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("evaluate", 0),
        pytest.param("train", 100_000, marks=pytest.mark.slow),
        pytest.param("train", 0, marks=pytest.mark.slow),
        pytest.param("profile", 0, marks=pytest.mark.slow),
        pytest.param("search", 0, marks=pytest.mark.slow),
        pytest.param("search", 20_000, marks=pytest.mark.slow),
        pytest.param("export", 10_000, marks=pytest.mark.slow),
        pytest.param("specialize", 100_000, marks=pytest.mark.slow),
    ],
)
def test_disk_that_really_is_full(world: World, disk: Disk, name: str, left: int) -> None:
    folder, _ = disk
    shutil.copytree(world.fresh(name), folder, dirs_exist_ok=True)
    filler = filled(folder, left)
    done = world.run(*COMMANDS[name], cwd=folder)
    assert "disk is full" in done.error() or "No space left" in done.error()
    filler.unlink()
    mended(world, name, folder)


@pytest.mark.parametrize(
    "name",
    [
        "evaluate",
        *(pytest.param(n, marks=pytest.mark.slow) for n in COMMANDS if n != "evaluate"),
    ],
)
def test_disk_that_is_read_only(world: World, disk: Disk, name: str) -> None:
    folder, remount = disk
    shutil.copytree(world.fresh(name), folder, dirs_exist_ok=True)
    remount("ro")
    assert "Read-only file system" in world.run(*COMMANDS[name], cwd=folder).error()
    remount("rw")
    mended(world, name, folder)


# -- files that vanish ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "what"), [("evaluate", "r/evaluations.jsonl")])
def test_file_that_vanishes_meanwhile(world: World, name: str, what: str) -> None:
    (point,) = sampled(1, len(world.undisturbed(name).points), seed=3)
    assert vanished(world, name, what, point).problems == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("name", "what"), [(n, w) for n in VANISH for w in VANISH[n]])
def test_anything_may_vanish(world: World, name: str, what: str, amount: Amount) -> None:
    total = len(world.undisturbed(name).points)
    points = sampled(max(4, amount(100) // 20), total, seed=5)
    found = {point: vanished(world, name, what, point).problems for point in points}
    assert {point: problems for point, problems in found.items() if problems} == {}


# -- the clock ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "evaluate",
        *(pytest.param(n, marks=pytest.mark.slow) for n in COMMANDS if n != "evaluate"),
    ],
)
def test_clock_that_goes_back_changes_nothing(world: World, name: str) -> None:
    assert clock_back(world, name) == Outcome(False, [])


# -- a second process -----------------------------------------------------------------------

HELD = {"train": "r", "evaluate": "r", "profile": "latency_tables/local", "search": "r"}


@pytest.mark.parametrize("name", ["evaluate"])
def test_second_process_is_sent_away(world: World, name: str) -> None:
    work = world.fresh(name)
    with exclusive(work / HELD[name]):
        said = world.run(*COMMANDS[name], cwd=work).error()
    assert f"{HELD[name]}: another ofa-deploy is at work there" in said
    mended(world, name, work)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "profile", "search", "specialize"])
def test_second_process_is_sent_away_from_any(world: World, name: str) -> None:
    work, held = world.fresh(name), {**HELD, "specialize": "s"}[name]
    with exclusive(work / held):
        said = world.run(*COMMANDS[name], cwd=work).error()
    assert f"{held}: another ofa-deploy is at work there" in said
    mended(world, name, work)


# -- links ----------------------------------------------------------------------------------
# A link to a file is replaced by a file, and what it led to stays as it was; a link to a folder is
# followed, since a run may lie on another disk; of leftovers, no link is one.


def linked(path: Path, target: Path) -> bytes:
    """Move a file elsewhere and leave a link to it; what it says."""
    path.rename(target)
    path.symlink_to(target)
    return target.read_bytes()


def test_link_to_a_file_is_replaced_and_its_target_kept(world: World, tmp_path: Path) -> None:
    work = world.fresh("evaluate")
    names = ("evaluations.jsonl", "run.json")
    before = {name: linked(work / "r" / name, tmp_path / name) for name in names}
    dangling = work / "r" / "evaluations.csv"
    dangling.symlink_to(tmp_path / "nowhere.csv")
    mended(world, "evaluate", work)
    for name in names:
        assert (tmp_path / name).read_bytes() == before[name]
    assert not (work / "r" / "evaluations.jsonl").is_symlink()
    assert not dangling.is_symlink() and not (tmp_path / "nowhere.csv").exists()


def test_journal_that_is_a_link_becomes_a_file(tmp_path: Path) -> None:
    Journal(tmp_path / "target", {"a": 1}).append({"b": 1})
    before = (tmp_path / "target").read_bytes()
    (tmp_path / "journal").symlink_to(tmp_path / "target")
    made = Journal(tmp_path / "journal", {"a": 1})
    made.append({"b": 2})
    assert made.records == [{"b": 1}, {"b": 2}]
    assert (tmp_path / "target").read_bytes() == before
    assert Journal(tmp_path / "journal", {"a": 1}).records == made.records


def test_run_that_is_a_link_to_a_folder_is_followed(world: World, tmp_path: Path) -> None:
    work = world.fresh("evaluate")
    (work / "r").rename(tmp_path / "elsewhere")
    (work / "r").symlink_to(tmp_path / "elsewhere")
    done = world.run(*COMMANDS["evaluate"], cwd=work)
    assert done.code == 0, done.stderr
    assert (work / "r").is_symlink()
    assert differences(tmp_path / "elsewhere", world.after("evaluate") / "r") == []


def test_lock_that_is_a_link_harms_nothing(world: World, tmp_path: Path) -> None:
    work = world.fresh("evaluate")
    lock = work / "r" / ".lock"
    lock.unlink(missing_ok=True)
    (tmp_path / "precious").write_text("precious")
    lock.symlink_to(tmp_path / "precious")
    done = world.run(*COMMANDS["evaluate"], cwd=work)
    assert (tmp_path / "precious").read_text() == "precious"
    assert ".lock" in done.error() or "cannot lock" in done.error()
    lock.unlink()
    mended(world, "evaluate", work)


@pytest.mark.slow
def test_bundle_that_is_a_link_is_replaced_and_its_target_kept(
    world: World, tmp_path: Path
) -> None:
    work = world.fresh("export")
    out = work / "bundles" / "best"
    out.rename(tmp_path / "bundle")
    out.symlink_to(tmp_path / "bundle")
    before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    mended(world, "export", work)
    assert not out.is_symlink()
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before


@pytest.mark.slow
def test_bundle_that_is_a_link_to_nowhere_is_refused(world: World, tmp_path: Path) -> None:
    work = world.fresh("export")
    out = work / "bundles" / "best"
    shutil.rmtree(out)
    out.symlink_to(tmp_path / "nowhere")
    done: Done = world.run(*COMMANDS["export"], cwd=work)
    assert "bundles/best: a link that leads nowhere; remove it" in done.error()
    assert not (tmp_path / "nowhere").exists()
