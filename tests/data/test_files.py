"""Images on disk: what they share with those in memory, and what they do with bad files."""

import importlib
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ofa_deploy.data import DataSplits, ImageFiles, ImageSet, image_folder, load_data
from ofa_deploy.errors import InputError

files_module: Any = importlib.import_module("ofa_deploy.data.files")
splits_module: Any = importlib.import_module("ofa_deploy.data.splits")

SIZE = 4
COUNTS = {"blue": 9, "green": 6, "red": 12}


def fill(folder: Path, counts: dict[str, int]) -> Path:
    """Images that differ from one another: the class in red, the number in green."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (5, 5), (label, i, 200)).save(folder / name / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("shared"), COUNTS)


@pytest.fixture(scope="module")
def stored(shared: Path) -> ImageFiles:
    return image_folder(shared, size=SIZE)


@pytest.fixture(scope="module")
def memory(stored: ImageFiles) -> ImageSet:
    return stored.in_memory()


class Said:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps = 0

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator["Said"]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps

    def say(self, message: str) -> None:
        self.lines.append(message)


def spoil(*paths: Path) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:40])


# -- the same as in memory ------------------------------------------------------------------


def test_pixels_are_those_of_the_files(stored: ImageFiles, memory: ImageSet) -> None:
    assert (len(stored), stored.size, stored.classes) == (27, SIZE, ("blue", "green", "red"))
    assert stored.memory == memory.images.nbytes
    expected = [(label, i, 200) for label, n in enumerate(COUNTS.values()) for i in range(n)]
    assert [tuple(image) for image in memory.images[:, :, 0, 0].tolist()] == expected


def same(one: ImageFiles, other: ImageSet) -> None:
    assert len(one) == len(other)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.batch(slice(None)), other.batch(slice(None)))


@given(indices=st.lists(st.integers(-27, 26), max_size=40))
def test_any_indices_give_what_memory_gives(
    stored: ImageFiles, memory: ImageSet, indices: list[int]
) -> None:
    chosen = np.array(indices, dtype=np.int64)
    np.testing.assert_array_equal(stored.batch(chosen), memory.batch(chosen))
    same(stored.take(chosen), memory.take(chosen))


@given(held_out=st.integers(1, 26), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_splits_of_splits_are_those_of_memory(
    stored: ImageFiles, memory: ImageSet, held_out: int, seed: int, data: st.DataObject
) -> None:
    for one, other in zip(
        stored.split(held_out, seed=seed), memory.split(held_out, seed=seed), strict=True
    ):
        same(one, other)
        if len(one) > 1:
            fewer = data.draw(st.integers(1, len(one) - 1))
            same(one.split(fewer, seed=1)[1], other.split(fewer, seed=1)[1])


def test_split_that_leaves_nothing_is_refused(stored: ImageFiles) -> None:
    with pytest.raises(InputError, match="cannot hold out 27 of 27"):
        stored.split(27, seed=0)


def test_labels_must_fit(stored: ImageFiles) -> None:
    with pytest.raises(InputError, match="expected 27 int64 labels"):
        ImageFiles(stored.source, stored.rows, stored.labels[:3], stored.classes, SIZE)
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.1"):
        ImageFiles(stored.source, stored.rows, stored.labels, ("a", "b"), SIZE)


@pytest.mark.parametrize("threads", [1, 4])
def test_number_of_threads_does_not_matter(
    stored: ImageFiles, memory: ImageSet, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_THREADS", threads)
    seen: set[int] = set()
    decode = files_module.decode

    def seeing(*arguments: Any) -> Any:
        seen.add(threading.get_ident())
        return decode(*arguments)

    monkeypatch.setattr(files_module, "decode", seeing)
    before = threading.active_count()
    order = np.random.default_rng(0).permutation(27)
    np.testing.assert_array_equal(stored.batch(order), memory.batch(order))
    assert (threading.get_ident() in seen) == (threads == 1)
    assert len(seen) <= threads and threading.active_count() == before


def test_set_goes_to_other_processes(stored: ImageFiles, memory: ImageSet) -> None:
    same(pickle.loads(pickle.dumps(stored.take([3, 1]))), memory.take([3, 1]))


# -- which of the two it becomes ------------------------------------------------------------


def test_what_does_not_fit_stays_on_disk(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_data(str(shared), size=SIZE)
    said = Said()
    monkeypatch.setattr(splits_module, "_MAX_BYTES", 27 * 3 * SIZE**2 - 1)
    large = load_data(str(shared), size=SIZE, progress=said)
    for part in ("train", "validation", "test"):
        one, other = getattr(large, part), getattr(small, part)
        assert isinstance(one, ImageFiles) and isinstance(other, ImageSet)
        same(one, other)
    calibration = large.calibration(5)
    assert isinstance(calibration, ImageFiles)
    np.testing.assert_array_equal(calibration.batch([0, 4]), small.calibration(5).batch([0, 4]))
    assert len(said.lines) == 1 and "stay on disk" in said.lines[0] and said.steps == 0


def test_limit_is_what_fits_and_counts_only_what_is_used(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits_module, "_MAX_BYTES", 27 * 3 * SIZE**2)
    assert isinstance(load_data(str(shared), size=SIZE).train, ImageSet)
    assert isinstance(load_data(str(shared), size=SIZE + 1).train, ImageFiles)
    few = load_data(str(shared), size=SIZE + 1, train=10, test=3)
    assert isinstance(few.train, ImageSet) and (len(few.train), len(few.test)) == (9, 3)


def test_limit_is_two_gibibytes() -> None:
    assert splits_module._MAX_BYTES == 2 * 2**30


# -- the digest -----------------------------------------------------------------------------


def digest(images: ImageFiles) -> str:
    return DataSplits("name", images, images.take([0]), images.take([1])).digest


def test_digest_is_of_names_sizes_and_labels(tmp_path: Path) -> None:
    first = image_folder(fill(tmp_path / "a", COUNTS), size=SIZE)
    before = digest(first)
    moved = fill(tmp_path / "b" / "elsewhere", COUNTS)
    assert digest(image_folder(moved, size=SIZE)) == before == digest(first)
    assert digest(image_folder(moved, size=SIZE + 1)) != before
    path = moved / "red" / "003.png"
    path.write_bytes(path.read_bytes() + b"x")
    assert digest(image_folder(moved, size=SIZE)) != before
    path.write_bytes(path.read_bytes()[:-1])
    path.rename(path.with_name("0031.png"))
    renamed = image_folder(moved, size=SIZE)
    assert digest(renamed) != before
    relabelled = ImageFiles(
        first.source, first.rows, (first.labels + 1) % 3, first.classes, first.size
    )
    assert len({before, digest(renamed), digest(relabelled), digest(first.take([1, 0]))}) == 4


def test_digest_reads_no_image(tmp_path: Path) -> None:
    images = image_folder(fill(tmp_path, COUNTS), size=SIZE)
    before = digest(images)
    path = tmp_path / "red" / "003.png"
    path.write_bytes(bytes(path.stat().st_size))
    assert digest(images) == before


def test_file_that_vanished_is_named(tmp_path: Path) -> None:
    images = image_folder(fill(tmp_path, COUNTS), size=SIZE)
    (tmp_path / "red" / "003.png").unlink()
    for act in (lambda: digest(images), lambda: images.batch(slice(None))):
        with pytest.raises(InputError, match=r"red/003\.png: "):
            act()


# -- bad files ------------------------------------------------------------------------------


def test_bad_file_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    images = image_folder(fill(tmp_path, COUNTS), size=SIZE)
    spoil(tmp_path / "blue" / "002.png", tmp_path / "red" / "011.png")
    assert len(images.batch([0, 1, 3])) == 3
    with pytest.raises(InputError, match=r"red/011\.png: not a readable image"):
        images.batch([3, 26, 2])  # the first of the batch, not of the folder


def test_bad_files_are_skipped_and_counted(tmp_path: Path) -> None:
    images = image_folder(fill(tmp_path, COUNTS), size=SIZE)
    good = images.in_memory()
    spoil(*(tmp_path / "blue" / f"{i:03}.png" for i in (2, 4, 7)))
    left = np.delete(np.arange(27), [2, 4, 7])
    line = f"skipped 3 unreadable images, the first: {tmp_path}/blue/002.png: not a readable image"
    readers: list[Callable[[Said], ImageFiles | ImageSet]] = [
        lambda said: images.in_memory(skip_bad=True, progress=said),
        lambda said: images.without_bad(progress=said),
    ]
    for read in readers:
        said = Said()
        kept = read(said)
        np.testing.assert_array_equal(kept.labels, good.labels[left])
        np.testing.assert_array_equal(kept.batch(slice(None)), good.images[left])
        assert len(said.lines) == 1 and said.lines[0].startswith(line)
        assert said.steps == 27


def test_one_bad_file_is_singular_and_none_is_silent(tmp_path: Path) -> None:
    images = image_folder(fill(tmp_path, COUNTS), size=SIZE)
    said = Said()
    assert len(images.in_memory(skip_bad=True, progress=said)) == 27 and not said.lines
    spoil(tmp_path / "red" / "000.png")
    assert len(images.in_memory(skip_bad=True, progress=said)) == 26
    assert said.lines[0].startswith("skipped 1 unreadable image, the first: ")


@pytest.mark.parametrize("limit", [2**20, 0])
def test_data_with_bad_files(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits_module, "_MAX_BYTES", limit)
    fill(tmp_path, COUNTS)
    spoil(*(tmp_path / "red" / f"{i:03}.png" for i in range(8)))
    if limit:
        with pytest.raises(InputError, match=r"red/00\d\.png: not a readable image"):
            load_data(str(tmp_path), size=SIZE)
    data = load_data(str(tmp_path), size=SIZE, skip_bad=True)
    parts = (data.train, data.validation, data.test)
    assert sum(map(len, parts)) == 27 - 8
    counts = [np.bincount(part.labels, minlength=3) for part in parts]
    assert np.sum(counts, axis=0).tolist() == [9, 6, 4]
    for part in parts:
        assert part.batch(slice(None)).shape == (len(part), 3, SIZE, SIZE)


@pytest.mark.parametrize("limit", [2**20, 0])
def test_class_of_bad_files_only_is_refused(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits_module, "_MAX_BYTES", limit)
    fill(tmp_path, COUNTS)
    spoil(*(tmp_path / "green").iterdir())
    with pytest.raises(InputError, match="no readable images for class green; mend"):
        load_data(str(tmp_path), size=SIZE, skip_bad=True)
