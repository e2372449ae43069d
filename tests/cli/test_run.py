"""Classifying images with a bundle."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from ofa_deploy.errors import DeviceError

Cli = Callable[..., Any]
LABELS = ("moss", "rust", "slate")


@pytest.fixture(scope="module")
def several(job: Any, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same subnet as bundles, by what they do of the preprocessing."""
    folder = tmp_path_factory.mktemp("several")
    more = ("--target", "onnx,onnx-fp16", "--no-measure")
    for kind in ("none", "normalise", "resize"):
        asked = ("--out", folder / kind, "--preprocessing", kind)
        assert cli("export", job.subnet, *asked, *more).code == 0
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def bundle(several: dict[str, Path], here: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(several["none"], here / "bundle"))


@pytest.fixture
def image(photos: Path) -> Path:
    return sorted((photos / "rust").iterdir())[0]


def rows(made: Any) -> list[dict[str, Any]]:
    assert made.code == 0, made.stderr
    found = json.loads(made.stdout)
    assert isinstance(found, list)
    return found


def by_hand(folder: Path, path: Path) -> np.ndarray:
    """Probabilities of an image, by nothing but ONNX Runtime and the manifest."""
    wanted = json.loads((folder / "manifest.json").read_text())["preprocessing"]
    with Image.open(path) as opened:
        side = min(opened.size)
        left, top = (opened.width - side) // 2, (opened.height - side) // 2
        square = opened.convert("RGB").crop((left, top, left + side, top + side))
        small = square.resize((wanted["size"],) * 2, Image.Resampling.BILINEAR)
    pixels = (np.asarray(small, np.float32) / 255 - wanted["mean"]) / wanted["std"]
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    given = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: given})[0]
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


# -- answers --------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_file(cli: Cli, several: Any, image: Path) -> None:
    found = rows(cli("run", several["none"], image, "--format", "json"))
    assert [row["rank"] for row in found] == [1, 2, 3], "all three classes, fewer than five"
    expected = by_hand(several["none"], image)
    given = {row["label"]: row["probability"] for row in found}
    assert [given[label] for label in LABELS] == pytest.approx(list(expected), abs=2e-5)
    assert sum(given.values()) == pytest.approx(1, abs=1e-5)
    assert list(given.values()) == sorted(given.values(), reverse=True)
    assert all(0 < row["ms"] < 1000 for row in found)


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (500, 80)])
def test_what_files_do_themselves_is_left_to_them(
    cli: Cli, several: Any, here: Path, size: tuple[int, int]
) -> None:
    """On a photograph that is no square; rounded pixels move a probability a little."""
    ramp = np.linspace(0, 255, size[0])[None, :, None] * np.linspace(0.3, 1, size[1])[:, None, None]
    Image.fromarray((ramp * np.array([1, 0.7, 0.4])).astype(np.uint8)).save(here / "ramp.png")
    expected = by_hand(several["none"], here / "ramp.png")
    for kind, folder in several.items():
        found = rows(cli("run", folder, here / "ramp.png", "--format", "json"))
        given = {row["label"]: row["probability"] for row in found}
        close = 1e-5 if kind == "none" else 0.02
        assert [given[label] for label in LABELS] == pytest.approx(list(expected), abs=close), kind


def test_many_images_in_their_order(cli: Cli, bundle: Path, photos: Path) -> None:
    images = [path for name in LABELS for path in sorted((photos / name).iterdir())[:8]]
    found = rows(cli("run", bundle, *images, "--top", 1, "--format", "json"))
    assert [row["image"] for row in found] == [str(path) for path in images]
    right = sum(row["label"] == path.parent.name for row, path in zip(found, images, strict=True))
    assert right > len(images) / 2


def test_folder_of_images(cli: Cli, bundle: Path, photos: Path, image: Path) -> None:
    asked = (photos / "moss", image, "--top", 1)
    found = rows(cli("run", bundle, *asked, "--format", "json"))
    expected = [*sorted((photos / "moss").iterdir()), image]
    assert [row["image"] for row in found] == [str(path) for path in expected]
    assert "ms: of one inference" in cli("run", bundle, *asked).stderr


def test_target_threads_and_form(cli: Cli, bundle: Path, image: Path) -> None:
    asked = ("run", bundle, image, "--target", "onnx-fp16", "--threads", 2, "--top", 2)
    made = cli(*asked, "--format", "csv")
    assert "target onnx-fp16, fp16" in made.stderr
    found = list(csv.DictReader(io.StringIO(made.stdout)))
    assert list(found[0]) == ["image", "rank", "label", "probability", "ms"]
    assert len(found) == 2
    assert found[0]["label"] in cli(*asked).stdout
    assert cli(*asked, "--quiet").stderr == ""


def test_fixed_batches_take_one_image(cli: Cli, job: Any, image: Path) -> None:
    asked = ("--batch", 3, "--out", "fixed", "--no-measure")
    assert cli("export", job.subnet, *asked).code == 0
    found = rows(cli("run", "fixed", image, "--format", "json"))
    given = {row["label"]: row["probability"] for row in found}
    expected = by_hand(job.bundle, image)
    assert [given[label] for label in LABELS] == pytest.approx(list(expected), abs=2e-5)


def test_what_runs_is_run_where_none_is_the_best(cli: Cli, job: Any, image: Path) -> None:
    """A recipe stands first, and a program that may bring code second."""
    targets = "tensorrt,torch-export,onnx-fp16,onnx"
    made = cli("export", job.subnet, "--out", "b", "--target", targets, "--no-measure")
    assert made.code == 0, made.stderr
    assert json.loads(Path("b/manifest.json").read_text())["best"] is None
    made = cli("run", "b", image)
    assert made.code == 0, made.stderr
    assert "target onnx-fp16, fp16" in made.stderr


def test_every_form_of_image_is_read(cli: Cli, bundle: Path, image: Path, here: Path) -> None:
    with Image.open(image) as opened:
        kinds = ("L", "RGBA", "P", "CMYK", "1")
        for kind in kinds:
            suffix = "tif" if kind == "CMYK" else "png"
            opened.convert("RGB").convert(kind).save(here / f"{kind}.{suffix}")
    found = rows(cli("run", bundle, *sorted(here.glob("*.[pt]*")), "--format", "json"))
    assert len({row["image"] for row in found}) == len(kinds)


def test_torch_is_not_loaded(bundle: Path, image: Path) -> None:
    code = (
        "import sys; from ofa_deploy.cli.main import app\n"
        f"app(['run', {str(bundle)!r}, {str(image)!r}, '--quiet'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "moss" in done.stdout


# -- images that cannot be read -------------------------------------------------------------


@pytest.fixture
def broken(here: Path, image: Path) -> list[Path]:
    """Files that are no images, or not whole."""
    (here / "text.jpg").write_text("not a picture")
    (here / "empty.png").touch()
    (here / "cut.png").write_bytes(image.read_bytes()[:200])
    (here / "folder.jpg").mkdir()
    Image.fromarray(np.zeros((9, 9), np.float32)).save(here / "floats.tif")
    names = ("text.jpg", "empty.png", "cut.png", "folder.jpg", "floats.tif", "nowhere.jpg")
    return [here / name for name in names]


def test_unreadable_images_are_named_and_counted(
    cli: Cli, bundle: Path, image: Path, broken: list[Path]
) -> None:
    made = cli("run", bundle, broken[0], image, *broken[1:], "--format", "json", "--quiet")
    message = made.error(1)
    assert "6 of 7 images cannot be read" in message
    for path in broken:
        assert sum(path.name in line for line in made.stderr.splitlines()) == 1, path
    assert len(made.stderr.splitlines()) == len(broken), "a line for each"
    assert {row["image"] for row in json.loads(made.stdout)} == {str(image)}


def test_nothing_readable_writes_nothing(cli: Cli, bundle: Path, broken: list[Path]) -> None:
    made = cli("run", bundle, *broken[:2], "--format", "json")
    assert "2 of 2 images cannot be read" in made.error(1)
    assert made.stdout == ""


def test_image_of_too_many_pixels_is_not_decoded(
    cli: Cli, bundle: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "not a readable image" in cli("run", bundle, image).error(1)


# -- bundles and options that are wrong -----------------------------------------------------


def test_wrong_options(cli: Cli, bundle: Path, image: Path) -> None:
    message = cli("run", bundle, image, "--target", "onnx-fp61").error(1)
    assert "unknown target 'onnx-fp61'; did you mean onnx-fp16" in message
    assert "no such bundle" in cli("run", "nowhere", image).error(1)
    assert "a file, not a bundle" in cli("run", image, image).error(1)
    for args in (["run", bundle], ["run"], ["run", bundle, image, "--top", 0]):
        assert cli(*args).code == 2


def test_tampered_file_is_not_run(cli: Cli, bundle: Path, image: Path) -> None:
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert "SHA-256 differs" in cli("run", bundle, image).error(1)


def test_other_number_of_classes_than_labels(cli: Cli, bundle: Path, image: Path) -> None:
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    value["labels"].append("sand")
    path.write_text(json.dumps(value))
    message = cli("run", bundle, image).error(1)
    assert "tells 3 classes apart, its manifest names 4" in message


@pytest.mark.parametrize("element", ["INT64", "STRING"])
def test_file_that_gives_no_logits(cli: Cli, bundle: Path, image: Path, element: str) -> None:
    """With the right hash: made by somebody who means harm, or by another tool."""
    import onnx

    helper, kind = onnx.helper, getattr(onnx.TensorProto, element)
    nodes = [
        helper.make_node("ReduceSum", ["images", "axes"], ["sums"], keepdims=0),
        helper.make_node("Cast", ["sums"], ["logits"], to=kind),
    ]
    size = json.loads((bundle / "manifest.json").read_text())["preprocessing"]["size"]
    shape = ["batch", 3, size, size]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", kind, ["batch", 3])],
        [onnx.numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    opset = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    (bundle / "model.onnx").write_bytes(data)
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    value["files"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(value))
    asked = ("run", bundle, image, "--target", "onnx")
    assert "expected float32 logits" in cli(*asked).error(DeviceError.exit_code)
    assert "onnx" in cli("verify", bundle).error(1)
