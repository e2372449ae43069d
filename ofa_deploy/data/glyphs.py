"""``glyphs``: a classification set of printed characters, rendered where it is needed.

Fifty classes, the digits and those letters that a person can tell apart without context, in the
22 text fonts that come with matplotlib. Each image shows one character, turned, sheared, scaled
and shifted at random, brighter than the coloured gradient behind it, among pieces of two other
characters at the edges, then blurred and covered with noise. Nothing is downloaded, and the same
call gives the same images wherever the same numpy, Pillow and matplotlib are installed.

Lower-case letters are a class of their own only where their shape differs from the capital's, so
there are no c, o, p, s, u, v, w, x and z. O (like 0), I and l (like 1 and each other) are left out.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import PIL
import platformdirs
from PIL import Image, ImageDraw, ImageFont

from ofa_deploy.data.images import ImageSet
from ofa_deploy.errors import InputError, StorageError, UnknownNameError
from ofa_deploy.files import digest, write_with

__all__ = ["CLASSES", "FONTS", "glyphs"]

CLASSES: tuple[str, ...] = tuple("0123456789ABCDEFGHJKLMNPQRSTUVWXYZabdefghijkmnqrty")

FONTS: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmb10",
    "cmmi10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)

RECIPE = 1
"""Raised whenever the images of an unchanged call change."""

MAX_COUNT = 1_000_000
SIZES = (16, 256)

_SPLITS = ("train", "test")
_CHUNK = 1000
_BATCH = 100
_MASK_SIDES = (48, 128)
_CAP_HEIGHT = 0.56
_FRAGMENTS = 2
_MAX_HALF_TURN = 0.2
_MIN_CONTRAST = 0.3
_TINT = 0.2
_BRIGHTEST_GROUND = 0.6
_LUMA = np.array([0.299, 0.587, 0.114])

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


def glyphs(
    split: str, count: int, *, seed: int = 0, size: int = 32, cache: Path | None = None
) -> ImageSet:
    """The first ``count`` images of a split; image i does not depend on ``count``.

    Each full thousand holds every class equally often. What was rendered is kept in a file under
    ``cache`` and read back by the next call; a damaged file is rendered anew, and a folder that
    cannot be written is done without.

    Args:
        split: "train" or "test", which have no random numbers in common.
        count: 1 to 1,000,000 images.
        seed: not negative; another seed gives another set.
        size: height and width in pixels, 16 to 256; above 64 the characters get no sharper.
        cache: a folder; the user's cache folder if None.

    Raises:
        UnknownNameError: for another split.
        InputError: if ``count``, ``seed`` or ``size`` is out of range.
    """
    if split not in _SPLITS:
        raise UnknownNameError("split", split, _SPLITS)
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"expected a count of 1 to {MAX_COUNT:,} images, found {count:,}")
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more, found {seed}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"expected a size of {SIZES[0]} to {SIZES[1]} pixels, found {size}")
    folder = platformdirs.user_cache_path("ofa-deploy") if cache is None else Path(cache)
    path = folder / _file_name(split, count, seed, size)
    made = _load(path, count, size)
    if made is None:
        made = _render(split, count, seed, size)
        _store(path, made)
    return made


def _file_name(split: str, count: int, seed: int, size: int) -> str:
    recipe = {
        "recipe": RECIPE,
        "split": split,
        "count": count,
        "seed": seed,
        "size": size,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "matplotlib": matplotlib.__version__,
    }
    return f"glyphs-{digest(recipe)}.npz"


def _checksum(images: UInt8, labels: Int64) -> UInt8:
    """SHA-256 of the images, then the labels: uint8, shape (32,)."""
    state = hashlib.sha256(np.ascontiguousarray(images).data)
    state.update(labels.astype("<i8").data)
    return np.frombuffer(state.digest(), dtype=np.uint8)


def _load(path: Path, count: int, size: int) -> ImageSet | None:
    """What ``_store`` wrote, or None if there is no such file or it is damaged."""
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            images, labels, checksum = file["images"], file["labels"], file["sha256"]
        if images.shape != (count, 3, size, size) or labels.dtype != np.int64:
            return None
        if not np.array_equal(checksum, _checksum(images, labels)):
            return None
        return ImageSet(images, labels, CLASSES)
    except Exception:  # a damaged archive fails in more ways than numpy documents
        return None


def _store(path: Path, made: ImageSet) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(
                file,
                images=made.images,
                labels=made.labels,
                sha256=_checksum(made.images, made.labels),
            )

    try:
        write_with(path, write)
    except (InputError, StorageError):
        return


@dataclass(frozen=True)
class _Scenes:
    """What to paint, for n images; lengths are fractions of the image's side.

    Along the axis of length k = 1 + ``_FRAGMENTS`` stand the characters in the order of painting,
    the one that gives the label last.

    Attributes:
        glyph: int64, (n, k), numbers of masks: font * len(CLASSES) + class.
        inverse: float32, (n, k, 2, 2), from image to mask, (x, y), about the glyph's centre.
        centre: float32, (n, k, 2), (x, y) from the image's centre.
        ink: float32, (n, k, 3), RGB from 0 to 1.
        ground: float32, (n, 2, 3), the colours at the two ends of the gradient.
        slope: float32, (n, 2), a unit vector (x, y) along the gradient.
        blur: float32, (n,), the outer weights of the three-tap filter.
        noise: float32, (n,), standard deviation.
    """

    glyph: Int64
    inverse: Float32
    centre: Float32
    ink: Float32
    ground: Float32
    slope: Float32
    blur: Float32
    noise: Float32


def _render(split: str, count: int, seed: int, size: int) -> ImageSet:
    masks = _masks(min(max(2 * size, _MASK_SIDES[0]), _MASK_SIDES[1]))
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    for first in range(0, count, _CHUNK):
        rng = np.random.default_rng([seed, _SPLITS.index(split), first // _CHUNK])
        chunk = slice(first, min(first + _CHUNK, count))
        scenes = _draw(rng)
        labels[chunk] = scenes.glyph[: chunk.stop - first, -1] % len(CLASSES)
        for start in range(first, chunk.stop, _BATCH):
            batch = slice(start - first, start - first + _BATCH)
            painted = _paint(scenes, batch, masks, size, rng)
            images[start : min(start + _BATCH, chunk.stop)] = painted[: chunk.stop - start]
    return ImageSet(images, labels, CLASSES)


@functools.lru_cache(maxsize=4)
def _masks(side: int) -> UInt8:
    """Every character in every font: uint8, shape (fonts, classes, side, side), 255 is ink.

    Within a font the sizes relate as they do in print; the capital H of every font is equally
    high. The bounding box is centred and the outermost pixels are blank.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    masks = np.zeros((len(FONTS), len(CLASSES), side, side), dtype=np.uint8)
    for row, name in zip(masks, FONTS, strict=True):
        font = _font(folder / f"{name}.ttf", _CAP_HEIGHT * side)
        for mask, character in zip(row, CLASSES, strict=True):
            mask[1:-1, 1:-1] = _mask(font, character, side - 2)
    masks.setflags(write=False)
    return masks


def _font(path: Path, cap_height: float) -> ImageFont.FreeTypeFont:
    trial = ImageFont.truetype(path, 256, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = trial.getbbox("H")
    return trial.font_variant(size=round(256 * cap_height / (bottom - top)))


def _mask(font: ImageFont.FreeTypeFont, character: str, side: int) -> UInt8:
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (side, side))
    corner = ((side - right - left) // 2, (side - bottom - top) // 2)
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
    return np.asarray(image)


def _draw(rng: np.random.Generator) -> _Scenes:
    """The scenes of one chunk. Sines and exponentials, whose last digit varies, are avoided."""
    n, k = _CHUNK, 1 + _FRAGMENTS
    glyph = rng.integers(len(FONTS) * len(CLASSES), size=(n, k))
    glyph[:, -1] -= glyph[:, -1] % len(CLASSES)
    glyph[:, -1] += rng.permutation(n) % len(CLASSES)
    towards = rng.uniform(-1, 1, (n, k, 2))
    towards /= np.abs(towards).max(axis=-1, keepdims=True)
    centre = towards * rng.uniform(0.55, 0.7, (n, k, 1))
    centre[:, -1] = rng.uniform(-0.11, 0.11, (n, 2))
    ground = np.empty((n, 2, 3))
    ground[:, 0] = _tinted(rng.uniform(0, _BRIGHTEST_GROUND, (n, 1)), rng)
    ground[:, 1] = ground[:, 0] + _tinted(rng.uniform(-0.25, 0.25, (n, 1)), rng)
    ground = ground.clip(0, _BRIGHTEST_GROUND)
    ink = _tinted(rng.random((n, k, 1)), rng).clip(0, 1)
    ink[:, -1] = _legible(rng, ground)
    as_subject = rng.random((n, k)) < 0.5
    ink = np.where(as_subject[..., None], ink[:, -1:], ink)
    slope = rng.uniform(-1, 1, (n, 2))
    slope /= np.sqrt((slope**2).sum(axis=-1, keepdims=True))
    return _Scenes(
        glyph=glyph,
        inverse=_inverse_affine(rng, (n, k)).astype(np.float32),
        centre=centre.astype(np.float32),
        ink=ink.astype(np.float32),
        ground=ground.astype(np.float32),
        slope=slope.astype(np.float32),
        blur=rng.uniform(0, 0.25, n).astype(np.float32),
        noise=rng.uniform(0.01, 0.08, n).astype(np.float32),
    )


def _legible(rng: np.random.Generator, ground: Float64) -> Float64:
    """For each ground (n, 2, 3) a colour clearly brighter than both its ends: shape (n, 3)."""
    brightest = (ground * _LUMA).sum(axis=-1).max(axis=-1)
    tries = _tinted(rng.random((16, len(ground), 1)), rng).clip(0, 1)
    tries[-1] = 1
    clear = (tries * _LUMA).sum(axis=-1) > brightest + _MIN_CONTRAST
    chosen: Float64 = tries[clear.argmax(axis=0), np.arange(len(ground))]
    return chosen


def _tinted(grey: Float64, rng: np.random.Generator) -> Float64:
    """Greys (..., 1) to colours (..., 3) around them; those beyond black and white are clipped."""
    colour: Float64 = grey + rng.uniform(-_TINT, _TINT, (*grey.shape[:-1], 3))
    return colour


def _inverse_affine(rng: np.random.Generator, shape: tuple[int, int]) -> Float64:
    """Inverses of (rotation @ shear @ scale): shape (*shape, 2, 2)."""
    half = rng.uniform(-_MAX_HALF_TURN, _MAX_HALF_TURN, shape)
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    shear = rng.uniform(-0.25, 0.25, shape)
    scale = rng.uniform(0.8, 1.3, shape)
    stretch = rng.uniform(0.8, 1.25, shape)
    inverse = np.empty((*shape, 2, 2))
    inverse[..., 0, 0] = (cos + shear * sin) / (scale * stretch)
    inverse[..., 0, 1] = (sin - shear * cos) / (scale * stretch)
    inverse[..., 1, 0] = -sin * stretch / scale
    inverse[..., 1, 1] = cos * stretch / scale
    return inverse


def _paint(
    scenes: _Scenes, batch: slice, masks: UInt8, size: int, rng: np.random.Generator
) -> UInt8:
    """The images of a batch of scenes: shape (len(batch), 3, size, size)."""
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(0.5)
    slope = scenes.slope[batch, :, None, None]
    along = (slope[:, 0] * at + slope[:, 1] * at[:, None] + np.float32(0.5)).clip(0, 1)
    first, second = (scenes.ground[batch, end, :, None, None] for end in (0, 1))
    image = first + (second - first) * along[:, None]
    for layer in range(scenes.glyph.shape[1]):
        alpha = _sample(scenes, batch, layer, masks, at)
        alpha = _blurred(alpha, scenes.blur[batch, None, None])[:, None]
        image += alpha * (scenes.ink[batch, layer, :, None, None] - image)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * scenes.noise[batch, None, None, None]
    levels: Float32 = image.clip(0, 1) * np.float32(255) + np.float32(0.5)
    return levels.astype(np.uint8)


def _sample(scenes: _Scenes, batch: slice, layer: int, masks: UInt8, at: Float32) -> Float32:
    """One layer's ink, read bilinearly from its masks: shape (n, size, size), from 0 to 1."""
    side = masks.shape[-1]
    x = at - scenes.centre[batch, layer, 0, None, None]
    y = at[:, None] - scenes.centre[batch, layer, 1, None, None]
    inverse = scenes.inverse[batch, layer, :, :, None, None] * np.float32(side)
    middle, last = np.float32((side - 1) / 2), np.float32(side - 1.01)
    u = (inverse[:, 0, 0] * x + inverse[:, 0, 1] * y + middle).clip(0, last)
    v = (inverse[:, 1, 0] * x + inverse[:, 1, 1] * y + middle).clip(0, last)
    left, top = u.astype(np.int32), v.astype(np.int32)
    u -= left
    v -= top
    flat = masks.reshape(-1)
    start = (scenes.glyph[batch, layer] * side**2)[:, None, None] + top * side + left
    above = _mix(flat.take(start), flat.take(start + 1), u)
    below = _mix(flat.take(start + side), flat.take(start + side + 1), u)
    levels: Float32 = above + (below - above) * v
    return levels / np.float32(255)


def _mix(first: UInt8, second: UInt8, share: Float32) -> Float32:
    start = first.astype(np.float32)
    return start + (second - start) * share


def _blurred(planes: Float32, weight: Float32) -> Float32:
    """Three-tap filters (weight, 1 - 2 weight, weight), twice along each axis of (n, h, w)."""
    for _ in range(2):
        wide = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
        wide = wide[:, 1:-1] + (wide[:, :-2] + wide[:, 2:] - 2 * wide[:, 1:-1]) * weight
        middle = wide[..., 1:-1]
        planes = middle + (wide[..., :-2] + wide[..., 2:] - 2 * middle) * weight
    return planes
