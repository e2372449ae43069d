"""A space, data and settings small enough to train in about a second."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.data import DataSplits
from ofa_deploy.space import SearchSpace
from ofa_deploy.train import DepsConfig, RunFile, loop, train
from tests.train.runs import Train, quarters


@pytest.fixture(scope="session")
def small_space(tiny_space: SearchSpace) -> SearchSpace:
    """The tiny space at 16x16 pixels only: 2,856 networks."""
    return replace(tiny_space, resolutions=(16,))


@pytest.fixture(scope="session")
def data() -> DataSplits:
    """100 training, 24 validation and 8 test images of four classes."""
    return DataSplits("quarters", quarters(100, 1), quarters(24, 2), quarters(8, 3))


@pytest.fixture(scope="session")
def config() -> DepsConfig:
    """Three epochs of four steps: alone, on the ramp, after it."""
    return DepsConfig(
        epochs=3,
        ramp_end=2,
        ramp_epochs=1,
        batch=25,
        random_subnets=1,
        augment="crop+flip",
        calibration=32,
        seed=3,
        threads=1,
    )


@pytest.fixture(scope="session")
def finished(
    config: DepsConfig,
    small_space: SearchSpace,
    data: DataSplits,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of an undisturbed run; not to be written to."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(config, small_space, data, run)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def go(config: DepsConfig, small_space: SearchSpace, data: DataSplits, run: Path) -> Train:
    """``train`` into ``run``, with the fixtures' settings where no others are given."""

    def call(**changes: Any) -> RunFile:
        return train(
            changes.pop("config", config),
            changes.pop("space", small_space),
            changes.pop("data", data),
            run,
            **changes,
        )

    return call


@pytest.fixture
def save_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
