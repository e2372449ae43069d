"""Folders of runs with other settings, data or versions: what goes on and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ofa_deploy import __version__
from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.errors import InputError, MismatchError, TrainingDivergedError
from ofa_deploy.files import digest
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet, save_tensors
from ofa_deploy.train import DepsConfig, RunFile, Trainer, train_step
from ofa_deploy.train import trainer as trainer_module
from tests.train.runs import Train, stop_at

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
