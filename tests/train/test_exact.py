"""Every method, cut at every step: at phase borders and within them, it ends with the same bits."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import FileFormatError, InputError, StorageError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import (
    BigNasConfig,
    CompOfaConfig,
    DepsConfig,
    ProgressiveConfig,
    RunFile,
    TrainConfig,
    Trainer,
    load_supernet,
    loop,
    train,
)
from ofa_deploy.train.checkpoint import load_state, save_state
from tests.train.runs import assert_same_outcome, stop_at

COMMON: dict[str, Any] = {
    "batch": 25,
    "lr": 0.05,
    "augment": "crop+flip",
    "calibration": 16,
    "seed": 11,
    "threads": 1,
}
# Four steps an epoch.
CONFIGS: dict[str, TrainConfig] = {
    "deps": DepsConfig(epochs=3, ramp_end=2, ramp_epochs=1, random_subnets=1, **COMMON),
    "deps without ramp": DepsConfig(
        epochs=2, ramp_end=1, ramp_epochs=0, random_subnets=1, **COMMON
    ),
    "bignas": BigNasConfig(
        epochs=2, random_subnets=1, optimizer="rmsprop", divergence="alpha", **COMMON
    ),
    "progressive": ProgressiveConfig(
        teacher_epochs=1,
        kernel_epochs=1,
        kernel_lr=0.5,
        depth_epochs=(1,),
        expand_epochs=(1,),
        warmup_epochs=1,
        **COMMON,
    ),
    "compofa": CompOfaConfig(
        teacher_epochs=1, phase_epochs=(1,), warmup_epochs=1, subnets=2, **COMMON
    ),
}


def finite_rows(trainer: Trainer) -> list[dict[str, float | str]]:
    """The rows, with NaN (which equals nothing) replaced."""
    return [
        {k: "NaN" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in trainer.rows
    ]


def step(trainer: Trainer) -> list[float]:
    losses = trainer.advance()
    if trainer.step % trainer.steps_per_epoch == 0:
        trainer.close_epoch()
    return losses


def assert_same_net(found: Supernet | None, expected: Supernet | None) -> None:
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert_same_tensors(found.state_dict(), expected.state_dict())


def assert_same_tensors(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("name", CONFIGS)
def test_cut_at_every_step_it_ends_the_same(
    name: str, small_space: SearchSpace, data: DataSplits, tmp_path: Path
) -> None:
    config, file = CONFIGS[name], tmp_path / "state.pt"
    whole = Trainer(small_space, config, data)
    cut = Trainer(small_space, config, data)
    borders = {whole.plan.first_step(phase.name) for phase in whole.plan.phases}
    passed = set()
    while not whole.finished:
        passed.add(whole.step)
        save_state(file, "id", cut.state_dict())
        cut = Trainer(small_space, config, data)
        state = load_state(file, "id", Trainer.STATE)  # reads with weights_only=True
        assert state is not None
        cut.load_state_dict(state)
        assert step(cut) == step(whole), f"losses of step {whole.step - 1}"
        assert_same_net(cut.frozen, whole.frozen)
    assert borders <= passed == set(range(whole.plan.steps))
    assert_same_net(cut.net, whole.net)
    momenta = [trainer.optimizer.state_dict()["state"] for trainer in (cut, whole)]
    assert momenta[0].keys() == momenta[1].keys()
    for index, memory in momenta[1].items():
        assert_same_tensors(momenta[0][index], memory)
    assert finite_rows(cut) == finite_rows(whole)
    assert cut.cost == whole.cost > 0
    assert (whole.frozen is not None) == (name in ("progressive", "compofa"))


@pytest.fixture(scope="module")
def progressive(
    small_space: SearchSpace, data: DataSplits, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(CONFIGS["progressive"], small_space, data, run)
    return run


def test_interrupted_run_keeps_its_teacher(
    progressive: Path,
    small_space: SearchSpace,
    data: DataSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, config = tmp_path / "run", CONFIGS["progressive"]
    monkeypatch.setattr("ofa_deploy.train.loop._CHECKPOINT_SECONDS", -1)
    for stop in (4, 10):  # the teacher is frozen after step 4
        with pytest.raises(KeyboardInterrupt):
            train(config, small_space, data, run, progress=stop_at(stop))
        state = torch.load(run / "state.pt", weights_only=True)
        assert (state["step"], state["frozen"] is not None) == (stop, stop > 4)
    train(config, small_space, data, run)
    assert_same_outcome(run, progressive)


def test_finished_run_of_another_method_loads(progressive: Path) -> None:
    net, record = load_supernet(progressive)
    assert record.config == CONFIGS["progressive"]
    assert not net.training
    phases = [line.split(",")[1] for line in (progressive / "metrics.csv").read_text().splitlines()]
    assert phases == ["phase", "teacher", "kernel", "kernel", "depth 1", "expand 1"]


def test_run_of_a_far_larger_space_takes_no_memory(progressive: Path, tmp_path: Path) -> None:
    run = shutil.copytree(progressive, tmp_path / "run")
    value = json.loads((run / "run.json").read_text())
    value["space"]["head"]["features"] = 2**20
    (run / "run.json").write_text(json.dumps(value))
    with pytest.raises(FileFormatError, match=r"supernet.safetensors: .* far fewer than the"):
        load_supernet(run)


def test_finished_run_without_its_weights_says_what_to_do(
    progressive: Path, tmp_path: Path, small_space: SearchSpace, data: DataSplits
) -> None:
    run = shutil.copytree(progressive, tmp_path / "run")
    (run / "supernet.safetensors").unlink()
    with pytest.raises(InputError, match=r"safetensors: gone from a run .*; remove .*run.json to"):
        train(CONFIGS["progressive"], small_space, data, run)


def test_outputs_that_vanish_before_the_end_are_written_again(
    progressive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_space: SearchSpace,
    data: DataSplits,
) -> None:
    """Someone removes files while training is at work: nothing is lost while a checkpoint is."""
    run, finished = tmp_path / "run", loop._finished

    def removed(*args: Any) -> Any:
        record = finished(*args)
        (run / "supernet.safetensors").unlink()
        return record

    monkeypatch.setattr(loop, "_finished", removed)
    with pytest.raises(StorageError, match="gone as soon as it was written; run again"):
        train(CONFIGS["progressive"], small_space, data, run)
    assert not RunFile.load(run).finished
    (run / "metrics.csv").unlink()
    monkeypatch.setattr(loop, "_finished", finished)
    train(CONFIGS["progressive"], small_space, data, run)
    assert_same_outcome(run, progressive)
    assert (run / "metrics.csv").read_bytes() == (progressive / "metrics.csv").read_bytes()


def test_teacher_is_frozen_once_and_each_phase_has_an_optimizer_of_its_own(
    small_space: SearchSpace, data: DataSplits
) -> None:
    trainer = Trainer(small_space, CONFIGS["progressive"], data)
    for _ in range(4):
        trainer.advance()
    assert trainer.frozen is None
    trained = {name: t.clone() for name, t in trainer.net.state_dict().items()}
    optimizers = [("teacher", 0, trainer.optimizer)]
    teachers: list[Supernet | None] = []
    while not trainer.finished:
        phase, local = trainer.plan.at(trainer.step)
        trainer.advance()
        teachers.append(trainer.frozen)
        if trainer.optimizer is not optimizers[-1][2]:
            optimizers.append((phase.name, local, trainer.optimizer))
    teacher = teachers[0]
    assert teacher is not None
    assert all(each is teacher for each in teachers)
    assert_same_tensors(teacher.state_dict(), trained)
    assert not any(p.requires_grad for p in teacher.parameters())
    pairs = zip(trainer.net.parameters(), teacher.parameters(), strict=True)
    assert all(p.data_ptr() != q.data_ptr() for p, q in pairs)
    assert [(name, local) for name, local, _ in optimizers] == [
        (name, 0) for name in ("teacher", "kernel", "depth 1", "expand 1")
    ]
