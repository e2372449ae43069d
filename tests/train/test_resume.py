"""Runs that are cut short end as if they had not been, and damaged folders are refused."""

import csv
import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from ofa_deploy import __version__
from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.errors import (
    InputError,
    MismatchError,
    TrainingDivergedError,
)
from ofa_deploy.files import digest, write_model
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet, save_tensors
from ofa_deploy.terminal import Interrupted
from ofa_deploy.train import DepsConfig, Ranks, RunFile, Trainer, load_supernet, loop, train_step
from ofa_deploy.train import trainer as trainer_module
from tests.train.runs import OUTPUTS, Train, Watch, assert_same_outcome, stop_at

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


# -- interrupted ----------------------------------------------------------------------------


@pytest.mark.usefixtures("save_every_step")
@pytest.mark.parametrize(
    "stops",
    [(1,), (3, 4, 5), (6,), (8, 12)],
    ids=lambda stops: "-".join(map(str, stops)),
)
def test_interrupted_run_ends_the_same(
    go: Train, run: Path, finished: Path, stops: tuple[int, ...]
) -> None:
    # Four steps an epoch; the channels are sorted after step 4, β is 1 after step 8.
    done = 0
    for stop in stops:
        watch = stop_at(stop)
        with pytest.raises(KeyboardInterrupt):
            go(progress=watch)
        assert watch.said == ([f"resuming training at step {done} of 12"] if done else [])
        assert RunFile.load(run).weights_sha256 is None
        done = stop
    go()
    assert_same_outcome(run, finished)


@pytest.mark.parametrize(("stop", "kept"), [(2, 0), (7, 4)])
def test_steps_since_the_last_checkpoint_are_taken_again(
    go: Train, run: Path, finished: Path, stop: int, kept: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(stop))
    watch = Watch(lambda steps: None)
    go(progress=watch)
    assert watch.said == ([f"resuming training at step {kept} of 12"] if kept else [])
    assert watch.steps == 12
    assert_same_outcome(run, finished)


@pytest.mark.usefixtures("save_every_step")
def test_interrupt_within_a_step(
    go: Train, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def interrupted(*args: Any, **kwargs: Any) -> list[float]:
        losses = train_step(*args, **kwargs)
        calls.append(losses)
        if len(calls) == 6:
            raise KeyboardInterrupt  # the weights have moved, the step is not counted
        return losses

    monkeypatch.setattr(trainer_module, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go()
    go()
    assert len(calls) == 13
    assert_same_outcome(run, finished)


def test_interrupt_while_an_epoch_is_evaluated(
    go: Train, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "top1", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go()
    go()
    assert_same_outcome(run, finished)


@pytest.mark.parametrize("file", ["supernet.safetensors", "run.json"])
def test_interrupt_while_finishing(
    go: Train, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    original: Any = save_tensors if file == "supernet.safetensors" else write_model
    calls = []

    def interrupted(path: Path, *args: Any) -> Any:
        calls.append(path.name)
        if path.name == file:
            raise KeyboardInterrupt
        return original(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, original.__name__, interrupted)
        with pytest.raises(KeyboardInterrupt):
            go()
    with pytest.raises(InputError, match="training has not finished; resume it with"):
        load_supernet(run)
    go()
    assert_same_outcome(run, finished)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
@pytest.mark.parametrize("stop", [2, 6, 8, 12])
def test_the_step_at_work_is_finished_and_kept(
    go: Train,
    run: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: signal.Signals,
    stop: int,
) -> None:
    steps: list[object] = []

    def signalled(*args: Any, **kwargs: Any) -> list[float]:
        steps.append(args)
        if len(steps) == stop:
            signal.raise_signal(asked)
        return train_step(*args, **kwargs)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    watch = Watch(lambda steps: None)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "train_step", signalled)
        with pytest.raises(Interrupted) as told:
            go(progress=watch)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert str(told.value) == f"training stands at step {stop} of 12, kept in {run}"
    assert watch.said[0].startswith("stops after this step; Ctrl-C again: at once, back to step ")
    again = Watch(lambda steps: None)
    go(progress=again)
    assert again.said == [f"resuming training at step {stop} of 12"]
    assert_same_outcome(run, finished)


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (3, "none is kept; 2 steps taken since will be taken again"),
        (7, "step 4 of 12 is kept in {run}; 2 steps taken since will be taken again"),
    ],
)
def test_a_second_signal_ends_at_once_and_says_what_is_lost(
    go: Train,
    run: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    said: str,
) -> None:
    steps: list[object] = []

    def signalled(*args: Any, **kwargs: Any) -> list[float]:
        steps.append(args)
        if len(steps) == stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return train_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "train_step", signalled)
        with pytest.raises(Interrupted) as told:
            go()
    assert str(told.value) == said.format(run=run)
    go()
    assert_same_outcome(run, finished)


def test_several_processes_say_why_steps_are_lost(run: Path) -> None:
    trainer = SimpleNamespace(step=4, plan=SimpleNamespace(steps=12), ranks=Ranks(0, 2))
    kept = loop._Kept(cast(Trainer, trainer), run, "identity")
    trainer.step = 7
    assert kept.told() == (
        f"step 4 of 12 is kept in {run}; 3 steps taken since will be taken again "
        "(several processes stop at once)"
    )


def test_a_signal_that_is_handled_elsewhere_stays_there(go: Train, run: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        go(progress=Watch(lambda steps: steps == 5 and signal.raise_signal(signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert RunFile.load(run).finished


KILLED = """
import json, os, signal, sys
from pathlib import Path

import numpy as np
import torch

from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.space import SearchSpace
from ofa_deploy.train import DepsConfig, loop, train

torch.set_num_threads(1)
folder, files = Path(sys.argv[1]), 0
given = json.loads((folder / "given.json").read_text())
arrays = np.load(folder / "data.npz")
parts = [
    ImageSet(arrays[f"images{i}"], arrays[f"labels{i}"], tuple(given["classes"])) for i in range(3)
]
sync = os.fsync

def kill(handle):
    global files
    files += "state.pt" in os.readlink(f"/proc/self/fd/{handle}")
    if files == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)

os.fsync = kill
loop._CHECKPOINT_SECONDS = -1
train(
    DepsConfig(**given["config"]),
    SearchSpace.from_dict(given["space"]),
    DataSplits("quarters", *parts),
    folder / "run",
)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_killed_run_ends_the_same(
    go: Train,
    config: DepsConfig,
    small_space: SearchSpace,
    data: DataSplits,
    finished: Path,
    run: Path,
) -> None:
    given = {
        "config": config.model_dump(),
        "space": small_space.to_dict(),
        "classes": data.classes,
    }
    (run.parent / "given.json").write_text(json.dumps(given))
    arrays = {
        f"{name}{i}": getattr(part, name)
        for i, part in enumerate((data.train, data.validation, data.test))
        for name in ("images", "labels")
    }
    np.savez(run.parent / "data.npz", **arrays)
    # While the seventh checkpoint is written: mid-epoch, on the ramp.
    command = [sys.executable, "-c", KILLED, str(run.parent), "7"]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    watch = Watch(lambda steps: None)
    go(progress=watch)
    assert watch.said == ["resuming training at step 6 of 12"]
    for name in OUTPUTS:
        assert (run / name).read_bytes() == (finished / name).read_bytes(), name


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


# -- other settings -------------------------------------------------------------------------


def test_other_config_in_the_same_folder(go: Train, run: Path, config: DepsConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(5))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    changed = config.model_copy(update={"lr": 0.2, "seed": 4})
    with pytest.raises(MismatchError) as caught:
        go(config=changed)
    message = str(caught.value)
    assert message.startswith(f"{run}: holds another run, which differs in ")
    assert "lr (0.1 there, 0.2 now)" in message
    assert "seed (3 there, 4 now)" in message
    assert "batch" not in message and "space" not in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_other_data_in_the_same_folder(go: Train, data: DataSplits) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(1))
    labels = data.train.labels.copy()
    labels[0] = (labels[0] + 1) % 4
    changed = replace(data, train=replace(cast(ImageSet, data.train), labels=labels))
    with pytest.raises(MismatchError, match="which differs in its images;"):
        go(data=changed)


def test_other_space_in_the_same_folder(go: Train, small_space: SearchSpace) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(1))
    with pytest.raises(MismatchError, match="which differs in its space;"):
        go(space=replace(small_space, bn_eps=1e-3))


def test_finished_run_of_other_settings(
    go: Train, run: Path, finished: Path, config: DepsConfig
) -> None:
    shutil.copytree(finished, run)
    with pytest.raises(MismatchError, match="batch"):
        go(config=config.model_copy(update={"batch": 10}))


def test_batch_larger_than_the_data_does_not_spoil_the_folder(
    go: Train, config: DepsConfig
) -> None:
    with pytest.raises(InputError, match="at least one batch of 101 .* found 100; lower the"):
        go(config=config.model_copy(update={"batch": 101}))
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(1))


def test_batch_of_all_processes_must_be_there(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits
) -> None:
    changed = config.model_copy(update={"processes": 5})
    with pytest.raises(InputError, match="at least one batch of 125 .* found 100; lower the"):
        Trainer(small_space, changed, data)


def test_processes_that_are_not_there_do_not_spoil_the_folder(
    go: Train, config: DepsConfig, run: Path
) -> None:
    with pytest.raises(InputError, match="settings for 2 processes, found 1"):
        go(config=config.model_copy(update={"processes": 2}))
    assert not run.exists()


def test_other_number_of_classes_does_not_spoil_the_folder(
    go: Train, small_space: SearchSpace
) -> None:
    with pytest.raises(MismatchError, match=r"4 classes, space tiny 5; .*with_classes\(4\)"):
        go(space=small_space.with_classes(5))
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(1))


def test_diverged_run_keeps_the_last_good_checkpoint(
    go: Train, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def diverging(*args: Any, **kwargs: Any) -> list[float]:
        calls.append(args)
        if len(calls) == 6:
            raise TrainingDivergedError("the loss of largest is nan")
        return train_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "train_step", diverging)
        with pytest.raises(TrainingDivergedError) as caught:
            go()
    assert str(caught.value) == (
        "step 5 of 12: the loss of largest is nan; the last good checkpoint stays in "
        f"{run}; train again in another folder, with a lower learning rate than 0.1"
    )
    watch = stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        go(progress=watch)
    assert watch.said == ["resuming training at step 4 of 12"]


# -- other versions of ofa_deploy -----------------------------------------------------------


def test_run_of_an_older_version_goes_on(go: Train, run: Path) -> None:
    """Settings that it did not know have their defaults."""
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(5))
    record = json.loads((run / "run.json").read_text())
    del record["config"]["zero_gamma"], record["versions"]["ofa_deploy"]
    (run / "run.json").write_text(json.dumps(record))
    keys = ("space", "config", "data_digest", "versions")
    state = torch.load(run / "state.pt", weights_only=True)
    torch.save({**state, "identity": digest({key: record[key] for key in keys})}, run / "state.pt")
    watch = stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        go(progress=watch)
    assert watch.said == ["resuming training at step 4 of 12"]


def test_setting_that_an_older_version_did_not_know_must_have_its_default(
    go: Train, run: Path, config: DepsConfig
) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(1))
    record = json.loads((run / "run.json").read_text())
    del record["config"]["zero_gamma"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(MismatchError, match=r"zero_gamma \(False there, True now\)"):
        go(config=config.model_copy(update={"zero_gamma": True}))


def test_checkpoint_of_another_run_is_not_trained_over(go: Train, run: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(progress=stop_at(5))
    state = torch.load(run / "state.pt", weights_only=True)
    torch.save({**state, "identity": "0" * 16}, run / "state.pt")
    before = (run / "state.pt").read_bytes()
    with pytest.raises(MismatchError, match=r"state.pt: a checkpoint of another run"):
        go()
    assert (run / "state.pt").read_bytes() == before


def test_run_tells_the_version_that_made_it(finished: Path) -> None:
    assert RunFile.load(finished).versions["ofa_deploy"] == __version__


def test_run_from_given_weights_does_not_go_on_without_them(
    go: Train, run: Path, small_space: SearchSpace, config: DepsConfig
) -> None:
    weights = run.parent / "given.safetensors"
    save_tensors(weights, Supernet(small_space, seed=9).state_dict(), {})
    with pytest.raises(KeyboardInterrupt):
        go(init=weights, progress=stop_at(1))
    own = RunFile.load(run).config
    with pytest.raises(InputError, match="starts from given weights, and none were; add --init"):
        go(config=own)
