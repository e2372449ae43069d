"""The built-in glyphs: the same images every time, balanced, legible, kept in a cache."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from ofa_deploy.data.glyphs import CLASSES, FONTS, glyphs
from ofa_deploy.data.images import ImageSet
from ofa_deploy.errors import InputError, UnknownNameError

module: Any = importlib.import_module("ofa_deploy.data.glyphs")


def hashes(made: ImageSet) -> set[bytes]:
    return {hashlib.sha256(image).digest() for image in made.images}


def same(one: ImageSet, other: ImageSet) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return glyphs("train", 2000, cache=tmp_path_factory.mktemp("train"))


def test_shapes_dtypes_and_classes(train: ImageSet) -> None:
    assert train.images.shape == (2000, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    assert train.classes == CLASSES
    assert len(set(CLASSES)) == len(CLASSES) == 50
    assert len(set(FONTS)) == len(FONTS) == 22


def test_every_thousand_holds_every_class_equally_often(train: ImageSet) -> None:
    for chunk in (train.labels[:1000], train.labels[1000:]):
        assert (np.bincount(chunk, minlength=len(CLASSES)) == 1000 // len(CLASSES)).all()
        assert (np.diff(chunk) < 0).any()


@pytest.mark.parametrize("count", [1, 100, 101, 1001])
def test_image_does_not_depend_on_count(train: ImageSet, count: int, tmp_path: Path) -> None:
    assert same(glyphs("train", count, cache=tmp_path), train.take(slice(count)))


def test_same_call_renders_the_same(tmp_path: Path) -> None:
    one, other = (glyphs("test", 300, cache=tmp_path / name) for name in "ab")
    assert same(one, other)


def test_global_random_state_is_neither_read_nor_moved(tmp_path: Path) -> None:
    np.random.seed(1)
    one = glyphs("test", 50, cache=tmp_path / "a")
    state = np.random.get_state(legacy=False)["state"]["pos"]
    np.random.seed(2)
    assert same(one, glyphs("test", 50, cache=tmp_path / "b"))
    assert np.random.get_state(legacy=False)["state"]["pos"] == state


def test_no_image_stands_twice_or_in_both_splits(train: ImageSet, tmp_path: Path) -> None:
    test = glyphs("test", 1000, cache=tmp_path)
    assert len(hashes(train)) == len(train)
    assert len(hashes(test)) == len(test)
    assert not hashes(train) & hashes(test)


def test_another_seed_gives_other_images(train: ImageSet, tmp_path: Path) -> None:
    assert not hashes(train) & hashes(glyphs("train", 200, seed=1, cache=tmp_path))


@pytest.mark.parametrize("size", [16, 48])
def test_size_scales_the_same_scenes(train: ImageSet, size: int, tmp_path: Path) -> None:
    made = glyphs("train", 20, size=size, cache=tmp_path)
    assert made.size == size
    assert np.array_equal(made.labels, train.labels[:20])
    means = made.images.mean(axis=(2, 3))
    assert np.abs(means - train.images[:20].mean(axis=(2, 3))).max() < 12


@pytest.mark.parametrize("side", module._MASK_SIDES)
def test_every_class_is_whole_in_every_font(side: int) -> None:
    masks = module._masks(side)
    assert masks.shape == (len(FONTS), len(CLASSES), side, side)
    assert (masks.max(axis=(2, 3)) > 200).all()
    assert (masks.mean(axis=(2, 3)) > 255 * 0.02).all()
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in FONTS:
        font = module._font(folder / f"{name}.ttf", module._CAP_HEIGHT * side)
        boxes = np.array([font.getbbox(character) for character in CLASSES])
        assert (boxes[:, 2:] - boxes[:, :2]).max() <= side - 2


def test_classes_differ_within_every_font() -> None:
    for font in module._masks(48)[:, :, ::2, ::2].reshape(len(FONTS), len(CLASSES), -1).astype(int):
        apart = np.abs(font[:, None] - font[None]).sum(axis=-1)
        union = np.maximum(font[:, None], font[None]).sum(axis=-1)
        np.fill_diagonal(apart, union.max())
        assert (apart / union).min() > 0.1


def test_a_glyph_keeps_its_size_relative_to_its_neighbours() -> None:
    heights = (module._masks(64) > 127).any(axis=3).sum(axis=2)
    capital, short = heights[:, CLASSES.index("H")], heights[:, CLASSES.index("n")]
    assert capital.max() - capital.min() <= 2
    assert (short < 0.85 * capital).all()


def test_ink_is_brighter_than_its_ground() -> None:
    scenes = module._draw(np.random.default_rng(0))
    ink = (scenes.ink[:, -1] * module._LUMA).sum(axis=-1)
    ground = (scenes.ground * module._LUMA).sum(axis=-1).max(axis=-1)
    assert (ink - ground).min() > module._MIN_CONTRAST - 1e-6


def test_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("rendered")

    made = glyphs("train", 60, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("glyphs-")
    monkeypatch.setattr(module, "_render", refuse)
    assert same(glyphs("train", 60, cache=tmp_path), made)
    for other in ({"seed": 1}, {"size": 31}):
        with pytest.raises(AssertionError, match="rendered"):
            glyphs("train", 60, cache=tmp_path, **other)
    for split, count in (("test", 60), ("train", 61)):
        with pytest.raises(AssertionError, match="rendered"):
            glyphs(split, count, cache=tmp_path)
    monkeypatch.setattr(module, "RECIPE", -1)
    with pytest.raises(AssertionError, match="rendered"):
        glyphs("train", 60, cache=tmp_path)


def test_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    glyphs("train", 5)
    assert len(list((tmp_path / "ofa-deploy").glob("glyphs-*.npz"))) == 1


def _one_array(file: Path) -> None:
    with file.open("wb") as out:
        np.save(out, np.zeros(3))


def _flip_pixel(file: Path) -> None:
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["images"][3, 0, 5, 5] ^= 1
    np.savez(file, **changed)


def _swap_labels(file: Path) -> None:
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["labels"] = changed["labels"][::-1].copy()
    np.savez(file, **changed)


def _pickle(file: Path) -> None:
    np.savez(file, images=np.array([{}], dtype=object), labels=np.zeros(1), sha256=np.zeros(32))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.write_bytes(b""), id="empty"),
        pytest.param(lambda file: file.write_bytes(b"PK\x03\x04 not a zip"), id="not-a-zip"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-2000]), id="truncated"),
        pytest.param(_one_array, id="one-array"),
        pytest.param(lambda file: np.savez(file, images=np.zeros(3)), id="arrays-missing"),
        pytest.param(_flip_pixel, id="pixel"),
        pytest.param(_swap_labels, id="labels"),
        pytest.param(_pickle, id="pickle"),
    ],
)
def test_damaged_cache_is_rendered_anew(damage: Any, tmp_path: Path) -> None:
    made = glyphs("train", 40, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    damage(file)
    assert file.read_bytes() != whole
    assert same(glyphs("train", 40, cache=tmp_path), made)
    assert module._load(file, 40, 32) is not None


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    made = glyphs("train", 40, cache=tmp_path / "file" / "folder")
    assert same(made, glyphs("train", 40, cache=tmp_path / "file"))
    assert same(made, glyphs("train", 40, cache=tmp_path))
    assert (tmp_path / "file").read_text() == "in the way"


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown split 'validation'"):
        glyphs("validation", 10, cache=tmp_path)


@pytest.mark.parametrize("count", [-1, 0, 1_000_001])
def test_count_out_of_range(count: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count of 1 to 1,000,000 images"):
        glyphs("train", count, cache=tmp_path)


def test_seed_and_size_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed of 0 or more"):
        glyphs("train", 1, seed=-1, cache=tmp_path)
    for size in (15, 257):
        with pytest.raises(InputError, match="size of 16 to 256 pixels"):
            glyphs("train", 1, size=size, cache=tmp_path)
    assert not list(tmp_path.iterdir())
