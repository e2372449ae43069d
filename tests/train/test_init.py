"""Weights from elsewhere: to start a training from, or as a run of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import FileFormatError, MismatchError
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet, load_checkpoint, load_tensors, save_tensors
from ofa_deploy.train import DepsConfig, Evaluator, RunFile, Trainer, adopt, train

LINEAR = "layers.classifier.full.linear.weight"


@pytest.fixture
def weights(small_space: SearchSpace, tmp_path: Path) -> Path:
    """The file of a supernet of ours with weights of its own."""
    path = tmp_path / "given.safetensors"
    save_tensors(path, Supernet(small_space, seed=77).state_dict(), {})
    return path


def trained_weights(run: Path) -> dict[str, torch.Tensor]:
    sha256 = RunFile.load(run).weights_sha256
    assert sha256 is not None
    return load_tensors(run / "supernet.safetensors", sha256=sha256)


def test_training_starts_from_the_weights(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits, weights: Path, tmp_path: Path
) -> None:
    record = train(config, small_space, data, tmp_path / "run", init=weights)
    # After it, so that both run with the threads that it has set: they decide about every bit.
    by_hand = Trainer(small_space, config, data)
    load_checkpoint(by_hand.net, weights)
    while not by_hand.finished:
        by_hand.advance()
    found = trained_weights(tmp_path / "run")
    for name, tensor in by_hand.net.state_dict().items():
        assert torch.equal(found[name], tensor), name
    assert isinstance(record.config, DepsConfig)
    assert record.config.init_sha256 is not None


def test_same_command_goes_on_and_other_weights_do_not(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits, weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = train(config, small_space, data, run, init=weights)
    assert train(config, small_space, data, run, init=weights) == first
    with pytest.raises(MismatchError, match=r"init_sha256 \(.* there, None now\)"):
        train(config, small_space, data, run)
    other = tmp_path / "other.safetensors"
    save_tensors(other, Supernet(small_space, seed=78).state_dict(), {})
    with pytest.raises(MismatchError, match="init_sha256"):
        train(config, small_space, data, run, init=other)


def test_new_classifier_for_other_classes(
    config: DepsConfig, small_space: SearchSpace, weights: Path
) -> None:
    net = Supernet(small_space.with_classes(7), seed=1)
    with pytest.raises(MismatchError, match="another number of classes: ask for a new classifier"):
        load_checkpoint(net, weights)
    load_checkpoint(net, weights, new_classifier=True)
    given = Supernet(small_space, seed=77).state_dict()
    for name, tensor in net.state_dict().items():
        if "full.linear" not in name:
            assert torch.equal(tensor, given[name]), name
    drawn = net.state_dict()[LINEAR].clone()
    load_checkpoint(net, weights, new_classifier=True)
    assert torch.equal(net.state_dict()[LINEAR], drawn)
    load_checkpoint(net, weights, new_classifier=True, seed=1)
    assert not torch.equal(net.state_dict()[LINEAR], drawn)


def test_weights_that_do_not_fit_leave_no_folder(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits, weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    wider = replace(small_space, stem=replace(small_space.stem, channels=16))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(weights.read_bytes()[:-100])
    for space, path, kind in (
        (wider, weights, MismatchError),
        (small_space, broken, FileFormatError),
    ):
        with pytest.raises(kind, match=path.name):
            train(config, space, data, run, init=path)
        with pytest.raises(kind, match=path.name):
            adopt(path, space, data, run)
        assert not run.exists()


def test_adopted_run_is_a_run(
    small_space: SearchSpace, data: DataSplits, weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    record = adopt(weights, small_space, data, run, calibration=32, threads=1)
    given = Supernet(small_space, seed=77).state_dict()
    for name, tensor in trained_weights(run).items():
        assert torch.equal(tensor, given[name]), name
    evaluator = Evaluator.load(run, data)
    (top1,) = evaluator.validate([small_space.largest])
    assert np.isfinite(top1)
    before = (run / "run.json").stat().st_mtime_ns
    assert adopt(weights, small_space, data, run, calibration=32, threads=1) == record
    assert (run / "run.json").stat().st_mtime_ns == before
    (run / "supernet.safetensors").unlink()
    assert adopt(weights, small_space, data, run, calibration=32, threads=1) == record
    assert trained_weights(run).keys() == given.keys(), "gone, and written again"


def test_adopted_run_is_not_mixed_with_others(
    config: DepsConfig, small_space: SearchSpace, data: DataSplits, weights: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    adopt(weights, small_space, data, run, calibration=32, threads=1)
    with pytest.raises(MismatchError, match=r"calibration \(32 there, 16 now\)"):
        adopt(weights, small_space, data, run, calibration=16, threads=1)
    with pytest.raises(MismatchError, match="holds another run"):
        train(config, small_space, data, run)
    with pytest.raises(MismatchError, match="4 classes, space tiny 5"):
        adopt(weights, small_space.with_classes(5), data, tmp_path / "second")
    assert not (tmp_path / "second").exists()
