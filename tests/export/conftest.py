"""A subnet of a random supernet, recalibrated and saved as search saves it; and it as a bundle."""

import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.data import ImageSet
from ofa_deploy.export import ExportOptions, Latency, Manifest, export_subnet
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Subnet, SubnetFile, Supernet, cut, save_subnet

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


def fake_times(
    ratios: Mapping[str, float],
) -> Callable[..., dict[str, Latency]]:
    """In place of ``time_files``: each file takes what ``ratios`` say, or as long as the first."""

    def time_files(
        files: Mapping[str, Any], twins: Mapping[str, str], *, threads: int = 1
    ) -> dict[str, Latency]:
        taken = {name: ratios.get(name, 1.0) for name in files}
        return {
            name: Latency(
                ms=ratio,
                ratio=ratio,
                spread=0.01,
                twin_ratio=ratio / taken[twins[name]] if name in twins else None,
                p50=ratio,
                p90=ratio,
                p99=ratio,
                batch=files[name].shape[0],
                threads=threads,
                processes=3,
            )
            for name, ratio in taken.items()
        }

    return time_files


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
