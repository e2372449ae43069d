"""The model card: what stands in it, and that names cannot break it."""

from typing import Any

import pytest

from ofa_deploy.export import Manifest, export_subnet
from ofa_deploy.export.card import model_card


def table(card: str, first: str) -> list[list[str]]:
    """The cells of the table whose first heading is that."""
    lines = card.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_target_has_its_row(whole: Any) -> None:
    card = (whole.folder / "README.md").read_text()
    assert card == model_card(whole.manifest.model_copy(update={"files": {}}))
    rows = table(card, "target")
    assert len(rows) == len(whole.manifest.targets)
    by_name = {row[0]: row for row in rows}
    best = by_name["**ort-int8** (best)"]
    accuracy = whole.manifest.targets["ort-int8"].accuracy
    assert best[3] == f"{accuracy.top1:.2f}"
    assert best[4] == f"{accuracy.loss:+.2f}"
    assert best[5] == f"{accuracy.sqnr_db:.1f}"
    assert (best[6], best[7], best[8]) == ("0.8", "0.80", "verified")
    assert by_name["openvino-int8"][8] == "marked"
    assert by_name["tensorrt"][3:8] == [""] * 5
    assert by_name["tensorrt"][8] == "not verified here"


def test_reader_learns_what_counts(whole: Any) -> None:
    card = (whole.folder / "README.md").read_text()
    for text in (
        "4 classes for 12x12 pixels",
        "multiply-accumulates",
        "Top-1 on 270 test images",
        "A loss of more than 5 points is marked",
        "in turns with ONNX Runtime",
        "openvino-int8: marked: takes 1.33 times as long",
        "tensorrt: not verified here: ",
        "its own, from 60 training images",
        f"supernet: SHA-256 `{'ab' * 32}`",
        "data: somewhere (",
        "onnxruntime",
        "centre square",
        "ant, bee, cat, dog.",
    ):
        assert text in card, text
    assert ["asked", "latency <= 0.4 ms", ""] in table(card, "metric")
    assert ["latency", "0.300 ms", "0.310 ms"] in table(card, "metric")
    assert "somebody" not in card


@pytest.mark.parametrize(
    ("label", "shown"),
    [("<script>", "\\<script\\>"), ("a|b", "a\\|b"), ("*x*", "\\*x\\*"), ("a\nb", "a b")],
)
def test_labels_are_text(whole: Any, label: str, shown: str) -> None:
    changed = whole.manifest.model_copy(update={"labels": (label, "bee", "cat", "dog")})
    assert f"\n\n{shown}, bee, cat, dog.\n" in model_card(changed)


def test_many_labels_are_cut_short(whole: Any) -> None:
    labels = tuple(f"class {i}" for i in range(1000))
    changed: Manifest = whole.manifest.model_copy(update={"labels": labels})
    card = model_card(changed)
    assert "class 11 and 988 more, in `manifest.json`." in card
    assert "class 12" not in card


def test_card_of_what_was_neither_timed_nor_checked(whole: Any) -> None:
    only = {"tensorrt": whole.manifest.targets["tensorrt"]}
    changed = whole.manifest.model_copy(update={"targets": only, "best": None})
    card = model_card(changed)
    assert "Top-1 on" not in card and "```python" not in card


def test_example_is_of_the_file_that_is_offered_first(whole: Any) -> None:
    """Where the best is none of the ONNX files."""
    targets = whole.manifest.targets
    marked = targets["ort-int8"].model_copy(update={"status": "marked"})
    untimed = targets["onnx"].model_copy(update={"latency": None})
    for changed, file in (
        ({"ort-int8": marked, "onnx": targets["onnx"]}, "model.onnx"),
        ({"ort-int8": marked, "onnx": untimed}, "model.onnx"),
        ({"onnx": untimed, "onnx-fp16": targets["onnx-fp16"]}, "onnx-fp16.onnx"),
        ({"ort-int8": marked}, "ort-int8.onnx"),
    ):
        update = {"targets": changed | {"openvino": targets["openvino"]}, "best": "openvino"}
        card = model_card(whole.manifest.model_copy(update=update))
        assert f'InferenceSession("{file}"' in card


def test_forced_export_is_told(saved: Any, whole: Any) -> None:
    changed = whole.manifest.model_copy(update={"bn_images": 0})
    assert "**never recalibrated**: the export was forced" in model_card(changed)
    assert callable(export_subnet)
