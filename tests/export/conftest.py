"""A subnet of a random supernet, recalibrated and saved as search saves it; and it as a bundle."""

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_deploy.data import ImageSet
from ofa_deploy.export import ExportOptions, Manifest, export_subnet, get_target
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Subnet, SubnetFile, Supernet, cut, save_subnet, to_tensor
from tests.export.times import fake_times

CLASSES = ("ant", "bee", "cat", "dog")
EVERY = (
    "onnx",
    "onnx-fp16",
    "ort-int8",
    "openvino",
    "openvino-fp16",
    "openvino-int8",
    "torch-export",
    "tensorrt",
)
RATIOS = {"onnx": 1.0, "onnx-fp16": 1.1, "ort-int8": 0.8, "openvino": 0.9, "openvino-int8": 1.2}

Lie = Callable[[np.ndarray], np.ndarray]

bundle_module: Any = importlib.import_module("ofa_deploy.export.bundle")


def image_set(seed: int, n: int) -> ImageSet:
    """Noise of four brightnesses, one a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    images = rng.integers(0, 96, (n, 3, 16, 16)) + 50 * labels[:, None, None, None]
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), CLASSES)


@dataclass(frozen=True)
class Saved:
    """A subnet in memory and on disk."""

    subnet: Subnet
    record: SubnetFile
    path: Path
    test: ImageSet

    def write(self, stem: Path, *, subnet: Subnet | None = None, **fields: object) -> Path:
        """Save it again, with other weights or another record."""
        record = self.record.model_copy(update=fields)
        return save_subnet(stem, self.subnet if subnet is None else subnet, record)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """What PyTorch gives for images, uint8 (n, 3, size, size)."""
        with torch.no_grad():
            found: np.ndarray = self.subnet(to_tensor(images, 12)).numpy()
        return found


@pytest.fixture(scope="session")
def net(tiny_space: SearchSpace) -> Supernet:
    return Supernet(tiny_space, seed=1)


@pytest.fixture(scope="session")
def arch(tiny_space: SearchSpace) -> Arch:
    """In the middle, at the smaller resolution: images are resized on their way."""
    return tiny_space.arch(
        resolution=12, depths=[2, 3], kernels=[3, 7, 3, 5, 3], expands=[2, 3, 1.5, 3, 3]
    )


def make_saved(space: SearchSpace, net: Supernet, arch: Arch, folder: Path) -> Saved:
    subnet = cut(net, arch, image_set(0, 60))
    candidate = Candidate(
        arch,
        {"top1": 61.0, "latency": 0.3},
        {"latency": (0.2, 0.4)},
        {"top1": 60.0, "latency": 0.31},
        "latency <= 0.4 ms",
    )
    record = SubnetFile(
        space=space.to_dict(),
        supernet_sha256="ab" * 32,
        data="/home/somebody/somewhere",
        data_options={"seed": 0, "train": None},
        data_digest="0" * 16,
        classes=CLASSES,
        calibration=60,
        candidate=candidate.to_dict(),
    )
    path = save_subnet(folder / "subnets" / "best", subnet, record)
    return Saved(subnet, record, path, image_set(1, 270))


@pytest.fixture
def saved(tiny_space: SearchSpace, net: Supernet, arch: Arch, tmp_path: Path) -> Saved:
    return make_saved(tiny_space, net, arch, tmp_path)


@pytest.fixture(scope="session")
def calibration() -> ImageSet:
    return image_set(2, 96)


@pytest.fixture(autouse=True)
def _made_up_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are not timed for real, unless a test says so."""
    monkeypatch.setattr(bundle_module, "time_files", fake_times({}))


@dataclass(frozen=True)
class Whole:
    """A bundle of many targets."""

    saved: Saved
    folder: Path
    manifest: Manifest

    def copy(self, to: Path) -> Path:
        """A copy to tamper with."""
        return Path(shutil.copytree(self.folder, to))


@pytest.fixture(scope="session")
def whole(
    tiny_space: SearchSpace,
    net: Supernet,
    arch: Arch,
    calibration: ImageSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Whole:
    """Everything that can be exported to without a GPU, exported once; timings are made up."""
    folder = tmp_path_factory.mktemp("whole")
    saved = make_saved(tiny_space, net, arch, folder)
    options = ExportOptions(targets=EVERY, calibration_images=48, allowed_loss=5.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "time_files", fake_times(RATIOS))
        manifest = export_subnet(
            saved.path, folder / "bundle", saved.test, calibration=calibration, options=options
        )
    return Whole(saved, folder / "bundle", manifest)


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Path:
    """A bundle to tamper with."""
    return whole.copy(tmp_path / "copy")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundles" / "best"


class Liar:
    """A session whose logits go through ``lie``."""

    def __init__(self, honest: Any, lie: Lie) -> None:
        self.honest, self.lie = honest, lie

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.lie(self.honest.run(images))


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lie], None]:
    """Make the sessions of ONNX targets lie."""

    def begin(lie: Lie) -> None:
        kind = type(get_target("onnx"))
        honest = kind.load

        def load(self: Any, artefact: bytes, *, threads: int = 1) -> Liar:
            return Liar(honest(self, artefact, threads=threads), lie)

        monkeypatch.setattr(kind, "load", load)

    return begin
