"""Data sets of the Hugging Face hub, or of its library's forms on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
import numpy.typing as npt

from ofa_deploy.data.files import Encoded, ImageFiles, Parts
from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.terminal import SILENT, Progress

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["PREFIX", "SHORT_NAMES", "HubName", "RowSource", "hub_parts"]

PREFIX = "hf:"

SHORT_NAMES: Mapping[str, str] = {
    "cifar10": "hf:uoft-cs/cifar10?image=img&label=label",
    "cifar100": "hf:uoft-cs/cifar100?image=img&label=fine_label",
}

Int64 = npt.NDArray[np.int64]

_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_LABEL_TYPES = ("int", "uint", "bool", "string", "large_string")
_CHUNK = 10_000


@dataclass(frozen=True)
class HubName:
    """What ``hf:PATH[:CONFIG][?image=COLUMN&label=COLUMN]`` says.

    Attributes:
        path: a name on the hub such as ``uoft-cs/cifar10``, or a folder.
        config: which of a data set's variants, if it has several.
        image: the column of images, where there are several.
        label: the column of labels, where there are several.
    """

    path: str
    config: str | None = None
    image: str | None = None
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Read a name; ``SHORT_NAMES`` are such names too.

        Raises:
            InputError: if it is of another form, or names a folder that is not there.
        """
        path, _, query = SHORT_NAMES.get(text, text).removeprefix(PREFIX).partition("?")
        columns = dict(parse_qsl(query))
        for column in columns:
            if column not in ("image", "label"):
                raise UnknownNameError("data option", column, ("image", "label"))
        config = None
        if ":" in path and not Path(path).expanduser().exists():
            path, _, config = path.rpartition(":")
        folder = Path(path).expanduser()
        if path.startswith(("/", ".", "~")) and not folder.is_dir():
            raise InputError(f"data {text!r}: no such folder")
        if not path or (path.count("/") > 1 and not folder.is_dir()):
            raise InputError(
                f"data {text!r}: expected hf:NAME, hf:OWNER/NAME or hf:FOLDER, "
                "perhaps with :CONFIG or ?image=COLUMN&label=COLUMN"
            )
        return cls(path, config or None, columns.get("image"), columns.get("label"))

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, if it is one."""
        folder = Path(self.path).expanduser()
        return folder if folder.is_dir() else None

    def __str__(self) -> str:
        path = self.path if self.folder is None else str(self.folder.resolve())
        config = f":{self.config}" if self.config else ""
        columns = {"image": self.image, "label": self.label}
        query = urlencode({key: name for key, name in columns.items() if name is not None})
        return f"{PREFIX}{path}{config}{f'?{query}' if query else ''}"


@dataclass(frozen=True, eq=False)
class RowSource:
    """Encoded images in a column of an Arrow table on disk.

    Attributes:
        name: of the split, for errors.
        table: its column of images alone, in Arrow format and not decoded.
        column: the column's name.
    """

    name: str
    table: "Dataset"
    column: str

    def encoded(self, rows: Int64) -> list[Encoded]:
        cells = self.table[rows.tolist()][self.column].to_pylist() if len(rows) else []
        return [(self._named(row), _content(cell)) for row, cell in zip(rows, cells, strict=True)]

    def identity(self, rows: Int64) -> Iterator[str]:
        for row in rows:
            yield f"{row} {self._sizes[row]}"

    @cached_property
    def _sizes(self) -> Int64:
        """Bytes of each image, 0 where it lies in a file of its own."""
        import pyarrow.compute as pc

        sizes = [np.zeros(0, np.int64)]
        for start in range(0, len(self.table), _CHUNK):
            cells = self.table[start : start + _CHUNK][self.column]
            for chunk in cells.chunks:
                lengths = pc.fill_null(pc.binary_length(pc.struct_field(chunk, "bytes")), 0)
                sizes.append(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
        return np.concatenate(sizes)

    def _named(self, row: int) -> str:
        return f"{self.name}[{row}]"


def _content(cell: Mapping[str, Any] | None) -> Path | bytes:
    """What a cell holds; one without an image is taken for an empty, unreadable one."""
    if cell is None:
        return b""
    content: bytes | None = cell["bytes"]
    return Path(cell["path"]) if content is None and cell["path"] else content or b""


def hub_parts(text: str, size: int, *, progress: Progress = SILENT) -> Parts:
    """Open a data set of the hub, a folder of parquet files, or one that was saved to disk.

    Nothing that comes with a data set is run. The first time, what the hub or a folder holds is
    copied into the library's cache (``HF_HOME``); no image is decoded yet. A part without labels,
    as published test parts often are, is passed over.

    Args:
        text: see ``HubName``.
        size: height and width in pixels that the images are brought to.

    Raises:
        InputError: if it cannot be had, has no training part, or its columns are not clear.
    """
    asked = HubName.parse(text)
    found = _open(asked, quiet=progress is SILENT)
    tables = {
        part: (name, found[name])
        for part, names in _SPLITS.items()
        if (name := next((each for each in names if each in found), None)) is not None
    }
    if "train" not in tables:
        raise InputError(f"{asked}: expected a split called train, found {', '.join(found)}")
    image, label = _columns(asked, tables["train"][1])
    parts: dict[str, ImageFiles] = {}
    classes: tuple[str, ...] | None = None
    for part, (split, table) in tables.items():
        labels, classes = _labels(f"{asked} {split}", table, label, classes)
        if labels is None and part != "train":
            progress.say(f"{asked}: {split} has no labels and is not used")
            continue
        if labels is None:
            raise InputError(f"{asked}: {split} has no labels")
        source = RowSource(f"{asked} {split}", _encoded(f"{asked} {split}", table, image), image)
        parts[part] = ImageFiles(source, np.arange(len(labels)), labels, classes, size)
    _check_classes(str(asked), parts["train"])
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")  # reported on, as in a folder
    return Parts(**parts)


@contextmanager
def _bars(quiet: bool) -> Iterator[None]:
    """The library's own progress bars, which it draws while it downloads."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet and not before:
            enable_progress_bars()


def _open(asked: HubName, *, quiet: bool) -> "Mapping[str, Dataset]":
    """The splits by name; a table that was saved alone is called train."""
    import datasets

    folder = asked.folder
    saved = folder is not None and any(
        (folder / name).is_file() for name in ("dataset_dict.json", "state.json")
    )
    if saved and asked.config is not None:
        raise InputError(f"{asked}: a saved data set has no configs; leave out :{asked.config}")
    try:
        with _bars(quiet):
            if saved:
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(str(folder or asked.path), asked.config)
    except ConnectionError as error:
        raise InputError(
            f"{asked}: the hub cannot be reached ({_first_line(error)}); "
            "save the data set where it can, and name that folder: hf:FOLDER"
        ) from None
    except Exception as error:  # the library raises its own, pyarrow's and the hub client's
        raise InputError(f"{asked}: cannot be loaded ({_first_line(error)})") from None
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _columns(asked: HubName, table: "Dataset") -> tuple[str, str]:
    """The names of the columns of images and of labels."""
    import datasets

    def only(wanted: str, given: str | None, kind: type) -> str:
        if given is not None:
            if given not in table.features:
                raise UnknownNameError(f"column of {asked}", given, table.features)
            return given
        named = [str(name) for name, each in table.features.items() if isinstance(each, kind)]
        if len(named) == 1:
            return named[0]
        count = f"{len(named)} columns of {wanted}s" if named else f"no column of {wanted}s"
        known = ", ".join(named or table.features)
        raise InputError(f"{asked}: {count}; name one with ?{wanted}=COLUMN, of {known}")

    return only("image", asked.image, datasets.Image), only(
        "label", asked.label, datasets.ClassLabel
    )


def _labels(
    name: str, table: "Dataset", column: str, classes: tuple[str, ...] | None
) -> tuple[Int64 | None, tuple[str, ...]]:
    """Labels, or None if all are missing, and class names; ``classes`` are the training part's.

    A column of numbers or texts serves too: its values in the training part, sorted, are the
    classes.
    """
    import datasets

    if column not in table.features:
        raise InputError(f"{name}: no column {column}, which the training part has")
    feature = table.features[column]
    values = table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    known: dict[Any, int]
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        if classes not in (None, names):
            raise InputError(f"{name}: its classes differ from the training part's")
        known = {number: number for number in range(len(names))}
    else:
        if not str(getattr(feature, "dtype", "")).startswith(_LABEL_TYPES):
            raise InputError(f"{name}: column {column} holds no class labels, numbers or texts")
        names = classes or tuple(map(str, sorted({each for each in values if each is not None})))
        values = [each if each is None else str(each) for each in values]
        known = {each: number for number, each in enumerate(names)}
    if all(value in (None, -1) for value in values):
        return None, names
    labels = np.array([known.get(value, -1) for value in values], np.int64)
    if (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise InputError(f"{name}[{row}]: expected one of {len(names)} labels, found {values[row]}")
    return labels, names


def _encoded(name: str, table: "Dataset", column: str) -> "Dataset":
    """The column of images alone, as it is stored."""
    import datasets

    if column not in table.features:
        raise InputError(f"{name}: no column {column}, which the training part has")
    try:
        alone = table.select_columns([column])
        return alone.cast_column(column, datasets.Image(decode=False)).with_format("arrow")
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{name}: column {column} holds no images ({_first_line(error)})"
        ) from None


def _check_classes(name: str, train: ImageFiles) -> None:
    if len(train.classes) < 2:
        raise InputError(f"{name}: expected at least two classes, found {len(train.classes)}")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if not counts.all():
        empty = ", ".join(train.classes[label] for label in np.flatnonzero(counts == 0))
        raise InputError(f"{name}: no training images for class {empty}")
