"""Runs that are interrupted or killed end as if they had not been."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import InputError
from ofa_deploy.files import write_model
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import save_tensors
from ofa_deploy.terminal import Interrupted
from ofa_deploy.train import DepsConfig, Ranks, RunFile, Trainer, load_supernet, loop, train_step
from ofa_deploy.train import trainer as trainer_module
from tests.train.runs import OUTPUTS, Train, Watch, assert_same_outcome, stop_at


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
