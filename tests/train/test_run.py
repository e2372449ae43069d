"""A run that nothing disturbs: its files, what it learns, the same bits each time; sorting."""

import csv
import hashlib
import math
import shutil
from pathlib import Path

import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import DepsConfig, RunFile, Trainer, load_supernet, loop
from ofa_deploy.train import trainer as trainer_module
from tests.train.runs import Train, assert_same_outcome, stop_at

# -- an undisturbed run ---------------------------------------------------------------------


def test_finished_run_is_complete(
    finished: Path, config: DepsConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    net, record = load_supernet(finished)
    weights = (finished / "supernet.safetensors").read_bytes()
    assert record.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert record.config == config
    assert record.search_space == small_space == net.space
    assert (record.data, record.data_digest) == ("quarters", data.digest)
    assert record.classes == ("ne", "nw", "se", "sw")
    assert record.versions.keys() >= {"torch", "numpy"}
    assert not net.training


def test_metrics_have_a_row_an_epoch(finished: Path) -> None:
    with (finished / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row.pop("phase") for row in table] == ["warm-up", "ramp", "shrink"]
    rows = [{k: float(v) for k, v in row.items()} for row in table]
    record = RunFile.load(finished)

    def cosine(step: int) -> float:
        return 0.05 * (1 + math.cos(math.pi * step / 12))

    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx([cosine(3), cosine(7), cosine(11)])
    assert [row["beta"] for row in rows] == pytest.approx([0, cosine(8) / cosine(7), 1])
    assert all(0 < row["loss_largest"] < 3 for row in rows)
    for role in ("smallest", "random"):
        losses = [row[f"loss_{role}"] for row in rows]
        assert math.isnan(losses[0])
        assert all(0 < loss < 3 for loss in losses[1:])
    assert record.validation_top1 == {
        role: pytest.approx(rows[-1][f"top1_{role}"]) for role in ("largest", "smallest")
    }


def test_training_learns(finished: Path, small_space: SearchSpace, config: DepsConfig) -> None:
    net, record = load_supernet(finished)
    start = Supernet(small_space, seed=config.seed)
    changed = [
        not torch.equal(p, q) for p, q in zip(net.parameters(), start.parameters(), strict=True)
    ]
    assert all(changed)
    assert record.validation_top1["largest"] > 40  # chance is 25


def test_same_seed_gives_the_same_bits(go: Train, run: Path, finished: Path) -> None:
    go()
    assert_same_outcome(run, finished)


def test_other_seed_gives_other_weights(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    def first_loss(seed: int) -> float:
        changed = config.model_copy(update={"seed": seed})
        return Trainer(small_space, changed, data).advance()[0]

    assert len({first_loss(seed) for seed in (3, 4, 5)}) == 3


def test_finished_run_returns_at_once(
    go: Train, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, run)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(trainer_module, "train_step", never)
    monkeypatch.setattr(loop, "Trainer", never)
    assert go() == RunFile.load(finished)
    assert_same_outcome(run, finished)


# -- sorting --------------------------------------------------------------------------------


@pytest.mark.usefixtures("save_every_step")
@pytest.mark.parametrize("stops", [(4, 5)], ids=str)
def test_channels_are_sorted_once(
    go: Train, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    original, sorted_with = Supernet.sort_channels, []

    def counted(self: Supernet, optimizer: torch.optim.Optimizer | None = None) -> None:
        sorted_with.append(optimizer)
        original(self, optimizer)

    monkeypatch.setattr(Supernet, "sort_channels", counted)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            go(progress=stop_at(stop))
        assert len(sorted_with) == (stop > 4)
    go()
    assert len(sorted_with) == 1
    assert sorted_with[0] is not None


def test_momentum_moves_with_the_channels(
    config: DepsConfig,
    small_space: SearchSpace,
    data: DataSplits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(small_space, config, data)
    for _ in range(4):
        trainer.advance()
    with torch.no_grad():
        for weight in trainer.net.parameters():
            if "momentum_buffer" in (state := trainer.optimizer.state[weight]):
                state["momentum_buffer"].copy_(7 * weight + 1)
    before = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    monkeypatch.setattr(trainer_module, "train_step", lambda *_, **__: [0.0] * 3)
    trainer.advance()
    moved = []
    for name, weight in trainer.net.named_parameters():
        if "momentum_buffer" in (state := trainer.optimizer.state[weight]):
            torch.testing.assert_close(state["momentum_buffer"], 7 * weight + 1, rtol=0, atol=0)
        if not torch.equal(weight, before[name]):
            moved.append(name)
            assert torch.equal(weight.flatten().sort()[0], before[name].flatten().sort()[0])
    assert "layers.stages-1-0.full.project.weight" in moved
    assert "layers.stages-2-0.full.squeeze.reduce.weight" in moved
    projection = trainer.net.get_parameter("layers.stages-1-0.full.project.weight")
    norms = projection.detach().double().abs().sum((0, 2, 3))
    assert (norms.diff() <= 0).all()
