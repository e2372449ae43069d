"""A folder in which the documentation's commands are run, on a machine whose timings are exact."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import EXACT, Workers, _few_timings
from tests.docs.commands import ROOT

# Networks of the small space then take 0.05 to 0.25 ms, in which the documentation's budgets lie.
FAST = EXACT.replace("size * 1e-6", "size * 2e-7")


def _photos(folder: Path) -> None:
    """96 noisy images of three colours that are hard to tell apart."""
    rng = np.random.default_rng(5)
    colours = {"cat": (90, 130, 90), "dog": (130, 90, 90), "owl": (95, 95, 125)}
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(1, 33):
            pixels = np.array(colour) + rng.normal(0, 20, 3) + rng.normal(0, 50, (32, 32, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / name / f"{i}.jpg")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: images, and what a clone of the repository has."""
    folder = tmp_path_factory.mktemp("world")
    _photos(folder / "photos")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "my_space.toml", folder / "docs")
    shipped = Path("latency_tables") / "amd-epyc-2core"
    shutil.copytree(ROOT / shipped, folder / shipped)
    workers = Workers(FAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "240")
        patch.setattr(subprocess, "Popen", workers.popen)
        _few_timings(patch)
        yield folder
