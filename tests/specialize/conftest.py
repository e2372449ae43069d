"""A trained supernet, a subnet cut from it, and runs of a second or less."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.data import DataSplits
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.specialize import (
    Parent,
    Specialist,
    SpecializeConfig,
    build_specialize_config,
    load_parent,
)
from ofa_deploy.supernet import load_subnet, save_subnet
from ofa_deploy.train import DepsConfig, Evaluator, Ranks, loop, train
from tests.train.runs import quarters

FAST = {"batch": 25, "calibration": 32, "threads": 1, "seed": 3, "augment": "crop+flip"}


@pytest.fixture(scope="session")
def space(tiny_space: SearchSpace) -> SearchSpace:
    return replace(tiny_space, resolutions=(16,))


@pytest.fixture(scope="session")
def data() -> DataSplits:
    """100 training images, which are four steps an epoch."""
    return DataSplits("quarters", quarters(100, 1), quarters(24, 2), quarters(40, 3))


@dataclass(frozen=True)
class Cut:
    """A finished supernet's run and a subnet of it.

    Attributes:
        subnet: the path of its file.
    """

    run: Path
    subnet: Path
    arch: Arch


@pytest.fixture(scope="session")
def cut(space: SearchSpace, data: DataSplits, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """Not to be written to."""
    run = tmp_path_factory.mktemp("runs") / "supernet"
    config = DepsConfig(epochs=3, ramp_end=2, ramp_epochs=1, random_subnets=1, **FAST)
    train(config, space, data, run)
    evaluator = Evaluator.load(run, data)
    arch = space.arch(depths=[1, 1], kernels=3, expands=[2, 3])
    (top1,) = evaluator.validate([arch])
    measured = {"top1": top1, "latency": 0.5, "test_top1": 1.0}
    record = evaluator.subnet_record(Candidate(arch, measured=measured).to_dict())
    subnet = save_subnet(run / "subnets" / "best", evaluator.cut(arch), record)
    return Cut(run, subnet, arch)


@pytest.fixture(scope="session")
def parent(cut: Cut, data: DataSplits) -> Parent:
    """The supernet's largest subnet."""
    return load_parent(cut.run, 16, data, 32)


Make = Callable[..., Specialist]


def settings(method: str, **changes: Any) -> SpecializeConfig:
    """Settings that are fast."""
    return build_specialize_config(method, **{**FAST, **changes})


@pytest.fixture
def make(cut: Cut, space: SearchSpace, data: DataSplits, parent: Parent) -> Make:
    """A ``Specialist`` of the subnet, from a method and settings."""

    def call(method: str, **changes: Any) -> Specialist:
        config = settings(method, **changes)
        subnet, _ = load_subnet(cut.subnet)
        teacher = parent if config.needs_parent else None
        weights = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}
        return Specialist(space, cut.arch, config, data, weights, teacher, Ranks())

    return call


@pytest.fixture
def save_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
