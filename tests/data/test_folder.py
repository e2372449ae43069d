"""Folders of images: what is read, what is refused, and how it becomes three sets."""

import errno
import importlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ofa_deploy.data import Images, ImageSet, full_name, image_folder, load_data, read_image
from ofa_deploy.errors import InputError, StorageError

splits_module: Any = importlib.import_module("ofa_deploy.data.splits")

COLOURS = {"blue": (10, 20, 230), "green": (20, 220, 30), "red": (240, 10, 20)}


def save(
    path: Path, colour: Any = (1, 2, 3), size: tuple[int, int] = (8, 8), mode: str = "RGB"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def tree(folder: Path, counts: dict[str, int]) -> Path:
    """One-coloured images; the blue channel's lowest digit tells them apart."""
    for name, count in counts.items():
        for i in range(count):
            red, green, blue = COLOURS[name]
            save(folder / name / f"{i:03}.png", (red, green, blue + i))
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


# -- one image ------------------------------------------------------------------------------


def test_image_is_resized_by_its_shorter_side_and_cropped_in_the_middle(tmp_path: Path) -> None:
    stripes = np.zeros((10, 40, 3), np.uint8)
    stripes[:, :15], stripes[:, 15:25], stripes[:, 25:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    for name, pixels in (("wide", stripes), ("tall", stripes.transpose(1, 0, 2))):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
        made = read_image(tmp_path / f"{name}.png", 20)
        assert made.shape == (3, 20, 20) and made.dtype == np.uint8 and made.flags.c_contiguous
        middle = made[:, 2:-2, 2:-2]
        assert (middle[1] == 255).all() and not middle[[0, 2]].any()


def test_image_of_the_right_size_is_left_as_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png", 9), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 7), (7, 33), (64, 63)])
def test_any_shape_fills_the_square(tmp_path: Path, size: tuple[int, int]) -> None:
    made = read_image(save(tmp_path / "image.png", (9, 8, 7), size), 8)
    assert (made == np.array([9, 8, 7], np.uint8)[:, None, None]).all()


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("LA", (77, 255), (77, 77, 77)),
    ],
)
def test_other_modes_become_rgb(tmp_path: Path, mode: str, colour: Any, rgb: Any) -> None:
    made = read_image(save(tmp_path / "image.png", colour, mode=mode), 4)
    assert (made == np.array(rgb, np.uint8)[:, None, None]).all()


def palette_image() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return image


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    palette_image().save(tmp_path / "image.png")
    made = read_image(tmp_path / "image.png", 4)
    assert (made == np.array([200, 100, 50], np.uint8)[:, None, None]).all()


def test_palette_with_transparency_becomes_rgb_without_a_warning(tmp_path: Path) -> None:
    palette_image().save(tmp_path / "image.png", transparency=bytes([128, 255]))
    made = read_image(tmp_path / "image.png", 4)
    assert (made == np.array([200, 100, 50], np.uint8)[:, None, None]).all()


def test_sixteen_bit_greyscale_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "image.png")
    assert (read_image(tmp_path / "image.png", 4) == 0x80).all()


def test_photograph_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "image.png", exif=exif)
    made = read_image(tmp_path / "image.png", 16)
    assert not made[:, :8].any() and (made[:, 8:] == 255).all()


def test_thin_image_is_cropped_before_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def recording_resize(self: Image.Image, size: tuple[int, int], *a: Any, **k: Any) -> Any:
        sizes.append(size)
        return resize(self, size, *a, **k)

    monkeypatch.setattr(Image.Image, "resize", recording_resize)
    read_image(save(tmp_path / "image.png", size=(1, 2000)), 32)
    assert max(width * height for width, height in sizes) <= 64 * 64


def test_floating_point_greys_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "image.tiff")
    with pytest.raises(InputError, match=r"image\.tiff: .*1 channel of mode F, expected grey, RGB"):
        read_image(tmp_path / "image.tiff", 4)


def test_lab_colours_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "image.tiff", (50, 20, 20), mode="LAB")
    with pytest.raises(InputError, match=r"image\.tiff: .*3 channels of mode LAB"):
        read_image(tmp_path / "image.tiff", 4)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_image_of_far_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Any
) -> None:
    save(tmp_path / "image.png", size=(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(InputError, match=r"image\.png: not a readable image \(.*pixels"):
            read_image(tmp_path / "image.png", 4)


def broken_files() -> dict[str, bytes]:
    noise = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    files = {"empty.png": b"", "text.png": b"no image at all"}
    for kind in ("png", "jpeg", "gif", "bmp", "webp"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind)
        files[f"cut.{kind}"] = buffer.getvalue()[: buffer.tell() // 2]
    return files


BROKEN = broken_files()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_image_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=f"{name}: not a readable image .*mend or remove") as error:
        read_image(path, 8)
    assert "\n" not in str(error.value)


def test_png_with_a_broken_chunk_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)
    head, tag, rest = path.read_bytes().rpartition(b"IDAT")
    assert tag in head  # the broken one is not the first: opening the file does not see it
    path.write_bytes(head + b"\xba\x7f\x14\xd6" + rest)
    with pytest.raises(InputError, match=r"image\.png: not a readable image"):
        read_image(path, 8)


# -- a folder -------------------------------------------------------------------------------


def test_classes_in_alphabetical_order_and_files_too(tmp_path: Path) -> None:
    made = image_folder(tree(tmp_path, {"red": 2, "blue": 3, "green": 1}), size=4)
    assert made.classes == ("blue", "green", "red")
    assert made.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert made.labels.dtype == np.int64
    assert made.batch(slice(None))[:, :, 0, 0].tolist() == [
        [10, 20, 230],
        [10, 20, 231],
        [10, 20, 232],
        [20, 220, 30],
        [240, 10, 20],
        [240, 10, 21],
    ]


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 1, "blue": 1})
    (tmp_path / "red" / "notes.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "red" / "._000.png").write_bytes(b"what some systems put beside a file")
    save(tmp_path / "red" / ".trash" / "old.png")
    save(tmp_path / "red" / "deeper" / "more.JPG")
    made = image_folder(tmp_path, size=4)
    assert made.labels.tolist() == [0, 1, 1]
    assert len(made.in_memory()) == 3


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    tree(tmp_path / "set", {"red": 1, "blue": 1})
    for name in ("1", "2", "3"):
        save(tmp_path / "elsewhere" / f"{name}.png")
    red = tmp_path / "set" / "red"
    (red / "more").symlink_to(tmp_path / "elsewhere")
    (red / "again").symlink_to(tmp_path / "elsewhere")
    (red / "loop").symlink_to(tmp_path / "set")
    (red / "nowhere").symlink_to(tmp_path / "gone")
    made = image_folder(tmp_path / "set", size=4)
    assert np.bincount(made.labels).tolist() == [1, 5]  # blue, through the loop, is red too
    assert len(made.in_memory()) == 6


def test_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its images would be missing without a word."""
    tree(tmp_path, {"red": 1, "blue": 1})
    save(tmp_path / "red" / "locked" / "more.png")
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(StorageError, match="cannot read .*red/locked: Permission denied"):
        image_folder(tmp_path, size=4)


def test_part_for_training_alone_is_named(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"red": 2, "blue": 2})
    with pytest.raises(InputError, match=f"found 1; .* give {tmp_path}/train, or put a test"):
        load_data(str(tmp_path), size=4, test=1)


def test_same_folder_is_the_same_set(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 3, "blue": 4})
    one, other = image_folder(tmp_path, size=6), image_folder(tmp_path, size=6)
    np.testing.assert_array_equal(one.in_memory().images, other.in_memory().images)


def test_corrupt_image_in_a_folder_is_named(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 2, "blue": 8})
    for path in (tmp_path / "red").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"00[01]\.png: not a readable image"):
        load_data(str(tmp_path), size=4, test=1)


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ({"red": 2, "blue": 0}, "no images for class blue"),
        ({"red": 0, "blue": 0, "green": 1}, "no images for class blue, red"),
        ({"red": 2}, r"at least two sub-folders \(classes\), found 1"),
        ({}, "found 0"),
    ],
)
def test_folder_without_enough_is_refused(
    tmp_path: Path, counts: dict[str, int], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        image_folder(tree(tmp_path, counts), size=4)


def test_class_in_place_of_the_set_names_its_parent(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 2, "blue": 2})
    with pytest.raises(InputError, match=f"found 0; images lie right in it: .*{tmp_path}$"):
        image_folder(tmp_path / "red", size=4)


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        image_folder(tmp_path / "absent", size=4)
    with pytest.raises(InputError, match="no such folder"):
        image_folder(save(tmp_path / "image.png"), size=4)


def test_classes_that_another_split_has_set(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 1, "blue": 1})
    assert image_folder(tmp_path, size=4, classes=("blue", "red")).classes == ("blue", "red")
    for classes, odd in (
        (("blue",), "only there: red"),
        (("blue", "green", "red"), "missing there: green"),
    ):
        with pytest.raises(InputError, match=f"differ from the training set's: {odd}$"):
            image_folder(tmp_path, size=4, classes=classes)


class Steps:
    """A progress that counts."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.steps = 0

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator["Steps"]:
        self.totals.append(total)
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps

    def say(self, message: str) -> None:
        raise AssertionError(message)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    steps = Steps()
    image_folder(tree(tmp_path, {"red": 2, "blue": 3}), size=4).in_memory(progress=steps)
    assert steps.totals == [5] and steps.steps == 5


# -- three sets -----------------------------------------------------------------------------


def pixels(images: Images) -> list[tuple[int, ...]]:
    return [tuple(map(int, image)) for image in images.batch(slice(None))[:, :, 0, 0]]


def test_one_folder_is_split_in_three(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 20, "blue": 20})
    data = load_data(str(tmp_path), size=4)
    assert (len(data.test), len(data.validation), len(data.train)) == (8, 3, 29)
    seen = pixels(data.train) + pixels(data.validation) + pixels(data.test)
    assert len(set(seen)) == len(seen) == 40
    assert data.classes == ("blue", "red")
    assert np.bincount(data.test.labels).tolist() == [4, 4]


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_train_and_test_folders_are_used(tmp_path: Path, name: str) -> None:
    tree(tmp_path / "train", {"red": 5, "blue": 6})
    tree(tmp_path / name, {"red": 2, "blue": 1})
    data = load_data(str(tmp_path), size=4, validation=3)
    assert (len(data.train), len(data.validation)) == (8, 3)
    assert data.test.labels.tolist() == [0, 1, 1]


def test_validation_folder_is_chosen_on_where_there_is_a_test_folder(tmp_path: Path) -> None:
    for part, counts in (("train", (5, 6)), ("val", (4, 3)), ("test", (2, 1))):
        tree(tmp_path / part, dict(zip(("red", "blue"), counts, strict=True)))
    data = load_data(str(tmp_path), size=4)
    assert [np.bincount(part.labels).tolist() for part in (data.train, data.validation)] == [
        [6, 5],
        [3, 4],
    ]
    assert data.test.labels.tolist() == [0, 1, 1]
    fewer = load_data(str(tmp_path), size=4, train=6, validation=2, test=2)
    assert (len(fewer.train), len(fewer.validation), len(fewer.test)) == (6, 2, 2)


def test_class_called_train_is_a_class(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1.png")
    save(tmp_path / "car" / "1.png")
    for i in range(9):
        save(tmp_path / "car" / f"{i}.png")
    assert load_data(str(tmp_path), size=4).classes == ("car", "train")


def test_full_name_holds_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree(tmp_path, {"red": 1}))
    assert full_name("red") == full_name("./red") == str(tmp_path / "red")
    assert full_name("hf:./red?label=y") == f"hf:{tmp_path}/red?label=y"
    for name in ("glyphs", "cifar10", "hf:someone/something:plain"):
        assert full_name(name) == name


def test_test_folder_with_other_classes_is_refused(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"red": 5, "blue": 6})
    tree(tmp_path / "test", {"red": 2, "green": 1})
    with pytest.raises(
        InputError, match="test: its classes differ .*: only there: green; missing there: blue"
    ):
        load_data(str(tmp_path), size=4)


def test_at_most_so_many(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 20, "blue": 20})
    data = load_data(str(tmp_path), size=4, train=12, validation=2, test=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 4)
    assert np.bincount(data.test.labels).tolist() == [2, 2]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 5, "blue": 4})
    with pytest.raises(InputError, match="at least 10 images, found 9"):
        load_data(str(tmp_path), size=4)


def test_name_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither 'glyphs' nor a folder; .*cifar100 or hf:NAME$"):
        load_data(str(tmp_path / "absent"), size=4)


def test_digest_and_seed(tmp_path: Path) -> None:
    tree(tmp_path, {"red": 20, "blue": 20})
    digests = [load_data(str(tmp_path), size=4, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    save(tmp_path / "red" / "000.png", (0, 0, 0))
    assert load_data(str(tmp_path), size=4).digest != digests[0]


def test_calibration_is_a_fixed_part_of_the_training_set(tmp_path: Path) -> None:
    data = load_data(str(tree(tmp_path, {"red": 20, "blue": 20})), size=4)
    more, less = data.calibration(20), data.calibration(5)
    assert (len(more), len(less)) == (20, 5)
    assert pixels(more)[:5] == pixels(less)
    assert set(pixels(more)) <= set(pixels(data.train)) and len(set(pixels(more))) == 20
    assert len(data.calibration(1000)) == len(data.train)


def test_glyphs_are_counted_as_the_docstring_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int, int]] = []

    def fake(split: str, count: int, *, seed: int, size: int) -> ImageSet:
        asked.append((split, count, seed, size))
        labels = np.arange(count, dtype=np.int64) % 2
        return ImageSet(np.zeros((count, 3, 1, 1), np.uint8), labels, ("a", "b"))

    monkeypatch.setattr(splits_module, "glyphs", fake)
    data = load_data("glyphs", size=24, seed=5)
    assert asked == [("train", 9_500, 5, 24), ("test", 2_000, 5, 24)]
    assert (len(data.train), len(data.validation), len(data.test)) == (8_000, 1_500, 2_000)
    data = load_data("glyphs", size=24, train=30, validation=10, test=7)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 7)
