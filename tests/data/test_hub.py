"""Data sets of the hub's library: saved ones, folders of parquet files, and what is refused."""

import importlib
import io
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ofa_deploy.data import SHORT_NAMES, ImageFiles, ImageSet, load_data
from ofa_deploy.data.hub import HubName
from ofa_deploy.errors import InputError, UnknownNameError

datasets: Any = importlib.import_module("datasets")
hub_module: Any = importlib.import_module("ofa_deploy.data.hub")
splits_module: Any = importlib.import_module("ofa_deploy.data.splits")

SIZE = 4
CLASSES = ("ant", "bee", "cow")


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library's cache is a temporary folder, and it may not ask the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def png(pixels: tuple[int, int, int]) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 5), pixels).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


def table(
    labels: Sequence[int],
    *,
    split: int = 0,
    names: tuple[str, ...] = CLASSES,
    image: str = "image",
    label: str = "label",
    more: Mapping[str, tuple[Any, list[Any]]] = {},
) -> Any:
    """Images that hold their split, row and label."""
    columns = {image: [png((split, i, value % 256)) for i, value in enumerate(labels)]}
    features = {image: datasets.Image(), label: datasets.ClassLabel(names=list(names))}
    columns |= {label: list(labels)} | {name: values for name, (_, values) in more.items()}
    features |= {name: feature for name, (feature, _) in more.items()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def write(folder: Path, form: str, splits: Mapping[str, Any]) -> str:
    """A data set on disk, as the name by which it is loaded."""
    if form == "saved":
        datasets.DatasetDict(splits).save_to_disk(folder)
    else:
        folder.mkdir()
        for name, split in splits.items():
            split.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return f"hf:{folder}"


def rows(images: Any) -> list[tuple[int, ...]]:
    return [tuple(image) for image in images.batch(slice(None))[:, :, 0, 0].tolist()]


MANY = [0, 1, 2] * 10


# -- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["saved", "parquet"])
@pytest.mark.parametrize("chosen", ["validation", "valid", "val"])
def test_three_splits_are_used_as_they_are(tmp_path: Path, form: str, chosen: str) -> None:
    splits = {"train": table(MANY), chosen: table([2, 1, 0], split=1), "test": table([1], split=2)}
    data = load_data(write(tmp_path / "set", form, splits), size=SIZE)
    assert data.classes == CLASSES
    for number, (part, labels) in enumerate(
        [(data.train, MANY), (data.validation, [2, 1, 0]), (data.test, [1])]
    ):
        assert isinstance(part, ImageSet)
        assert part.labels.tolist() == labels
        assert rows(part) == [(number, i, label) for i, label in enumerate(labels)]


@pytest.mark.parametrize("other", ["test", "validation"])
def test_two_splits_are_train_and_test(tmp_path: Path, other: str) -> None:
    name = write(tmp_path / "set", "saved", {"train": table(MANY), other: table([2, 1], split=1)})
    data = load_data(name, size=SIZE)
    assert (len(data.train), len(data.validation)) == (27, 3)
    assert rows(data.test) == [(1, 0, 2), (1, 1, 1)]
    assert sorted(rows(data.train) + rows(data.validation)) == sorted(
        (0, i, label) for i, label in enumerate(MANY)
    )


def test_test_part_is_held_out_of_a_single_split(tmp_path: Path) -> None:
    data = load_data(write(tmp_path / "set", "parquet", {"train": table(MANY)}), size=SIZE)
    assert (len(data.train), len(data.validation), len(data.test)) == (22, 2, 6)
    seen = rows(data.train) + rows(data.validation) + rows(data.test)
    assert len(set(seen)) == 30
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]


def test_table_saved_alone_is_the_training_part(tmp_path: Path) -> None:
    table(MANY).save_to_disk(tmp_path / "set")
    data = load_data(f"hf:{tmp_path / 'set'}", size=SIZE, train=12, validation=3, test=3)
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 3, 3)


def test_rows_that_were_selected_and_shuffled_keep_their_labels(tmp_path: Path) -> None:
    shuffled = table(MANY).shuffle(seed=3).select(range(5, 30))
    source = stored(shuffled)
    labels = np.array(shuffled["label"])
    images = ImageFiles(source, np.arange(25), labels, CLASSES, SIZE)
    assert [row[2] for row in rows(images)] == labels.tolist() != sorted(labels)
    sizes = [int(each.split()[1]) for each in source.identity(np.array([9, 3]))]
    assert sizes == [len(content) for _, content in source.encoded(np.array([9, 3]))]
    name = write(tmp_path / "set", "saved", {"train": table(MANY), "test": shuffled})
    data = load_data(name, size=SIZE)
    assert rows(data.test) == rows(images)
    assert data.test.labels.tolist() == labels.tolist()


def stored(made: Any) -> Any:
    plain = made.cast_column("image", datasets.Image(decode=False)).select_columns(["image"])
    return hub_module.RowSource("somewhere", plain.with_format("arrow"), "image")


def test_columns_may_be_named(tmp_path: Path) -> None:
    more: dict[str, tuple[Any, list[Any]]] = {
        "mask": (datasets.Image(), [png((9, 9, 9))] * 30),
        "coarse": (datasets.ClassLabel(names=["x", "y"]), [0, 1] * 15),
    }
    name = write(tmp_path / "set", "saved", {"train": table(MANY, more=more)})
    with pytest.raises(InputError, match=r"2 columns of images; .*\?image=COLUMN, of image, mask$"):
        load_data(name, size=SIZE)
    with pytest.raises(InputError, match=r"2 columns of labels; .*\?label=COLUMN, of label, coar"):
        load_data(f"{name}?image=mask", size=SIZE)
    data = load_data(f"{name}?image=mask&label=coarse", size=SIZE)
    assert data.classes == ("x", "y") and set(rows(data.train)) == {(9, 9, 9)}
    assert load_data(f"{name}?image=image&label=label", size=SIZE).classes == CLASSES


@pytest.mark.parametrize(
    ("values", "classes"),
    [(["pear", "fig", "fig"], ("fig", "pear")), ([10, 9, 9], ("9", "10"))],
)
def test_labels_may_be_texts_or_numbers(
    tmp_path: Path, values: list[Any], classes: tuple[str, ...]
) -> None:
    kind = datasets.Value("string" if isinstance(values[0], str) else "int32")
    splits = {
        "train": table(MANY, more={"y": (kind, values * 10)}),
        "test": table([0, 0], more={"y": (kind, values[:2])}),
    }
    data = load_data(f"{write(tmp_path / 'set', 'saved', splits)}?label=y", size=SIZE)
    assert data.classes == classes
    assert data.test.labels.tolist() == [1, 0]
    assert np.bincount(data.train.labels).tolist() == [18, 9]


def test_parquet_files_of_others(tmp_path: Path) -> None:
    """Without the library's notes on what the columns are, they are named."""
    labels = ["yes", "no"] * 10
    columns = {"pic": [png((0, i, 0)) for i in range(20)], "y": labels}
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "set" / "anything.parquet")
    name = f"hf:{tmp_path / 'set'}"
    with pytest.raises(InputError, match="no column of images; .* of pic, y"):
        load_data(name, size=SIZE)
    data = load_data(f"{name}?image=pic&label=y", size=SIZE)
    assert data.classes == ("no", "yes")
    assert all(
        (row[1] % 2 == 0) == (label == 1)
        for row, label in zip(rows(data.train), data.train.labels, strict=True)
    )


def test_images_in_files_of_their_own(tmp_path: Path) -> None:
    paths = []
    for i in range(12):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (5, 5), (0, i, 0)).save(paths[-1])
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    made = datasets.Dataset.from_dict({"image": paths, "label": [0, 1] * 6}, features=features)
    source = stored(made)
    assert source.encoded(np.array([3])) == [("somewhere[3]", Path(paths[3]))]
    images = ImageFiles(source, np.arange(12), np.array([0, 1] * 6), ("a", "b"), SIZE)
    assert rows(images) == [(0, i, 0) for i in range(12)]


def test_what_does_not_fit_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": table(MANY), "test": table([2, 1], split=1)}
    name = write(tmp_path / "set", "parquet", splits)
    small = load_data(name, size=SIZE)
    monkeypatch.setattr(splits_module, "_MAX_BYTES", 32 * 3 * SIZE**2 - 1)
    large = load_data(name, size=SIZE)
    for part in ("train", "validation", "test"):
        one, other = getattr(large, part), getattr(small, part)
        assert isinstance(one, ImageFiles) and isinstance(other, ImageSet)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.batch(slice(None)), other.images)
    order = np.array([7, 0, 7, 26])
    np.testing.assert_array_equal(large.train.batch(order), small.train.batch(order))
    assert large.train.batch(np.array([], dtype=int)).shape == (0, 3, SIZE, SIZE)


def test_digest_on_disk_is_of_rows_sizes_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits_module, "_MAX_BYTES", 0)
    monkeypatch.setattr(hub_module, "_CHUNK", 7)

    def digest(folder: str, form: str, train: Any) -> str:
        name = write(tmp_path / folder, form, {"train": train, "test": table([0])})
        return load_data(name, size=SIZE).digest

    first = digest("a", "saved", table(MANY))
    assert digest("b", "parquet", table(MANY)) == first
    longer = table(MANY).to_dict()
    longer["image"][17]["bytes"] += b"x"
    changed = datasets.Dataset.from_dict(longer, features=table([0]).features)
    assert digest("c", "saved", changed) != first
    assert digest("d", "saved", table([1, 0, *MANY[2:]])) != first


# -- what is refused ------------------------------------------------------------------------


def test_bad_row_is_named_or_skipped(tmp_path: Path) -> None:
    made = table(MANY).to_dict()
    made["image"][4]["bytes"] = b"no image"
    made["image"][5] = None
    bad = datasets.Dataset.from_dict(made, features=table([0]).features)
    name = write(tmp_path / "set", "saved", {"train": bad, "test": table([0, 1])})
    with pytest.raises(InputError, match=r"hf:.*/set train\[4\]: not a readable image"):
        load_data(name, size=SIZE)
    data = load_data(name, size=SIZE, skip_bad=True)
    assert len(data.train) + len(data.validation) == 28
    assert not {(0, 4, 1), (0, 5, 2)} & set(rows(data.train) + rows(data.validation))


def test_set_without_a_training_part_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "set", "saved", {"test": table(MANY), "extra": table(MANY)})
    with pytest.raises(InputError, match="expected a split called train, found test, extra$"):
        load_data(name, size=SIZE)


def test_part_without_labels_is_passed_over(tmp_path: Path) -> None:
    lines: list[str] = []

    class Said(type(hub_module.SILENT)):  # type: ignore[misc]
        def say(self, message: str) -> None:
            lines.append(message)

    splits = {"train": table(MANY), "validation": table([0, 1]), "test": table([-1, -1, -1])}
    name = write(tmp_path / "set", "saved", splits)
    data = load_data(name, size=SIZE, progress=Said())
    assert rows(data.test) == [(0, 0, 0), (0, 1, 1)]
    assert lines == [f"{name}: test has no labels and is not used"]


def test_no_labels_at_all_are_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "none", "saved", {"train": table([-1, -1])})
    with pytest.raises(InputError, match="none: train has no labels$"):
        load_data(name, size=SIZE)
    bare = table(MANY).remove_columns("label")
    with pytest.raises(InputError, match="no column of labels; name one with .label=COLUMN"):
        load_data(write(tmp_path / "bare", "saved", {"train": bare}), size=SIZE)


def test_some_labels_missing_are_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "set", "saved", {"train": table([0, 1, -1, 2])})
    with pytest.raises(InputError, match=r"train\[2\]: expected one of 3 labels, found -1"):
        load_data(name, size=SIZE)


def test_label_that_training_has_not_is_refused(tmp_path: Path) -> None:
    kind = datasets.Value("string")
    splits = {
        "train": table(MANY, more={"y": (kind, ["p", "q"] * 15)}),
        "test": table([0], more={"y": (kind, ["r"])}),
    }
    name = write(tmp_path / "set", "saved", splits)
    with pytest.raises(InputError, match=r"test\[0\]: expected one of 2 labels, found r"):
        load_data(f"{name}?label=y", size=SIZE)


def test_other_classes_or_columns_in_another_part_are_refused(tmp_path: Path) -> None:
    others = [
        (table([0, 1], names=("ant", "bee", "dog")), "test: its classes differ"),
        (table([0, 1], label="y"), "test: no column label"),
        (table([0, 1], image="img"), "test: no column image"),
    ]
    for i, (other, match) in enumerate(others):
        name = write(tmp_path / str(i), "saved", {"train": table(MANY), "test": other})
        with pytest.raises(InputError, match=match):
            load_data(name, size=SIZE)


def test_empty_class_and_single_class_are_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "empty", "saved", {"train": table([0, 2] * 9)})
    with pytest.raises(InputError, match="empty: no training images for class bee$"):
        load_data(name, size=SIZE)
    name = write(tmp_path / "single", "saved", {"train": table([0] * 9, names=("ant",))})
    with pytest.raises(InputError, match="single: expected at least two classes, found 1"):
        load_data(name, size=SIZE)


def test_column_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    more: dict[str, tuple[Any, list[Any]]] = {
        "share": (datasets.Value("float32"), [0.5] * 30),
        "count": (datasets.Value("int64"), list(range(30))),
    }
    name = write(tmp_path / "set", "saved", {"train": table(MANY, more=more)})
    with pytest.raises(UnknownNameError, match="unknown column .*'lable'; did you mean label"):
        load_data(f"{name}?label=lable", size=SIZE)
    with pytest.raises(InputError, match="column share holds no class labels, numbers or texts"):
        load_data(f"{name}?label=share", size=SIZE)
    with pytest.raises(InputError, match="column count holds no images"):
        load_data(f"{name}?image=count", size=SIZE)


def test_folder_that_holds_nothing_or_rubbish(tmp_path: Path) -> None:
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "train.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "nothing").mkdir()
    for folder in ("rubbish", "nothing"):
        with pytest.raises(InputError, match=f"{folder}: cannot be loaded") as error:
            load_data(f"hf:{tmp_path / folder}", size=SIZE)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="absent': no such folder"):
        load_data(f"hf:{tmp_path / 'absent'}", size=SIZE)


def test_saved_set_has_no_config(tmp_path: Path) -> None:
    name = write(tmp_path / "set", "saved", {"train": table(MANY)})
    with pytest.raises(InputError, match="a saved data set has no configs; leave out :plain"):
        load_data(f"{name}:plain", size=SIZE)


@pytest.mark.parametrize("name", ["hf:someone/something", "cifar10", "cifar100"])
def test_hub_out_of_reach(name: str) -> None:
    with pytest.raises(InputError, match=r"the hub cannot be reached \(Couldn't reach") as error:
        load_data(name, size=SIZE)
    assert "\n" not in str(error.value)


def test_code_of_a_data_set_is_never_trusted(tmp_path: Path, monkeypatch: Any) -> None:
    """What is asked of the library: a name, perhaps a config, and nothing else."""
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def fake(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        splits = {"train": table(MANY, image="img", label="fine_label", more=coarse)}
        return datasets.DatasetDict(splits)

    coarse = {"coarse_label": (datasets.ClassLabel(names=["x", "y"]), [0, 1] * 15)}
    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert load_data("cifar100", size=SIZE).classes == CLASSES
    load_data("hf:someone/something:large?label=coarse_label", size=SIZE)
    assert asked == [(("uoft-cs/cifar100", None), {}), (("someone/something", "large"), {})]


# -- names ----------------------------------------------------------------------------------


def test_short_names_are_names() -> None:
    assert HubName.parse("cifar10") == HubName("uoft-cs/cifar10", None, "img", "label")
    assert HubName.parse("cifar100") == HubName("uoft-cs/cifar100", None, "img", "fine_label")
    assert all(str(HubName.parse(name)) == full for name, full in SHORT_NAMES.items())


word = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
column = word | st.sampled_from(["fine label", "a&b=c", "50%", "größe", "x+y", "?"])


@given(
    path=word | st.tuples(word, word).map("/".join),
    config=st.none() | word,
    image=st.none() | column,
    label=st.none() | column,
)
def test_names_are_read_as_they_are_written(
    path: str, config: str | None, image: str | None, label: str | None
) -> None:
    name = HubName(path, config, image, label)
    assert HubName.parse(str(name)) == name


def test_folder_with_a_colon_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert HubName.parse(f"hf:{tmp_path}/a:b").path == f"{tmp_path}/a:b"
    assert HubName.parse(f"hf:{tmp_path}/a:b:c").config == "c"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("hf:", "expected hf:NAME"),
        ("hf::plain", "expected hf:NAME"),
        ("hf:a/b/c", "expected hf:NAME"),
        ("hf:./absent", "no such folder"),
        ("hf:a/b?lable=x", "unknown data option 'lable'; did you mean label"),
    ],
)
def test_name_of_no_such_form_is_refused(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        HubName.parse(name)


def test_loading_leaves_torch_unloaded(tmp_path: Path) -> None:
    """The library would load it for some of its formats."""
    name = write(tmp_path / "set", "saved", {"train": table(MANY)})
    program = (
        "import sys\nfrom ofa_deploy.data import load_data\n"
        f"load_data({name!r}, size=4).digest\n"
        "assert 'datasets' in sys.modules and 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
