"""The example of a model card, run as a user runs it: without this package."""

import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ofa_deploy.export import ExportOptions, export_subnet
from ofa_deploy.supernet import save_ensemble

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def run_example(
    folder: Path, image: np.ndarray, out: Path, *, orientation: int = 1
) -> list[tuple[str, float]]:
    """What the example of a model card prints for an image with that orientation tag."""
    shutil.copytree(folder, out)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(out / "image.jpg", quality=100, subsampling=0, exif=exif)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    used = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    assert used == {"json", "numpy", "onnxruntime", "PIL"}
    assert len(code.splitlines()) <= 30
    (out / "example.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        patch.setattr(sys, "argv", ["example.py"])
        found = runpy.run_path("example.py")
    scores = found["scores"]
    order = np.argsort(-scores)[:5]
    return [(found["manifest"]["labels"][i], float(scores[i])) for i in order]


def photograph() -> np.ndarray:
    """Smooth, 40 pixels wide and 30 high."""
    ramp = np.linspace(0, 255, 40)[None, :, None] * np.linspace(0.2, 1, 30)[:, None, None]
    pixels: np.ndarray = (ramp * np.array([1, 0.7, 0.4])).astype(np.uint8)
    return pixels


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("kind", ["none", "normalise", "resize"])
def test_example_of_the_card_gives_the_subnets_answer(
    saved: Any, tmp_path: Path, kind: str, batch: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a photograph that is no square: JPEG and rounding move a logit a little."""
    out = tmp_path / "bundle"
    options = ExportOptions(preprocessing=kind, batch=batch)
    export_subnet(saved.path, out, saved.test, options=options)
    image = photograph()
    found = run_example(out, image, tmp_path / "use")
    assert capsys.readouterr().out.split()[0] == found[0][0]
    square = np.ascontiguousarray(image[:, 5:35].transpose(2, 0, 1)[None])
    wanted = saved.logits(square)[0]
    labels = saved.record.classes
    assert found[0][0] == labels[int(wanted.argmax())]
    logits = np.array([dict(found)[label] for label in labels])
    assert np.abs(logits - wanted).max() < 0.1 * np.abs(wanted).max()


def test_example_of_the_card_turns_photographs_as_their_tag_says(
    saved: Any, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    export_subnet(saved.path, out, saved.test)
    image = photograph()
    upright = run_example(out, image, tmp_path / "upright")
    lying = np.ascontiguousarray(np.rot90(image))  # tag 6: to be turned clockwise
    turned = run_example(out, lying, tmp_path / "turned", orientation=6)
    ignored = run_example(out, lying, tmp_path / "ignored")
    upright_scores, turned_scores, ignored_scores = (
        np.array([score for _, score in sorted(found)]) for found in (upright, turned, ignored)
    )
    off = np.abs(turned_scores - upright_scores).max()
    assert off < 0.2 * np.abs(ignored_scores - upright_scores).max()


def test_example_of_the_card_of_several_networks_gives_probabilities(
    saved: Any, tmp_path: Path
) -> None:
    members = [saved.write(tmp_path / "subnets" / name) for name in ("one", "two")]
    path = save_ensemble(tmp_path / "subnets" / "both", members, {"top1": 60.0})
    out = tmp_path / "bundle"
    export_subnet(path, out, saved.test)
    found = run_example(out, photograph(), tmp_path / "use")
    assert sum(score for _, score in found) == pytest.approx(1, abs=1e-5)
    assert "# probabilities" in (out / "README.md").read_text()
